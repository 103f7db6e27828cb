"""A change of RoPE in a reference transformer: another rule or base for its frequencies, other distances.

What can be asked of a Hugging Face model is asked in the same words here. The change is one of the encoding's options,
so what runs is what training with them would run, and `convert` keeps it.

Choices:
    * RoPE may be wrapped (`dape(rope)`); what is changed is the innermost encoding. Other distances go directly around
      it.
    * Of a schedule every layer with RoPE is changed, and p-RoPE's distances alone. Windows and chunks stay as they are.
    * A rule replaces the one that the checkpoint has.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lpe_eval.errors import CheckpointError, SpecError
from lpe_eval.model.build import build_encodings
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.encoding import Geometry
from lpe_eval.model.encodings.rope import Rope
from lpe_eval.model.foreign.rope_asked import RopeOverride, our_scaling, parse_override
from lpe_eval.model.remap_options import RemapOptions, parse_remap
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.model_spec import CheckpointSpec, ModelSpec

SETTINGS = ("rope_scaling", "rope_theta", "remap")
"""What an address may end in: `?rope_scaling=yarn:4&rope_theta=500000&remap=rerope`."""

_ROPES = ("rope", "p_rope")


def with_setting(options: LoadOptions, key: str, value: Any, where: str) -> LoadOptions:
    """The options with one of `SETTINGS` as an address gives it.

    Raises:
        SpecError: a base is no number.
    """
    if key != "rope_theta":
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        return options._replace(**{key: text})
    try:
        return options._replace(rope_theta=float(value))
    except (TypeError, ValueError):
        raise SpecError(f"{where}: rope_theta must be a number, not {value!r}") from None


def changed(spec: CheckpointSpec, options: LoadOptions, where: str) -> CheckpointSpec:
    """A checkpoint with the change of RoPE that the options ask for, in its encoding and in its name.

    Args:
        spec: what it says of itself.
        options: how it is opened.
        where: what messages call it.

    Raises:
        SpecError: what is asked for cannot be, or it has no RoPE.
        CheckpointError: nothing changes.
    """
    override, remap = parse_override(options.rope_scaling, options.rope_theta), None
    if options.remap is not None:
        remap = parse_remap(options.remap)
    if override is None and remap is None:
        return spec
    if override is not None and override.layer_type is not None:
        raise SpecError(f"{where} has one RoPE for all layers; leave {override.layer_type}: out of --rope-scaling")
    encoding = spec.model.encoding
    roped = [each for each in dict.fromkeys(map(_innermost, encoding.methods())) if each.name in _ROPES]
    plain = [each for each in roped if each.name == "rope"]
    if not (roped if override is None else plain):
        flags = [f"--{name.replace('_', '-')}" for name in SETTINGS if getattr(options, name) is not None]
        raise SpecError(
            f"{' and '.join(flags)} has no effect on {where}, with the encoding {encoding} and no RoPE; "
            "measure it without"
        )
    new = {each: _overridden(each, override) if each in plain else each for each in roped}
    frequencies = [(_frequencies(each, spec.model), _frequencies(new[each], spec.model)) for each in plain]
    if override is not None and all(before == after for before, after in frequencies):
        raise CheckpointError(f"{where}: --rope-scaling and --rope-theta leave its frequencies as they were; refused")
    if len(set(new.values())) < len(new):
        raise SpecError(
            f"{where}: its layers have different RoPEs, which --rope-scaling and --rope-theta would make one; "
            "leave them out"
        )
    if remap is not None:
        asked = remap.model_dump(mode="json", exclude_none=True, include=set(RemapOptions.model_fields))
        new = {each: EncodingSpec(name="remap", options=asked, base=other) for each, other in new.items()}
        for each in new.values():
            # What does not fit is told now, and not when weights have been read.
            build_encodings(each, _geometry(spec.model), 1)
    model = spec.model.model_copy(update={"encoding": _with_innermost(encoding, new)})
    listed = [options.rope_scaling] if options.rope_scaling is not None else []
    listed += [f"theta={options.rope_theta:g}"] if options.rope_theta is not None else []
    listed += [remap.spelled] if remap is not None else []
    return spec.model_copy(update={"model": model, "name": " ".join([spec.name, *listed])})


def digest_of_changed(digest: str, options: LoadOptions) -> str:
    """The digest of a checkpoint, which is its own where the options change nothing."""
    asked = {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
    return hashlib.sha256(f"{digest}\0{json.dumps(asked)}".encode()).hexdigest() if asked else digest


def taken(options: LoadOptions, settings: Mapping[str, Any], where: str) -> LoadOptions:
    """The options with what an address's settings say of RoPE; other settings are passed over."""
    for key, value in settings.items():
        if key in SETTINGS:
            options = with_setting(options, key, value, where)
    return options


def _innermost(encoding: EncodingSpec) -> EncodingSpec:
    while encoding.base is not None:
        encoding = encoding.base
    return encoding


def _with_innermost(encoding: EncodingSpec, new: Mapping[EncodingSpec, EncodingSpec]) -> EncodingSpec:
    """The encoding, or the schedule, with others in place of what is innermost."""
    if encoding.layers:
        layers = [each.model_copy(update={"encoding": _with_innermost(each.encoding, new)}) for each in encoding.layers]
        return encoding.model_copy(update={"layers": tuple(layers)})
    if encoding.base is None:
        return new.get(encoding, encoding)
    return encoding.model_copy(update={"base": _with_innermost(encoding.base, new)})


def _overridden(rope: EncodingSpec, override: RopeOverride | None) -> EncodingSpec:
    if override is None:
        return rope
    new = {} if override.theta is None else {"theta": override.theta}
    new |= {} if override.scaling is None else {"scaling": our_scaling(override.scaling)}
    return EncodingSpec(name="rope", options={**rope.options, **new})


def _frequencies(rope: EncodingSpec, model: ModelSpec) -> tuple[list[float], float]:
    """Those of a text twice as long as in training, where rules that follow the length have changed them."""
    built = build_encodings(rope, _geometry(model), 1)[0]
    assert isinstance(built, Rope)
    found = built.frequencies(2 * model.train_length)
    return found.inverse.tolist(), found.attention_factor


def _geometry(model: ModelSpec) -> Geometry:
    return Geometry(model.heads, model.width // model.heads, model.width, model.train_length, model.causal)
