"""`--rope-scaling` and `--rope-theta`: changed before a model is built, and read back from it afterwards.

Setting attributes of a model that exists changes nothing, and the place where a config keeps these
numbers has moved: transformers 4 has `rope_scaling` and `rope_theta`, transformers 5 has one mapping
`rope_parameters`. So the fields are replaced in a copy of the config, and then the frequencies the
model holds are compared with those of `lpe_eval.model.rope_scalings`.

Choices:
    * A rule replaces the one of the config; they do not add up. The base stays, and so does which part of each
      head is rotated by what.
    * The original length is the config's own (`original_max_position_embeddings`), else its
      `max_position_embeddings`. Dynamic NTK always takes the latter, as transformers does.
    * Configs with other RoPE parameters for other layers (Gemma 3) are refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from lpe_eval.errors import CheckpointError, SpecError
from lpe_eval.model.rope_scalings import AnyScaling
from lpe_eval.model.rotary import Frequencies, inverse_frequencies
from lpe_eval.plain import Unreadable, json_of

_TYPES = {
    "linear": "linear",
    "dynamic": "dynamic_ntk",
    "yarn": "yarn",
    "llama3": "llama3",
    "longrope": "longrope",
    "default": None,
}
"""What transformers calls a rule, and what `rotary` calls it."""

_OURS = {
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
_OF_A_RULE = _OURS | {"rope_type", "type", "rope_theta", "original_max_position_embeddings"}
"""The other fields (which part of a head is rotated, and by which axes) stay when a rule is replaced."""
_LARGEST = 1e300
"""A base beyond it is no number that a model was trained with."""
_RELATIVE = 1e-5
"""Between a frequency computed in float32 through a power and the same in float64."""


class RopeOverride(NamedTuple):
    """What the user wants changed."""

    scaling: dict[str, Any] | None
    """With `rope_type`, as in a config; None leaves the rule alone."""
    theta: float | None


class RopeFields(NamedTuple):
    """RoPE as a config describes it, wherever it keeps that."""

    theta: float
    scaling: dict[str, Any]
    """With `rope_type`; "default" is no scaling."""
    max_positions: int


def parse_override(scaling: str | None, theta: float | None) -> RopeOverride | None:
    """Reads `yarn:4` or JSON, and a base; None where both are absent.

    Raises:
        SpecError: the text names no rule, or its numbers do not fit the rule.
    """
    if scaling is None and theta is None:
        return None
    if theta is not None and not 1 < theta < float("inf"):
        raise SpecError(f"--rope-theta must be greater than 1, not {theta}")
    return RopeOverride(None if scaling is None else _parse(scaling.strip()), theta)


def rope_fields(config: Mapping[str, Any]) -> RopeFields:
    """Finds base, rule and length in a config of transformers 4 or 5.

    Raises:
        CheckpointError: the config has no RoPE, or one for each kind of layer.
    """
    merged = config.get("rope_parameters")
    kind = config.get("model_type", "this model")
    if isinstance(merged, Mapping):
        if any(isinstance(value, Mapping) for value in merged.values()):
            raise CheckpointError(f"{kind} has other RoPE parameters for other layers; --rope-* cannot change them")
        scaling, theta = dict(merged), merged.get("rope_theta")
    else:
        held = config.get("rope_scaling")
        scaling = dict(held) if isinstance(held, Mapping) else {}
        theta = config.get("rope_theta", config.get("rotary_emb_base"))
    length = config.get("max_position_embeddings")
    if (
        not isinstance(theta, int | float)
        or abs(theta) > _LARGEST
        or not isinstance(length, int)
        or config.get("alibi")
    ):
        raise CheckpointError(f"{kind} has no RoPE that its config describes; --rope-scaling and --rope-theta need one")
    scaling["rope_type"] = scaling.get("rope_type", scaling.pop("type", "default"))
    return RopeFields(float(theta), scaling, length)


def overridden(config: Mapping[str, Any], override: RopeOverride) -> dict[str, Any]:
    """A copy of the config with the fields replaced, ready to construct from."""
    old = rope_fields(config)
    theta = override.theta if override.theta is not None else old.theta
    scaling = old.scaling
    if override.scaling is not None:
        scaling = dict(override.scaling)
        if scaling["rope_type"] in ("yarn", "llama3", "longrope"):
            scaling.setdefault("original_max_position_embeddings", original_length(config))
        scaling |= {key: value for key, value in old.scaling.items() if key not in _OF_A_RULE}
    new = dict(config)
    if isinstance(config.get("rope_parameters"), Mapping):
        new["rope_parameters"] = {**scaling, "rope_theta": theta}
        new.pop("rope_scaling", None)
        new.pop("rope_theta", None)
    else:
        new["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
        new |= {key: theta for key in ("rope_theta", "rotary_emb_base") if key in config}
    return new


def original_length(config: Mapping[str, Any]) -> int:
    """The length before any scaling.

    Raises:
        CheckpointError: the config does not say.
    """
    fields = rope_fields(config)
    found = fields.scaling.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    return found if isinstance(found, int) else fields.max_positions


def verify(modules: Sequence[nn.Module], before: Mapping[str, Any], after: Mapping[str, Any], where: str) -> None:
    """Compares the frequencies that a built model uses with ours for its config, and with those before the change.

    Args:
        modules: the rotary ones of a model built from `after`; each is run once, since some frequencies depend on the
            length.
        before: the config as published.
        after: the config with the override.
        where: what messages call the model.

    Raises:
        CheckpointError: the model shows no frequencies, other ones than asked for, or the ones it had.
    """
    if not modules:
        raise CheckpointError(f"{where}: the frequencies of its RoPE cannot be read back, so --rope-* is refused")
    length = 2 * max(original_length(after), rope_fields(after).max_positions)
    changed = False
    for module in modules:
        held = _read(module, length)
        dims = 2 * len(held.inverse)
        wanted, old = _frequencies(after, dims, length), _frequencies(before, dims, length)
        if not _same(held, wanted):
            worst = int((held.inverse / wanted.inverse).log().abs().argmax())
            raise CheckpointError(
                f"{where}: with the change of RoPE, its frequencies are not those of the rule (number {worst} is "
                f"{held.inverse[worst].item():.6g} and should be {wanted.inverse[worst].item():.6g}, the attention "
                f"factor {held.attention_factor:.6g} and {wanted.attention_factor:.6g}); refused"
            )
        changed |= not _same(held, old)
    if not changed:
        raise CheckpointError(f"{where}: --rope-scaling and --rope-theta leave its frequencies as they were; refused")


def rotary_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that hold a single set of RoPE's frequencies."""
    return [module for module in model.modules() if "inv_freq" in dict(module.named_buffers(recurse=False))]


def _read(module: nn.Module, length: int) -> Frequencies:
    device = module.get_buffer("inv_freq").device
    positions, states = torch.arange(length, device=device)[None], torch.zeros(1, 1, device=device)
    with torch.no_grad():
        try:
            module(states, positions)
        except (IndexError, RuntimeError, ValueError):
            # Those of multimodal models take a position in time, height and width.
            module(states, positions.expand(3, 1, -1))
    # Not every device knows float64.
    inverse = module.get_buffer("inv_freq").cpu().double()
    return Frequencies(inverse, float(getattr(module, "attention_scaling", 1.0)))


def _frequencies(config: Mapping[str, Any], dims: int, length: int) -> Frequencies:
    fields = rope_fields(config)
    scaling = dict(fields.scaling)
    if scaling["rope_type"] == "longrope" and not scaling.get("factor"):
        scaling["factor"] = fields.max_positions / original_length(config)
    rule = _rule(scaling)
    if rule is None:
        return Frequencies(inverse_frequencies(dims, fields.theta))
    original = fields.max_positions if fields.scaling["rope_type"] == "dynamic" else original_length(config)
    return rule.frequencies(dims, fields.theta, original, length)


def _same(a: Frequencies, b: Frequencies) -> bool:
    close = torch.allclose(a.inverse, b.inverse, rtol=_RELATIVE, atol=0)
    return close and abs(a.attention_factor - b.attention_factor) <= _RELATIVE * b.attention_factor


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
            f"--rope-scaling: there is no rule {given['rope_type']!r}; write yarn:4, linear:2, dynamic:2, llama3:8, "
            "default, or JSON as in a config"
        )
    unknown = given.keys() - _OURS - {"rope_type", "original_max_position_embeddings"}
    if unknown:
        raise SpecError(f"--rope-scaling: {', '.join(sorted(unknown))} is no option of {given['rope_type']}")
    _rule(given)
    return given


def _rule(scaling: Mapping[str, Any]) -> AnyScaling | None:
    if not isinstance(scaling["rope_type"], str) or scaling["rope_type"] not in _TYPES:
        raise CheckpointError(f"RoPE of the type {scaling['rope_type']!r} is not known here, so it cannot be verified")
    name = _TYPES[scaling["rope_type"]]
    if name is None:
        return None
    fields = {key: value for key, value in scaling.items() if key in _OURS and value is not None}
    try:
        return TypeAdapter(AnyScaling).validate_python({"type": name, **fields})
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(
            f"--rope-scaling {scaling['rope_type']}, {'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
        ) from error
