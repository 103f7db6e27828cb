"""How many ways of cutting text into tokens the models of some runs have; with several, perplexities do not compare."""

from collections.abc import Mapping, Sequence
from typing import Any


def n_tokenizers(provenances: Sequence[Mapping[str, Any]]) -> int:
    """The number of different ones.

    What decides is the ids of the text, since one vocabulary may come in two formats.
    """
    models = [facts for each in provenances for facts in (each.get("models") or {}).values()]
    found = {facts.get("ids_fingerprint") or facts.get("tokenizer_fingerprint") for facts in models}
    # A model that could not be opened has neither.
    return len(found - {None}) or len(found)
