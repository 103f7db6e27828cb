"""Encodings that wrappers are tried on."""

from typing import Any

BASES: list[Any] = [
    "none",
    "alibi",
    {"name": "alibi", "form": "key"},
    "rope",
    "kerple_log",
    {"name": "kerple_power", "form": "bias_and_weight"},
    "t5",
    "sandwich",
    "mep",
    {"name": "fire", "threshold": 4.0},
    "cope",
    "transformer_xl",
]
