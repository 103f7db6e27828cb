"""Measuring from Python: what the commands measure, of checkpoints and of objects of the program itself.

A call asks what its command asks, under the same names, and gives the same values. Nothing is printed unless it is
asked for; what goes wrong is an `LpeEvalError` of one sentence.
"""

import operator
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal, TypedDict, Unpack

import torch
from pydantic import BaseModel

from lpe_eval import console
from lpe_eval.errors import SpecError
from lpe_eval.interface.lent import Models, lent, references, where_they_are
from lpe_eval.interface.model import Model
from lpe_eval.interface.result import Run
from lpe_eval.interface.surroundings import left_alone
from lpe_eval.measure.device import dtype_name, placed_device
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.registry import COMMANDS
from lpe_eval.run import Settings
from lpe_eval.spec.che_spec import CheSpec
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.device_map import checked
from lpe_eval.spec.ppl_spec import PerplexitySpec, parse_lengths, parse_protocols, text_for
from lpe_eval.spec.recall_spec import RecallSpec
from lpe_eval.spec.tasks import parse_spec, read_task

Lengths = int | str | Sequence[int]
"""A length, several, or a sweep such as `512:8192:x2`."""

Data = str | Path | Mapping[str, Any]
"""A text as `--data` takes it, or the fields of a corpus."""


class Opening(TypedDict, total=False):
    """How checkpoints are opened; `PerplexitySpec` says what each means."""

    attention: str
    tokenizer: str | None
    revision: str | None
    trust_remote_code: bool
    rope_scaling: str | None
    rope_theta: float | None
    remap: str | None
    as_published: bool
    device_map: str | Mapping[str, str] | None


class _Measuring(Opening, total=False):
    seed: int
    pack: bool
    batch_size: int | Literal["auto"]
    deterministic: bool
    allow_leak: bool


class PerplexityFields(_Measuring, total=False):
    """The other fields of `PerplexitySpec`."""

    bos: Literal["auto", "always", "first-window", "never"]
    tail: Literal["score", "drop"]
    keep_tokens: bool
    key_tokens: Mapping[str, Any]


class RecallFields(_Measuring, total=False):
    """The other fields of `RecallSpec`."""

    tests: Sequence[str]
    bos: Literal["auto", "always", "never"]
    passages: Literal["text", "random"]
    piece: int
    repeat_tokens: int
    prompts: int
    needle: Literal["assignment", "sentence", "niah_single_1"]
    depths: Sequence[int]
    candidates: int | None
    pairs: Literal["identifiers", "tokens"]
    n_pairs: int
    share: float
    least: float | None


def ppl(
    models: Models,
    lengths: Lengths | None = None,
    *,
    data: Data | None = None,
    task: str = "python-stdlib",
    protocol: str | None = None,
    stride: int | None = None,
    last_k: int | None = None,
    max_tokens: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    out: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = True,
    **fields: Unpack[PerplexityFields],
) -> Run:
    """Measures perplexity at several lengths, as `lpe-eval ppl` does.

    An object of one's own is what a factory behind `py:` may return (`docs/own-models.md`): a `torch.nn.Module`, a
    function from ids to logits, or a pair of it and its `encode`. It is left as it was, and so is everything global.

    Args:
        models: what is measured.
        lengths: tokens of the windows; those of the task unless told otherwise.
        data: other text than the task's.
        task: what is measured, and how.
        protocol: nonoverlap, sliding, last, anchored; several with commas.
        stride: of sliding and anchored.
        last_k: of last and anchored.
        max_tokens: how much text is measured at every length.
        device: where; `auto` is where modules are that are given, else CUDA where there is one.
        dtype: of weights and products; `auto` is that of modules that are given, else the command's.
        out: folder of the results, used exactly. Without one they are gone when nobody holds the run any more.
        overwrite: discard another run that the folder holds.
        quiet: whether nothing is said on stderr.
        fields: further fields of `PerplexitySpec`.

    Raises:
        LpeEvalError: what is asked cannot be, or nothing can be measured. What one of several models raises costs its
            own cells, whose rows say so.
    """
    named, objects = references(models)
    device, dtype = where_they_are(objects, device, dtype)
    chosen = read_task(task)
    changes: dict[str, Any] = dict(fields)
    if lengths is not None:
        changes["lengths"] = _lengths(lengths)
    if data is not None:
        changes["corpus"] = _corpus(data)
    if protocol is not None or stride is not None or last_k is not None:
        names = protocol or ",".join(each.name for each in chosen.protocols)
        asked = parse_protocols(names, None if stride is None else str(stride), last_k)
        changes["protocols"] = [each.model_dump() for each in asked]
    longest = max(changes.get("lengths", chosen.lengths), default=0)
    changes |= {
        "models": named,
        "max_tokens": text_for(longest, chosen) if max_tokens is None else max_tokens,
        "device": device,
        "dtype": dtype,
    }
    spec = parse_spec(PerplexitySpec.of_task(chosen, changes), PerplexitySpec, "lpe_eval.ppl")
    return _measured(spec, objects, out, overwrite, quiet)


def recall(
    models: Models,
    lengths: Lengths | None = None,
    *,
    data: Data | None = None,
    device: str = "auto",
    dtype: str = "auto",
    out: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = True,
    **fields: Unpack[RecallFields],
) -> Run:
    """Measures how much of the far context models use, as `lpe-eval recall` does; arguments are those of `ppl`.

    Raises:
        LpeEvalError: as `ppl`.
    """
    named, objects = references(models)
    device, dtype = where_they_are(objects, device, dtype)
    asked: dict[str, Any] = {**fields, "models": named, "device": device, "dtype": dtype}
    if lengths is not None:
        asked["lengths"] = _lengths(lengths)
    if data is not None:
        asked["corpus"] = _corpus(data)
    return _measured(parse_spec(asked, RecallSpec, "lpe_eval.recall"), objects, out, overwrite, quiet)


def che(
    models: str | Path | Sequence[str | Path],
    lengths: Lengths | None = None,
    *,
    tasks: str | Sequence[str] = "all",
    samples: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> Run:
    """Scores finished encoders on algorithmic problems, as `lpe-eval che -m` does.

    Args:
        models: folders of encoders, or released ones by name.
        lengths: of strings; the protocol's unless told otherwise.
        tasks: problems from `list problems`, or `all` of the protocol.
        samples: strings of each length.
        seed: of the strings.
        device, out, overwrite, quiet: as in `ppl`.

    Raises:
        LpeEvalError: as `ppl`.
    """
    given = [models] if isinstance(models, (str, Path)) else list(models)
    several = [tasks] if isinstance(tasks, str) and tasks != "all" else tasks
    asked = {
        "models": [str(each) for each in given],
        "lengths": None if lengths is None else _lengths(lengths),
        "tasks": several,
        "samples": samples,
        "seed": seed,
        "device": device,
    }
    return _measured(parse_spec(asked, CheSpec, "lpe_eval.che"), {}, out, overwrite, quiet)


def open(reference: str | Path, *, device: str = "auto", dtype: str = "auto", **opening: Unpack[Opening]) -> Model:
    """Opens a checkpoint: what it is, and what it loses on each token of a text.

    Args:
        reference: as `-m` takes it.
        device: where; `auto` is CUDA where there is one, else the CPU.
        dtype: of weights and products; `auto` is float32 on a CPU.
        opening: how else.

    Raises:
        LpeEvalError: it cannot be opened exactly as it is.
    """
    known = set(Opening.__annotations__)
    if unknown := sorted(set(opening) - known):
        raise SpecError(f"lpe_eval.open takes no {unknown[0]!r}; it takes {', '.join(sorted(known))}")
    try:
        parts = checked(opening.pop("device_map", None))
    except ValueError as error:
        raise SpecError(f"lpe_eval.open: {error}") from error
    place = placed_device(device, parts)
    kind = getattr(torch, _type(dtype_name(dtype, place)))
    with left_alone(place):
        return Model(str(reference), LoadOptions(place, kind, **opening)._replace(device_map=parts))


def _measured(spec: BaseModel, objects: Mapping[str, Any], out: str | Path | None, overwrite: bool, quiet: bool) -> Run:
    device = placed_device(getattr(spec, "device", "cpu"), getattr(spec, "device_map", None))
    dtype = getattr(torch, dtype_name(getattr(spec, "dtype", "float32"), device))
    notes: list[str] = []

    def tell(sentence: str) -> None:
        notes.append(sentence)
        if not quiet:
            console.note(sentence)

    temporary = Path(mkdtemp(prefix="lpe-eval-")) if out is None else None
    folder = Path(out) if out is not None else Path(str(temporary))
    settings = Settings(folder, overwrite, partial(console.progress, quiet=quiet), tell, draw=temporary is None)
    run_spec: Callable[..., Any] = COMMANDS.function(str(getattr(spec, "kind", "")), "run_spec")
    usual = torch.get_default_device()
    try:
        with left_alone(device), lent(objects, device, dtype, usual):
            outcome = run_spec(spec, settings)
        if outcome.misfit:
            raise SpecError(outcome.misfit)
        return Run(folder, [*notes, *filter(None, [outcome.failed])], temporary is not None)
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _lengths(lengths: Lengths) -> list[int]:
    if isinstance(lengths, str):
        return parse_lengths(lengths)
    try:
        return [operator.index(each) for each in (lengths if isinstance(lengths, Sequence) else [lengths])]
    except TypeError as error:
        raise SpecError(f"lengths are whole numbers, one or several, not {lengths!r}") from error


def _corpus(data: Data) -> dict[str, Any]:
    if isinstance(data, Mapping):
        return dict(data)
    return CorpusSpec.parse(str(data)).model_dump(mode="json")


def _type(name: str) -> str:
    if name not in ("float32", "bfloat16", "float16"):
        raise SpecError(f"dtype is float32, bfloat16, float16 or auto, not {name!r}")
    return name
