"""What a run says of itself and its models: what names it, what its rows repeat, and what its provenance holds."""

import hashlib
from collections.abc import Sequence
from typing import Any

import lpe_eval
from lpe_eval.addresses import place_in_bucket, typed_address
from lpe_eval.data.corpus import Corpus
from lpe_eval.fetched import as_addressed
from lpe_eval.measure.optimum import Scored
from lpe_eval.measure.provenance import publishable_name
from lpe_eval.measure.remarks import selection_facts
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.transformer_model import TransformerModel
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.table import SCHEMA, Facts


def corpus_facts(corpus: Corpus) -> dict[str, Any]:
    """Which text, as its source describes it; a path as typed, since a resolved one tells whose machine it is."""
    described, path = corpus.describe(), corpus.spec.path
    return {**described, **({"path": path} if "path" in described and path is not None else {})}


def identity_of(spec: PerplexitySpec, planned: Sequence[Scored], key_tokens: str | None = None) -> dict[str, Any]:
    """What makes two runs the same: not the batch size and where parts of models lie, which change no value.

    Args:
        spec: what is asked.
        planned: its models.
        key_tokens: fingerprint of stored key tokens, where they are given.
    """
    asked = spec.model_dump(mode="json", exclude={"batch_size", "models", "task_fingerprint", "device_map"})
    if (address := typed_address(spec.corpus.path or "")) is not None:
        # The same files in the current directory are the same run.
        asked["corpus"] = {**asked["corpus"], "path": place_in_bucket(address)}
    return {
        "spec": asked,
        "models": [[each.peek.name, each.peek.digest, each.selection.fingerprint] for each in planned],
        "schema": SCHEMA,
        "version": lpe_eval.__version__,
        **({} if key_tokens is None else {"key_tokens": key_tokens}),
    }


def row_facts(spec: PerplexitySpec, corpus: Corpus) -> Facts:
    """What all rows repeat, before a model is open; device and dtype of the spec are no "auto" any more."""
    return Facts(
        encoding="",
        train_length=None,
        task=spec.task,
        task_version=spec.task_version,
        corpus=publishable_name(corpus.label),
        split=corpus.split,
        seed=spec.seed,
        dtype=spec.dtype,
        device=spec.device,
    )


def planned_facts(planned: Scored) -> dict[str, Any]:
    """Known before any weight is read: digest, tokenizer, and the documents with their hashes."""
    selection = planned.selection
    if planned.why_not:
        return {"reference": planned.reference, "digest": planned.peek.digest, "why_not": planned.why_not}
    return {
        "reference": planned.reference,
        "digest": planned.peek.digest,
        "tokenizer": as_addressed(planned.peek.tokenizer),
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
