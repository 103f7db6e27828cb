"""Documents that count: text of any length, without a file."""

from collections.abc import Iterator

from lpe_eval.data.corpus import Corpus, Document


class Counting(Corpus):
    """Ten documents, each counting to 999 from another start."""

    def documents(self, split: str) -> Iterator[Document]:
        for start in range(10):
            yield Document(f"from-{start}", " ".join(str(number) for number in range(start, 1000)))

    def describe(self) -> dict[str, str]:
        return {"what": "numbers"}
