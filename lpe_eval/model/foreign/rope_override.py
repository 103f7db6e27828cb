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
    * Configs with other RoPE parameters for other types of layers (Gemma 3, ModernBERT) are changed for the type that
      is named, and refused without one.
    * NTK-aware scaling is another base, so it is given to a config as that.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from lpe_eval.errors import CheckpointError
from lpe_eval.model.foreign.rope_asked import OF_OURS, RopeOverride, rule_of
from lpe_eval.model.foreign.rope_asked import parse_override as parse_override
from lpe_eval.model.rope_scalings import Ntk
from lpe_eval.model.rotary import Frequencies, inverse_frequencies

_OF_A_RULE = OF_OURS | {"rope_type", "type", "rope_theta", "original_max_position_embeddings"}
"""The other fields (which part of a head is rotated, and by which axes) stay when a rule is replaced."""
_LARGEST = 1e300
"""A base beyond it is no number that a model was trained with."""
_RELATIVE = 1e-5
"""Between a frequency computed in float32 through a power and the same in float64."""


class RopeFields(NamedTuple):
    """RoPE as a config describes it, wherever it keeps that."""

    theta: float
    scaling: dict[str, Any]
    """With `rope_type`; "default" is no scaling."""
    max_positions: int


def rope_fields(config: Mapping[str, Any], layer_type: str | None = None) -> RopeFields:
    """Finds base, rule and length in a config of transformers 4 or 5.

    Args:
        config: of a text decoder.
        layer_type: which of its RoPEs, where it has one for each type of layer.

    Raises:
        CheckpointError: the config has no RoPE, or `layer_type` does not say which one, or names none.
    """
    merged = config.get("rope_parameters")
    kind = config.get("model_type", "this model")
    types = layer_types(config)
    if layer_type is not None and layer_type not in types:
        known = f"RoPE parameters for {' and '.join(types)}" if types else "one RoPE for all of its layers"
        raise CheckpointError(f"{kind} has {known}, so --rope-scaling {layer_type}:... changes nothing there")
    if types and layer_type is None:
        raise CheckpointError(
            f"{kind} has other RoPE parameters for other layers; say for which: --rope-scaling {types[0]}:yarn:4 "
            f"(it has {' and '.join(types)})"
        )
    if isinstance(merged, Mapping):
        scaling = dict(merged if layer_type is None else merged[layer_type])
        theta = scaling.get("rope_theta")
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


def layer_types(config: Mapping[str, Any]) -> list[str]:
    """The types of layers that have a RoPE of their own; empty where all have one."""
    merged = config.get("rope_parameters")
    inside = merged.items() if isinstance(merged, Mapping) else ()
    return sorted(str(name) for name, value in inside if isinstance(value, Mapping))


def overridden(config: Mapping[str, Any], override: RopeOverride) -> dict[str, Any]:
    """A copy of the config with the fields replaced, ready to construct from."""
    old = rope_fields(config, override.layer_type)
    theta = override.theta if override.theta is not None else old.theta
    scaling = old.scaling
    if override.scaling is not None:
        scaling = dict(override.scaling)
        if scaling["rope_type"] in ("yarn", "llama3", "longrope"):
            scaling.setdefault("original_max_position_embeddings", original_length(config, override.layer_type))
        if scaling["rope_type"] == "ntk":
            width = _turned_width(config, old.scaling)
            theta, scaling = theta * scaling["factor"] ** (width / (width - 2)), {"rope_type": "default"}
        scaling |= {key: value for key, value in old.scaling.items() if key not in _OF_A_RULE}
    new, merged = dict(config), config.get("rope_parameters")
    if isinstance(merged, Mapping):
        fields = {**scaling, "rope_theta": theta}
        new["rope_parameters"] = fields if override.layer_type is None else {**merged, override.layer_type: fields}
        new.pop("rope_scaling", None)
        new.pop("rope_theta", None)
    else:
        new["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
        new |= {key: theta for key in ("rope_theta", "rotary_emb_base") if key in config}
    return new


def original_length(config: Mapping[str, Any], layer_type: str | None = None) -> int:
    """The length before any scaling.

    Raises:
        CheckpointError: the config does not say.
    """
    fields = rope_fields(config, layer_type)
    found = fields.scaling.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    return found if isinstance(found, int) else fields.max_positions


def verify(
    modules: Sequence[nn.Module],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    override: RopeOverride,
    where: str,
) -> None:
    """Compares the frequencies that a built model uses with ours for its config, and with those before the change.

    Args:
        modules: the rotary ones of a model built from `after`; each is run once, since some frequencies depend on the
            length.
        before: the config as published.
        after: the config with the override.
        override: what was asked for.
        where: what messages call the model.

    Raises:
        CheckpointError: the model shows no frequencies, other ones than asked for, or the ones it had.
    """
    if not modules:
        raise CheckpointError(f"{where}: the frequencies of its RoPE cannot be read back, so --rope-* is refused")
    layer_type = override.layer_type
    length = 2 * max(original_length(after, layer_type), rope_fields(after, layer_type).max_positions)
    asked = rule_of(override.scaling) if override.scaling is not None else None
    changed = False
    for module in modules:
        held = _read(module, length, layer_type)
        dims = 2 * len(held.inverse)
        wanted, old = (_frequencies(each, dims, length, layer_type) for each in (after, before))
        if isinstance(asked, Ntk):
            theta = override.theta if override.theta is not None else rope_fields(before, layer_type).theta
            wanted = asked.frequencies(dims, theta, length, length)
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


def rotary_modules(model: nn.Module, layer_type: str | None = None) -> list[nn.Module]:
    """The modules that hold RoPE's frequencies, a single set of them or those of a type of layers."""
    name = _buffer(layer_type)
    return [module for module in model.modules() if name in dict(module.named_buffers(recurse=False))]


def _buffer(layer_type: str | None) -> str:
    return "inv_freq" if layer_type is None else f"{layer_type}_inv_freq"


def _turned_width(config: Mapping[str, Any], scaling: Mapping[str, Any]) -> int:
    """Channels of a head that are turned, as far as a config says; what is held is compared afterwards.

    Raises:
        CheckpointError: too few for NTK-aware scaling, or the config does not say.
    """
    held = [config.get(name) for name in ("head_dim", "hidden_size", "num_attention_heads")]
    width, whole, heads = (each if isinstance(each, int) and each > 0 else 0 for each in held)
    part = scaling.get("partial_rotary_factor", config.get("partial_rotary_factor", config.get("rotary_pct", 1.0)))
    found = int((width or whole // max(1, heads)) * part) if isinstance(part, int | float) else 0
    if found <= 2:
        raise CheckpointError(
            f"{config.get('model_type', 'this model')}: its config does not say how many channels of a head it turns, "
            "which ntk needs; give --rope-theta instead"
        )
    return found


def _read(module: nn.Module, length: int, layer_type: str | None) -> Frequencies:
    name = _buffer(layer_type)
    device = module.get_buffer(name).device
    positions, states = torch.arange(length, device=device)[None], torch.zeros(1, 1, device=device)
    with torch.no_grad():
        try:
            module(states, positions, **({} if layer_type is None else {"layer_type": layer_type}))
        except (IndexError, RuntimeError, ValueError):
            # Those of multimodal models take a position in time, height and width.
            module(states, positions.expand(3, 1, -1))
    # Not every device knows float64.
    inverse = module.get_buffer(name).cpu().double()
    return Frequencies(inverse, float(getattr(module, name.replace("inv_freq", "attention_scaling"), 1.0)))


def _frequencies(config: Mapping[str, Any], dims: int, length: int, layer_type: str | None) -> Frequencies:
    fields = rope_fields(config, layer_type)
    scaling = dict(fields.scaling)
    if scaling["rope_type"] == "longrope" and not scaling.get("factor"):
        scaling["factor"] = fields.max_positions / original_length(config, layer_type)
    rule = rule_of(scaling)
    if rule is None:
        return Frequencies(inverse_frequencies(dims, fields.theta))
    original = fields.max_positions if fields.scaling["rope_type"] == "dynamic" else original_length(config, layer_type)
    return rule.frequencies(dims, fields.theta, original, length)


def _same(a: Frequencies, b: Frequencies) -> bool:
    close = torch.allclose(a.inverse, b.inverse, rtol=_RELATIVE, atol=0)
    return close and abs(a.attention_factor - b.attention_factor) <= _RELATIVE * b.attention_factor
