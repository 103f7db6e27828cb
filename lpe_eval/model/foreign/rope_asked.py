"""What `--rope-scaling` and `--rope-theta` ask for: `yarn:4`, `full_attention:yarn:4`, JSON, and a base.

Choices:
    * Rules are called as in configs of `transformers`; `ntk` is NTK-aware scaling, which is another base.
    * Where a model has a RoPE for each type of layer, the type stands before the rule, and the base is for that type
      too; `full_attention:default` is no rule, so that a base alone can be changed.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from lpe_eval.errors import CheckpointError, SpecError
from lpe_eval.model.rope_scalings import AnyScaling
from lpe_eval.plain import Unreadable, json_of

_TYPES: Mapping[str, str | None] = {
    "linear": "linear",
    "dynamic": "dynamic_ntk",
    "yarn": "yarn",
    "llama3": "llama3",
    "longrope": "longrope",
    "ntk": "ntk",
    "default": None,
}
"""What transformers calls a rule, and what `rope_scalings` calls it."""

OF_OURS = {
    "long_factor",
    "short_factor",
    "factor",
    "beta_fast",
    "beta_slow",
    "truncate",
    "attention_factor",
    "mscale",
    "mscale_all_dim",
    "low_freq_factor",
    "high_freq_factor",
}
"""The numbers of a rule, as both call them."""
_OF_A_TYPE = re.compile(r"([a-z]\w*_attention):(.*)", re.DOTALL)
"""What comes before a rule that is for one type of layer."""


class RopeOverride(NamedTuple):
    """What the user wants changed."""

    scaling: dict[str, Any] | None
    """With `rope_type`, as in a config; None leaves the rule alone."""
    theta: float | None
    layer_type: str | None = None
    """The type of layers it is for; None where a model has one RoPE."""


def parse_override(scaling: str | None, theta: float | None) -> RopeOverride | None:
    """Reads `yarn:4`, `full_attention:yarn:4` or JSON, and a base; None where both are absent.

    Raises:
        SpecError: the text names no rule, or its numbers do not fit the rule.
    """
    if scaling is None and theta is None:
        return None
    if theta is not None and not 1 < theta < float("inf"):
        raise SpecError(f"--rope-theta must be greater than 1, not {theta}")
    named = None if scaling is None else _OF_A_TYPE.fullmatch(scaling.strip())
    if named is not None:
        return RopeOverride(_parse(named[2].strip()), theta, named[1])
    return RopeOverride(None if scaling is None else _parse(scaling.strip()), theta)


def rule_of(scaling: Mapping[str, Any]) -> AnyScaling | None:
    """The rule that the fields of a config ask for; None for unscaled frequencies.

    Raises:
        CheckpointError: there is no such rule here.
        SpecError: a number does not fit.
    """
    if not isinstance(scaling["rope_type"], str) or scaling["rope_type"] not in _TYPES:
        raise CheckpointError(f"RoPE of the type {scaling['rope_type']!r} is not known here, so it cannot be verified")
    name = _TYPES[scaling["rope_type"]]
    if name is None:
        return None
    fields = {key: value for key, value in scaling.items() if key in OF_OURS and value is not None}
    if name == "ntk":
        fields["alpha"] = fields.pop("factor", None)
    try:
        return TypeAdapter(AnyScaling).validate_python({"type": name, **fields})
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(
            f"--rope-scaling {scaling['rope_type']}, {'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
        ) from error


def our_scaling(scaling: Mapping[str, Any]) -> dict[str, Any] | None:
    """A rule as the option `scaling` of our own `rope` takes it; None for unscaled frequencies."""
    rule = rule_of(scaling)
    if rule is None:
        return None
    original = scaling.get("original_max_position_embeddings")
    told = rule.model_dump(mode="json", exclude_unset=True, exclude={"original_length"})
    return {**told, **({} if original is None else {"original_length": original})}


def _parse(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        try:
            given = json_of(text)
        except Unreadable as error:
            raise SpecError(f"--rope-scaling: {text[:200]} {error}") from error
        given["rope_type"] = given.get("rope_type", given.pop("type", None))
    else:
        name, colon, factor = text.partition(":")
        given: dict[str, Any] = {"rope_type": name}
        if colon:
            try:
                given["factor"] = float(factor)
            except ValueError:
                raise SpecError(f"--rope-scaling: {factor!r} in {text} is no number; write yarn:4") from None
    if given["rope_type"] == "llama3":
        given = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, **given}
    if not isinstance(given["rope_type"], str) or given["rope_type"] not in _TYPES:
        raise SpecError(
            f"--rope-scaling: there is no rule {given['rope_type']!r}; write yarn:4, linear:2, dynamic:2, ntk:4, "
            "llama3:8, default, or JSON as in a config"
        )
    unknown = given.keys() - OF_OURS - {"rope_type", "original_max_position_embeddings"}
    if unknown:
        raise SpecError(f"--rope-scaling: {', '.join(sorted(unknown))} is no option of {given['rope_type']}")
    rule_of(given)
    return given
