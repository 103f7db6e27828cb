"""Small encoders of google-deepmind/randomized_positional_encodings at e8c6474, run by their own code.

`golden/che_encoder/` holds them (JAX on the CPU): 2 layers, width 16, 2 heads, random weights, norms and biases
included.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "golden" / "che_encoder"
GOLDEN_ENCODINGS: dict[str, Any] = {
    "NONE": "none",
    "SIN_COS": "sinusoidal",
    "ALIBI": {"name": "alibi", "two_sided": "che"},
    "ROTARY": {"name": "rope", "layout": "interleaved"},
    "RELATIVE": {"name": "transformer_xl", "distance": "future"},
    "LEARNT": {"name": "learned", "length": 10},
}


@cache
def golden() -> dict[str, Any]:
    return json.loads((FOLDER / "forward.json").read_text())


@cache
def positional() -> dict[str, Any]:
    return json.loads((FOLDER / "positional.json").read_text())
