"""Where the parts of a model of `transformers` lie: all on one device, or on cards, in main memory and on disk.

`accelerate` moves what a part needs to where it is computed, so values are those of one device.

Choices:
    * On a device that is no processor, weights go from their files straight onto it, so that no copy of the model lies
      in main memory. Without `accelerate` they are read into main memory first.
    * A map is held against the parts of the model before a weight is read. Parts that nothing may lie between, as a
      layer's around its residual stream, are computed on one device.
    * What lies on disk is read from the checkpoint's own files, which must not change meanwhile. What the library has
      to convert first is written to a folder that goes with the model.
"""

import copy
import logging
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import mkdtemp
from typing import Any

import torch
from torch import nn

from lpe_eval.errors import CheckpointError, MissingExtra, SpecError, UnknownName
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.foreign.transformers_library import import_transformers, quiet
from lpe_eval.model.needed_memory import free_memory
from lpe_eval.model.tensor_parallel import size
from lpe_eval.spec.device_map import STORED, cards_of

_TAKEN = 0.9
"""Share of the free memory that weights may take; the rest is for what a pass computes."""


def refuse_without_accelerate(options: LoadOptions) -> None:
    """Raises MissingExtra where a map, or ranks that share a model, need what is not installed."""
    if (options.device_map is not None or options.tensor_parallel) and not _has_accelerate():
        flag = "--tensor-parallel" if options.device_map is None else "--device-map"
        raise MissingExtra(flag, "large")


def placing(auto: Any, config: Any, options: LoadOptions, where: str) -> dict[str, Any]:
    """What `from_pretrained` is told of where weights go; nothing where they go to main memory.

    Args:
        auto: the library's class that opens the model.
        config: of the model.
        options: device, and map where there is one.
        where: what messages call it.

    Raises:
        SpecError: the map does not fit the model.
    """
    if options.tensor_parallel:
        return {"distributed_config": _distributed(size())}
    if options.device_map is None:
        # Left alone, the library puts quantised weights on the first card whatever device is meant.
        quantised = getattr(config, "quantization_config", None) is not None
        straight = _has_accelerate() and (quantised or options.device.type != "cpu")
        return {"device_map": {"": options.device}} if straight else {}
    folder = {"offload_folder": mkdtemp(prefix="lpe-eval-offload-")}
    if isinstance(options.device_map, Mapping):
        return {"device_map": resolved(options.device_map, _skeleton(auto, config, options), where), **folder}
    return {"device_map": options.device_map, "max_memory": _budget(options.device), **folder}


def refuse_other_parts(auto: Any, config: Any, options: LoadOptions, where: str) -> None:
    """Raises SpecError where a map does not fit the model, before anything is read."""
    if isinstance(options.device_map, Mapping):
        resolved(options.device_map, _skeleton(auto, config, options), where)


def resolved(asked: Mapping[str, str], model: nn.Module, where: str) -> dict[str, str]:
    """A map whose places are those of whole subtrees, so that no name lies below another one.

    Args:
        asked: places by names of parts; "" is all that no other name holds.
        model: with the parts, on whatever device.
        where: what messages call it.

    Raises:
        UnknownName: there is no such part.
        SpecError: a part has no place, or parts that belong together are computed on several devices.
    """
    parts = dict(model.named_modules())
    for name in asked:
        if name not in parts:
            raise UnknownName(f"part of {where} for --device-map", name, filter(None, parts))
    found: dict[str, str] = {}

    def place(name: str, module: nn.Module, at: str | None) -> None:
        at = asked.get(name, at)
        inside = f"{name}." if name else ""
        if not any(other != name and other.startswith(inside) for other in asked):
            if at is not None:
                found[name] = at
            elif any(True for _ in _tensors(module)):
                raise SpecError(f'--device-map gives {name} of {where} no place; name it, or "" for all that is left')
            return
        if any(True for _ in _tensors(module, recurse=False)):
            raise SpecError(f"--device-map divides {name or 'the root'} of {where}, which has numbers of its own")
        for child, each in module.named_children():
            place(f"{inside}{child}", each, at)

    place("", model, None)
    _refuse_torn(found, model, where)
    first = next(iter(cards_of(found)), "cpu")
    whole = set(getattr(model, "_no_split_modules", None) or ())
    for name, module in parts.items():
        if type(module).__name__ not in whole:
            continue
        computed = {first if at in STORED else at for part, at in found.items() if part.startswith(f"{name}.")}
        if len(computed) > 1:
            raise SpecError(
                f"--device-map puts parts of {name} of {where} on {' and '.join(sorted(computed))}; a layer is "
                "computed on one device"
            )
    return found


def _refuse_torn(found: Mapping[str, str], model: nn.Module, where: str) -> None:
    """Raises SpecError where two parts that share a weight have two places."""
    owners: dict[int, str] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        part = name.rpartition(".")[0]
        other = owners.setdefault(id(weight), part)
        places = [next(at for above, at in found.items() if _holds(above, each)) for each in (other, part)]
        if places[0] != places[1]:
            raise SpecError(
                f"--device-map puts {other} of {where} on {places[0]} and {part} on {places[1]}, and they share a "
                "weight; give both one place"
            )


def _holds(above: str, part: str) -> bool:
    return above in ("", part) or part.startswith(f"{above}.")


def refuse_indivisible(config: Any, ranks: int, where: str) -> None:
    """Raises CheckpointError where the library does not say how to divide a model, or its heads cannot be.

    Args:
        config: of the model.
        ranks: that would hold it together.
        where: what messages call it.
    """
    _distributed(ranks)
    if ranks == 1:
        return
    text = config.get_text_config()
    if not getattr(text, "base_model_tp_plan", None):
        raise CheckpointError(
            f"{where}: transformers has no plan that divides models of the type {text.model_type} among ranks; "
            "lay it over cards with --device-map auto, in one process"
        )
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(text, name, None)
        if isinstance(heads, int) and heads % ranks:
            raise CheckpointError(
                f"{where} has {heads} {name.removeprefix('num_').replace('_', ' ')}, which {ranks} ranks cannot share "
                "evenly; start another number of ranks"
            )


def _distributed(ranks: int) -> Any:
    transformers = import_transformers()
    try:
        from transformers.distributed.configuration_utils import DistributedConfig

        return DistributedConfig(tp_size=ranks)
    except (ImportError, TypeError) as error:
        raise CheckpointError(
            f"transformers {transformers.__version__} does not divide a model as --tensor-parallel asks; install 5.23 "
            "or newer"
        ) from error


def settled(model: Any, arguments: Mapping[str, Any]) -> None:
    """Lets the folder of converted weights go when the model does.

    Args:
        model: as it was loaded.
        arguments: what `placing` gave.
    """
    if folder := arguments.get("offload_folder"):
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)


@contextmanager
def folder_let_go(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Within it, an error takes the folder of converted weights away."""
    try:
        yield
    except BaseException:
        shutil.rmtree(arguments.get("offload_folder", ""), ignore_errors=True)
        raise


def places_of(model: Any) -> dict[str, str]:
    """Where each part lies, for a provenance; all of it on one device has the name `all`."""
    held = getattr(model, "hf_device_map", None) or {"": next(model.parameters()).device}
    return {name or "all": f"cuda:{at}" if isinstance(at, int) else str(at) for name, at in held.items()}


def lies_on_disk(model: Any) -> bool:
    """Whether some of it is read from disk in each pass."""
    return "disk" in places_of(model).values()


def device_of_inputs(model: Any, device: torch.device) -> torch.device:
    """Where the embedding of a model that lies on several devices is computed.

    Args:
        model: as `accelerate` has laid it out.
        device: that of a model all of which lies on one.
    """
    try:
        embedding = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return device
    hook = getattr(embedding, "_hf_hook", None)
    at = getattr(hook, "execution_device", None)
    if at is not None:
        return torch.device(at)
    weight = getattr(embedding, "weight", None)
    return device if weight is None or weight.device.type == "meta" else weight.device


@contextmanager
def accelerate_quiet() -> Iterator[None]:
    """Within it, `accelerate` does not tell of weights that lie elsewhere, which is what was asked for."""
    logger = logging.getLogger("accelerate.big_modeling")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _has_accelerate() -> bool:
    return bool(import_transformers().utils.is_accelerate_available())


def _skeleton(auto: Any, config: Any, options: LoadOptions) -> nn.Module:
    """The parts of a model, without memory for its weights."""
    make = getattr(auto, "from_config", None) or auto._from_config
    trusted = {"trust_remote_code": options.trust_remote_code} if make.__name__ == "from_config" else {}
    with quiet(import_transformers()), torch.device("meta"):
        return make(copy.deepcopy(config), **trusted)


def _budget(device: torch.device) -> dict[int | str, int] | None:
    """Memory that weights may take; None for all cards and the main memory, as `accelerate` counts them.

    A device with a number is one card: of a rank, or asked for. The ranks of a machine share its main memory.
    """
    free = free_memory()
    if free is None or not torch.cuda.is_available() or (device.type != "cpu" and device.index is None):
        return None
    main = int(_TAKEN * free / max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1)))
    if device.type != "cuda" or device.index is None:
        return {"cpu": main}
    return {device.index: int(_TAKEN * torch.cuda.mem_get_info(device)[0]), "cpu": main}


def _tensors(module: nn.Module, recurse: bool = True) -> Iterator[torch.Tensor]:
    yield from module.parameters(recurse=recurse)
    yield from module.buffers(recurse=recurse)
