"""What a machine and an installation can do, in a table and in sentences."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lpe_eval.errors import one_sentence
from lpe_eval.measure.machine import EXTRAS, computing, driver_is_here, folders, installation, memory, processor, tried
from lpe_eval.screen import Table, listing, number

_LITTLE_DISK, _LITTLE_MEMORY = 5 * 2**30, 2 * 2**30
_UNKNOWN = "not to be seen"


class Examined(NamedTuple):
    """Everything that was looked at; what could not be seen is None."""

    installation: Mapping[str, Any]
    processor: Mapping[str, Any]
    computing: Mapping[str, Any]
    memory: Mapping[str, int | None]
    folders: list[dict[str, Any]]
    why_not: str
    """Why PyTorch cannot be used; empty where it can."""


def examined() -> Examined:
    """Looks at this machine; raises nothing, whatever is missing."""
    why_not, seen = "", {}
    try:
        seen = computing()
    except Exception as error:
        # A library that is broken may end in anything when it is imported.
        why_not = one_sentence(error)
    return Examined(
        tried(installation) or {}, tried(processor) or {}, seen, tried(memory) or {}, tried(folders) or [], why_not
    )


def table_of(found: Examined) -> Table:
    """One screen: the facts, and below them what they mean."""
    rows = [(name, value) for name, value in _facts(found) if value]
    return listing("", ("what", "here"), rows)._replace(below=[f"- {sentence}" for sentence in sentences(found)])


def as_json(found: Examined) -> str:
    """The same for programs."""
    return json.dumps({**found._asdict(), "sentences": list(sentences(found))}, indent=2)


def sentences(found: Examined) -> Iterator[str]:
    """What will run fast and what will not, why, and what to do."""
    if found.why_not:
        yield f"nothing can be measured: PyTorch cannot be imported ({found.why_not}); install it anew with pip"
    else:
        yield from _of_devices(found)
        yield from _of_processor(found)
        yield from _of_memory(found)
    yield from _of_extras(found.installation.get("libraries") or {})
    for each in found.folders:
        if not each["writable"]:
            yield f"{each['what']} cannot be written ({each['place']}); give another place, for results with --out"
        elif each["free"] is not None and each["free"] < _LITTLE_DISK:
            free = _amount(each["free"])
            yield f"{free} are free for {each['what']} ({each['place']}); make room before large downloads"


def _facts(found: Examined) -> list[tuple[str, str]]:
    here, chip, seen = found.installation, found.processor, found.computing
    libraries = here.get("libraries") or {}
    there = ", ".join(f"{name} {version}" for name, version in libraries.items() if version)
    missing = ", ".join(name for name, version in libraries.items() if not version)
    extras = [f"{extra}: {'yes' if _complete(libraries, extra) else 'no'}" for extra in EXTRAS]
    threads = [f"{seen.get('threads', _UNKNOWN)} of PyTorch on {chip.get('usable') or _UNKNOWN} usable processors"]
    threads += [f"a limit of {chip['quota']:g} processors' time"] if chip.get("quota") else []
    threads += [f"{name}={value}" for name, value in (seen.get("variables") or {}).items()]
    speed = [f"{number(seen['gigaflops'], 3)} billion operations a second in float32"] if seen.get("gigaflops") else []
    return [
        ("lpe-eval", f"{here.get('lpe_eval', _UNKNOWN)}, {here.get('commit') or 'no commit'}"),
        ("Python", f"{here.get('implementation')} {here.get('python')}, {here.get('platform')}"),
        ("libraries", there),
        ("not installed", missing),
        ("extras", ", ".join(extras)),
        ("processor", chip.get("name") or _UNKNOWN),
        ("instructions", ", ".join(filter(None, [seen.get("instructions") or "", *(chip.get("flags") or [])]))),
        ("bfloat16 on it", "" if found.why_not else _bfloat16(found)),
        ("threads", ", ".join(threads)),
        ("speed of it", ", ".join(speed)),
        (
            "devices",
            "; ".join(map(_device, seen.get("devices") or [])) or ("Apple's MPS" if seen.get("mps") else "none"),
        ),
        (
            "CUDA",
            f"PyTorch is built for {seen['cuda_build']}" if seen.get("cuda_build") else "PyTorch is built without",
        ),
        ("compilers", f"Triton {libraries.get('triton') or 'not there'}, C {seen.get('compiler') or 'not there'}"),
        ("memory", " of ".join(_amount(found.memory.get(name)) for name in ("free", "all")) + " free"),
        *((each["what"], f"{each['place']}, {_amount(each['free'])} free") for each in found.folders),
    ]


def _of_devices(found: Examined) -> Iterator[str]:
    seen = found.computing
    for device in seen.get("devices") or []:
        name = device["name"]
        if device["bfloat16"]:
            yield f"{name}: models run in bfloat16, which is fast there"
        else:
            yield f"{name}: models run in float32, because it does not multiply in bfloat16 by itself"
        if device["triton"] and seen.get("compiler"):
            yield f"{name}: the attention paths `fused` and `flex` are compiled when they are first used"
        else:
            lacks = (
                "a C compiler is missing" if device["triton"] else "Triton is missing, too old, or not for this card"
            )
            yield (
                f"{name}: `fused` and `flex` cannot be compiled, since {lacks}; exact paths stand in, slower for "
                "biases (ALiBi, T5, KERPLE) and networks of pairs (DAPE, FIRE)"
            )
    if seen.get("devices"):
        return
    if seen.get("mps"):
        yield "Apple's GPU is used only when asked, with --device mps; what needs float64 is computed on the processor"
    elif driver_is_here() and not seen.get("cuda_build"):
        yield "there is an NVIDIA driver, but this PyTorch is built without CUDA; install the build with CUDA to use it"
    elif driver_is_here():
        yield "there is an NVIDIA driver, but PyTorch finds no device; nvidia-smi and CUDA_VISIBLE_DEVICES tell more"
    if seen.get("gigaflops"):
        # A token costs two operations for each weight.
        a_second = seen["gigaflops"] / 2
        yield (
            "everything runs on the processor: the models that ship take seconds to minutes, and a model of a billion "
            f"weights reads at most about {number(a_second, 2)} tokens a second; --dry-run tells how long a run takes"
        )


def _of_processor(found: Examined) -> Iterator[str]:
    chip, seen = found.processor, found.computing
    usable, threads = chip.get("usable"), seen.get("threads")
    if chip.get("quota") and usable:
        usable = min(usable, max(1, round(chip["quota"])))
    if usable and threads:
        if threads < usable:
            why = next(
                (name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in seen.get("variables", {})), ""
            )
            what = f"{why} says so; unset it to use all" if why else "set OMP_NUM_THREADS to use more"
            yield f"{threads} of {usable} processors are used: {what}"
        elif threads > usable:
            yield f"{threads} threads share {usable} processors, which is slower; set OMP_NUM_THREADS={usable}"
    if _bfloat16(found).startswith("emulated"):
        yield "--dtype bfloat16 is tens of times slower than float32 on this processor; leave --dtype away"


def _of_memory(found: Examined) -> Iterator[str]:
    free = found.memory.get("free")
    if free is None:
        return
    if free < _LITTLE_MEMORY:
        yield f"{_amount(free)} of memory are free: lower --batch-size and --lengths, or close other programs"
    # A fifth is left for activations, text and libraries.
    most = 0.8 * free / 4
    yield f"in float32 a model of about {number(most / 1e9, 2)} billion weights fits into the memory that is free"


def _of_extras(libraries: Mapping[str, str | None]) -> Iterator[str]:
    for extra, what in (("hf", "Hugging Face models and tokenizers"), ("gguf", "GGUF files"), ("peft", "adapters")):
        if not _complete(libraries, extra) and (extra == "hf" or _complete(libraries, "hf")):
            yield f"{what} cannot be opened; pip install 'lpe-eval[{extra}]'"


def _complete(libraries: Mapping[str, str | None], extra: str) -> bool:
    return all(libraries.get(name) for name in EXTRAS[extra])


def _bfloat16(found: Examined) -> str:
    flags = found.processor.get("flags")
    if {"avx512_bf16", "amx_bf16", "bf16"} & set(flags or []):
        return "in hardware"
    if found.computing.get("emulates_bfloat16"):
        return "emulated, one product at a time"
    return _UNKNOWN if flags is None else "not in hardware"


def _device(device: Mapping[str, Any]) -> str:
    return f"{device['name']}, compute capability {device['capability']}, {_amount(device['memory'])}"


def _amount(n_bytes: int | None) -> str:
    return "?" if n_bytes is None else f"{n_bytes / 2**30:.1f} GiB"
