"""From the name of an encoding to one module for each layer."""

import inspect

import torch
from pydantic import ValidationError

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.model.encoding import Encoding, EncodingOptions, EncodingWrapper
from lpe_eval.model.scores import Geometry
from lpe_eval.registry import ENCODINGS
from lpe_eval.spec.encoding_spec import EncodingSpec


def build_encodings(
    spec: EncodingSpec, geometry: Geometry, layers: int, per_layer: bool | None = None
) -> list[Encoding]:
    """One encoding for each layer, possibly the same object repeated; of a schedule, each in the layers that name it.

    Whether layers share it is the option `per_layer` of the spec, else what the enclosing wrapper
    decided (`per_layer`), else what the method's released code does. An encoding that adds to the
    embeddings is always shared, because it acts once.

    Raises:
        UnknownName: no encoding has that name, or it has no such option.
        SpecError: an option has a wrong value, a wrapper lacks what it wraps, or a schedule mixes an encoding that
            adds to the embeddings with others.
    """
    if spec.layers:
        return _scheduled(spec, geometry, layers, per_layer)
    member = ENCODINGS.load(spec.name)
    options = _options(member, spec)
    wanted = next(choice for choice in (options.per_layer, per_layer, member.per_layer) if choice is not None)
    if not issubclass(member, EncodingWrapper):
        if spec.base is not None:
            raise SpecError(f"the encoding {spec.name!r} wraps nothing, so it cannot take {str(spec.base)!r}")
        first = member(geometry, options)
        if first.embeds or not wanted:
            return [first] * layers
        return [first, *(member(geometry, options) for _ in range(layers - 1))]
    if spec.base is None:
        example = f"{spec.name}({member.goes_around})"
        raise SpecError(f"the encoding {spec.name!r} wraps another one; write {example}, or give it a `base`")
    asked = options.per_layer if options.per_layer is not None else per_layer
    inner = build_encodings(spec.base, geometry, layers, per_layer=wanted if member.inner_follows else asked)
    if wanted:
        return [member(geometry, options, each) for each in inner]
    return [member(geometry, options, inner[0])] * layers


def _scheduled(spec: EncodingSpec, geometry: Geometry, layers: int, per_layer: bool | None) -> list[Encoding]:
    wanted = [each.encoding for each in spec.by_layer(layers)]
    built = {
        each: iter(build_encodings(each, geometry, wanted.count(each), per_layer)) for each in dict.fromkeys(wanted)
    }
    found = [next(built[each]) for each in wanted]
    absolute = next((each for each in found if each.embeds), None)
    if absolute is not None and len(built) > 1:
        raise SpecError(
            f"the schedule {spec} cannot mix {absolute.label} with others, because it acts once, on the embeddings; "
            "give every layer the same"
        )
    return found


def initialise(encodings: list[Encoding], generator: torch.Generator) -> None:
    """Draws the initial parameters of every distinct module once, in layer order."""
    seen: set[int] = set()
    for encoding in encodings:
        for module in encoding.modules():
            if isinstance(module, Encoding) and id(module) not in seen:
                seen.add(id(module))
                module.initialise(generator)


def _options(member: type[Encoding], spec: EncodingSpec) -> EncodingOptions:
    if not (inspect.isclass(member) and issubclass(member, Encoding)):
        raise SpecError(f"the encoding {spec.name!r} is not a subclass of lpe_eval.model.encoding.Encoding")
    unknown = [key for key in spec.options if key not in member.Options.model_fields]
    if unknown:
        raise UnknownName(f"option of {spec.name}", unknown[0], member.Options.model_fields)
    try:
        return member.Options(**spec.options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SpecError(
            f"encoding {spec.name!r}, option {where!r}: {first['msg']} (got {first.get('input')!r})"
        ) from error
