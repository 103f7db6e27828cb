"""One model that all ranks of torchrun hold together: the first rank measures, and the others do what it does.

The first rank runs the whole measurement as a process by itself would. What it asks of a model it first tells the
others, which have opened the same model and do the same, so that all of them meet in the operations inside that add
their shares up. After each step the ranks say whether it went well.

Choices:
    * An error that all ranks come back with is the model's own: it costs a length, or halves a batch, as it always
      does. Where a rank does not come back, nothing can be measured any more: the others end, and torchrun ends the
      launch. Every finished cell and part is on disk then.
    * Texts, times, tables and files are the first rank's alone.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch import distributed as dist

from lpe_eval.errors import CheckpointError, LaunchLost, SpecError, one_sentence
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.language_model import LanguageModel, PositionTensor
from lpe_eval.out_of_memory import out_of_memory

_WAITING, _OPENING, _STEP = timedelta(days=100), timedelta(hours=2), timedelta(minutes=5)
"""How long a rank waits for the next step, for others to open a model, and for others to end a step."""

T = TypeVar("T")
Opener = Callable[[str, LoadOptions], LanguageModel]
"""Opens this rank's share of a model."""


class _Groups(NamedTuple):
    """Ranks, as they talk about steps, about models that are opened, and about ends of steps."""

    steps: Any
    openings: Any
    ends: Any


_JOINED: list[_Groups] = []
"""Empty in a process that is no rank of a launch that shares models."""


def size() -> int:
    """How many ranks share models.

    Raises:
        SpecError: this process is none of several that torchrun started for that.
    """
    if not _JOINED:
        raise SpecError(
            "--tensor-parallel needs ranks that share a model: torchrun --nproc-per-node 2 -m lpe_eval ppl ..."
        )
    return dist.get_world_size()


@contextmanager
def joined(device: torch.device) -> Iterator[bool]:
    """Joins the ranks of this launch; within it they share models. Gives whether this one is the first.

    Args:
        device: of this rank.
    """
    cards = device.type == "cuda"
    if cards:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cards else "gloo", timeout=_OPENING)
    _JOINED.append(_Groups(*(dist.new_group(backend="gloo", timeout=each) for each in (_WAITING, _OPENING, _STEP))))
    leads = dist.get_rank() == 0
    try:
        yield leads
    except LaunchLost:
        # Whoever is left would not hear.
        raise
    except Exception:
        _end(leads)
        raise
    else:
        _end(leads)
    finally:
        _JOINED.clear()


def led(path: str, options: LoadOptions, opener: Opener) -> LanguageModel:
    """Opens a model on all ranks; for the first one.

    Args:
        path: of the checkpoint, the same for all.
        options: how it is opened; each rank has a device of its own.
        opener: opens the share of this rank.

    Raises:
        LaunchLost: a rank is gone.
        LpeEvalError: it cannot be opened.
    """
    size()
    _tell(("open", path, options))
    return _Led(_agreed(partial(opener, path, options), _JOINED[-1].openings))


def follow(device: torch.device, opener: Opener) -> None:
    """Does what the first rank tells until it ends; for the others.

    Args:
        device: of this rank.
        opener: opens its share of a model.

    Raises:
        LaunchLost: a rank is gone.
    """
    model: LanguageModel | None = None
    while (told := _heard()) is not None:
        what, *given = told
        # What goes wrong on all ranks is told by the first.
        with contextlib.suppress(Exception):
            if what == "open":
                model = None
                gc.collect()
                path, options = given
                model = _agreed(partial(opener, path, options._replace(device=device)), _JOINED[-1].openings)
                continue
            assert model is not None
            shape, dtype, *more = given
            _agreed(
                partial(_step, model, what, torch.empty(shape, dtype=dtype, device=device), *more), _JOINED[-1].ends
            )


class _Led(LanguageModel):
    """The first rank's share of a model, which takes all ranks with it."""

    def __init__(self, share: LanguageModel) -> None:
        self._share = share
        self.facts, self.device, self.dtype, self.mapped = share.facts, share.device, share.dtype, share.mapped

    @property
    def attention(self) -> str:
        return self._share.attention

    def hidden(self, tokens: Int[Tensor, "b t"], rows: int, generator: torch.Generator) -> Float[Tensor, "b r e"]:
        return self._together("hidden", tokens, rows)

    def logits(self, hidden: Float[Tensor, "n e"]) -> Float[Tensor, "n v"]:
        return self._together("logits", hidden)

    def least_bytes(self, length: int) -> int:
        return self._share.least_bytes(length)

    def architecture(self) -> list[tuple[str, str]]:
        return self._share.architecture()

    def method(self) -> list[tuple[str, str]]:
        return self._share.method()

    def notes(self) -> Sequence[str]:
        return self._share.notes()

    def position_tensors(self) -> Iterator[PositionTensor]:
        return self._share.position_tensors()

    def recorded(self) -> Mapping[str, Any]:
        return {**self._share.recorded(), "tensor_parallel": {"ranks": size()}}

    def _together(self, what: str, tensor: Tensor, *more: int) -> Tensor:
        _tell((what, tuple(tensor.shape), tensor.dtype, *more))
        return _agreed(partial(_step, self._share, what, tensor.contiguous(), *more), _JOINED[-1].ends)


@torch.inference_mode()
def _step(model: LanguageModel, what: str, tensor: Tensor, *more: int) -> Tensor:
    """What a rank does of a step, once it has the first one's tensor."""
    dist.broadcast(tensor, src=0)
    if what == "hidden":
        return model.hidden(tensor, more[0], torch.Generator())
    return model.logits(tensor)


def _end(leads: bool) -> None:
    with contextlib.suppress(LaunchLost, RuntimeError):
        if leads:
            _tell(None)
        dist.destroy_process_group()


def _tell(told: tuple[Any, ...] | None) -> None:
    try:
        dist.broadcast_object_list([told], src=0, group=_JOINED[-1].steps)
    except RuntimeError as error:
        raise _lost(error) from error


def _heard() -> tuple[Any, ...] | None:
    held: list[Any] = [None]
    try:
        dist.broadcast_object_list(held, src=0, group=_JOINED[-1].steps)
    except RuntimeError as error:
        raise _lost(error) from error
    return held[0]


def _agreed(run: Callable[[], T], group: Any) -> T:
    """What `run` gives where it does on all ranks.

    Raises:
        LaunchLost: a rank does not come back from it.
        Exception: what it raises here; where it does on another rank alone, that one's sentence.
    """
    found: list[T] = []
    error: Exception | None = None
    try:
        found.append(run())
    except Exception as raised:
        error = raised
    failed = torch.tensor([error is not None], dtype=torch.int32)
    try:
        dist.all_reduce(failed, group=group)
        if not failed.item():
            return found[0]
        told: list[Any] = [None] * size()
        dist.all_gather_object(told, None if error is None else (out_of_memory(error), one_sentence(error)), group)
    except RuntimeError as lost:
        raise _lost(error or lost) from lost
    if error is not None:
        raise error
    number, (memory, sentence) = next((rank, each) for rank, each in enumerate(told) if each is not None)
    raise (MemoryError if memory else CheckpointError)(f"rank {number}: {sentence}")


def _lost(error: Exception) -> LaunchLost:
    return LaunchLost(
        f"a rank is gone, or stands still, with which this one holds a model ({one_sentence(error)[:200]}); what was "
        "finished is kept, and the same command goes on from there"
    )
