"""What must be known of key tokens before anything is measured: who chooses them, and which spans are stored."""

from collections.abc import Sequence
from pathlib import Path

from lpe_eval.data.corpus import Corpus
from lpe_eval.data.key_spans import KeySpans, read_key_spans
from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.measure.plan import Planned
from lpe_eval.spec.ppl_spec import PerplexitySpec


def stored_key_spans(spec: PerplexitySpec, corpus: Corpus, planned: Sequence[Planned]) -> KeySpans | None:
    """The stored spans that a run asks for; None where it asks for none.

    Raises:
        UnknownName: another model of the run is to choose, and there is none of that name.
        SpecError: the documents are packed, so that none has a place for its spans.
        DataError: the spans cannot be read, or are of another text.
    """
    asked = spec.key_tokens
    if asked is None:
        return None
    names = [each.peek.name for each in planned]
    if asked.model is not None and asked.model not in names:
        raise UnknownName("model of this run", asked.model, names)
    if asked.path is None:
        return None
    if spec.pack:
        raise SpecError("stored key tokens are spans of documents, which --pack joins into one; leave one of them out")
    documents = {chosen.name: chosen.digest for each in planned for chosen in each.selection.documents}
    return read_key_spans(Path(asked.path), corpus, corpus.split, documents)
