"""WikiText (Merity et al. 2016, arXiv 1609.07843) with its articles or splits put together again.

The Hub holds one row for each line of the original files, with blank lines emptied. A line is no document, so
lines are joined: to articles (the default), or with `options: {documents: split}` to the whole split, which
is what is measured where a paper speaks of WikiText's perplexity.

Choices:
    * An article begins at a title, " = Title = ", after a blank line; what stands before the first title belongs
      to the first article. The few lines of text that look like a title there begin an article too.
    * Blank lines come back as " \\n", as the original files have them. Nothing else is changed: neither the
      spaces around punctuation nor, in the subsets that are not raw, "<unk>" and "@-@".
    * With neither path nor subset it is Salesforce/wikitext at a commit of 2024, subset wikitext-103-raw-v1.
"""

import re
from collections.abc import Iterator
from typing import ClassVar

from lpe_eval.data.corpora.hub import Hub
from lpe_eval.data.corpus import Corpus, Document
from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.spec.corpus_spec import CorpusSpec

_PLACE, _COMMIT, _SUBSET = "Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3", "wikitext-103-raw-v1"
_BLANK = " \n"
_TITLE = re.compile(r" = [^=](?:.*[^=])? = \n?")


class Wikitext(Corpus):
    """See the module's docstring."""

    bibtex: ClassVar[str] = """
        @misc{merity2016wikitext,
          title = {{Pointer Sentinel Mixture Models}},
          author = {Merity, Stephen and Xiong, Caiming and Bradbury, James and Socher, Richard},
          year = {2016},
          eprint = {1609.07843},
          archivePrefix = {arXiv},
        }
    """

    def __init__(self, spec: CorpusSpec) -> None:
        super().__init__(spec)
        for key in spec.options:
            if key != "documents":
                raise UnknownName("option of the corpus wikitext", key, ["documents"])
        self._documents = spec.options.get("documents", "articles")
        if self._documents not in ("articles", "split"):
            raise SpecError(f"documents of the corpus wikitext are articles or split, not {self._documents!r}")
        here = {} if spec.path is not None else {"path": _PLACE, "revision": spec.revision or _COMMIT}
        subset = spec.subset or _SUBSET
        self._lines = Hub(spec.model_copy(update={"name": "hub", "options": {}, "subset": subset, **here}))

    @property
    def streams(self) -> bool:
        return self._lines.streams

    def documents(self, split: str) -> Iterator[Document]:
        parts: list[str] = []
        number, titled, after_blank = 0, False, True
        for line in self._lines.documents(split):
            text = line.text if isinstance(line.text, str) else ""
            title = after_blank and _TITLE.fullmatch(text) is not None
            if title and titled and self._documents == "articles":
                yield Document(f"{split}/{number}", "".join(parts))
                number, parts = number + 1, []
            titled = titled or title
            parts.append(text or _BLANK)
            after_blank = not text.strip()
        if parts:
            yield Document(f"{split}/{number}", "".join(parts))

    def describe(self) -> dict[str, str]:
        return {**self._lines.describe(), "documents": self._documents}
