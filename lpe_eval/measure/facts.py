"""What the provenance of a run says of its models: what was planned with, and what was found on opening."""

import hashlib
from typing import Any

from lpe_eval.data.corpus import Corpus
from lpe_eval.measure.optimum import Scored
from lpe_eval.measure.remarks import selection_facts
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.transformer_model import TransformerModel


def corpus_facts(corpus: Corpus) -> dict[str, Any]:
    """Which text, as its source describes it; a path as typed, since a resolved one tells whose machine it is."""
    described, path = corpus.describe(), corpus.spec.path
    return {**described, **({"path": path} if "path" in described and path is not None else {})}


def planned_facts(planned: Scored) -> dict[str, Any]:
    """Known before any weight is read: digest, tokenizer, and the documents with their hashes."""
    selection = planned.selection
    if planned.why_not:
        return {"reference": planned.reference, "digest": planned.peek.digest, "why_not": planned.why_not}
    return {
        "reference": planned.reference,
        "digest": planned.peek.digest,
        "tokenizer": planned.peek.tokenizer,
        "tokenizer_fingerprint": planned.tokenizer.fingerprint,
        "text_fingerprint": selection.fingerprint,
        "ids_fingerprint": hashlib.sha256(b"".join(each.tokens.tobytes() for each in selection.documents)).hexdigest(),
        "documents": [[each.name, each.digest, len(each.tokens)] for each in selection.documents],
        "documents_seen": selection.n_seen,
        **selection_facts(selection),
    }


def opened_facts(model: LanguageModel) -> dict[str, Any]:
    """Known once the model is open: shape, encoding with its options, attention path, and what the model adds."""
    facts = model.facts
    encoding = model.spec.model.encoding.model_dump(mode="json") if isinstance(model, TransformerModel) else None
    return {
        "format": facts.format,
        "encoding": facts.encoding,
        "encoding_options": encoding,
        "train_length": facts.train_length,
        "n_parameters": facts.n_parameters,
        "vocab_size": facts.vocab_size,
        "attention": model.attention,
        **({"notes": list(model.notes())} if model.notes() else {}),
        **model.recorded(),
    }
