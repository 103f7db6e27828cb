"""How an encoding is written in the ids of tests, so that `pytest -k` finds it by its registry name."""

from collections.abc import Sequence
from typing import Any

from lpe_eval.model.encoding import EncodingWrapper
from lpe_eval.registry import ENCODINGS


def written(spec: dict[str, Any]) -> str:
    inner = f"({written(spec['base'])})" if "base" in spec else ""
    # What is switched on is known by its key.
    options = [key if value is True else f"{value}" for key, value in spec.items() if key not in ("name", "base")]
    return "-".join([spec["name"] + inner, *options])


def bases_of(name: str, bases: Sequence[str]) -> list[str]:
    """Of some encodings, those that a wrapper is tried around: what it goes around, where that is a kind of its own."""
    member = ENCODINGS.load(name)
    assert issubclass(member, EncodingWrapper)
    if member.goes_around == EncodingWrapper.goes_around:
        return list(bases)
    return [member.goes_around]


NEOX = {
    "rotary": ["rope"],
    "rpe": ["t5"],
    "kerple": ["kerple_log"],
    "snope_norm_original_scaling__": ["mep"],
    "snope_kerplelog": ["mep"],
    "xl_bias": ["transformer_xl"],
    "alibi_c": ["dape", "alibi"],
    "kerple_c": ["dape", "kerple_log"],
    "fire_c": ["dape", "fire"],
    "nope_c": ["dape", "none"],
    "rope_dapev1": ["dape", "rope"],
    "alibi_dapev2": ["dape_v2", "alibi"],
    "kerple_dapev2": ["dape_v2", "kerple_log"],
    "fire_dapev2": ["dape_v2", "fire"],
    "nope_c_ffn": ["dape_v2", "none"],
    "rope_dapev2": ["dape_v2", "rope"],
}
"""Registry names of the encodings behind GPT-NeoX's `pos_emb`, where that is not a registry name itself."""


def neox_id(pos_emb: str) -> str:
    """GPT-NeoX's name of an encoding, followed by ours."""
    return "-".join([pos_emb, *NEOX.get(pos_emb, [])])
