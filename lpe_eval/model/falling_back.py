"""Where a path cannot be compiled or launched, an exact one stands in, once for a shape, and it is said.

A compiler may be missing, a kernel may need more memory than a card has, PyTorch may lack an operator on a device.
None of that may cost a row, a model or a length: `blocked` computes the same without gradients and `checkpointed` with
them, by operations that PyTorch has everywhere.

Choices:
    * A shape that failed is not tried again. A second shape of the same kind that fails ends the kind: the numbers of
      heads and their width, the encoding and the sizes of its parameters, the mask, dtype, device, with gradients or
      without. A compiler that is not there would else be looked for at the end of every document.
    * Lack of memory is no such failure: smaller batches are tried then. Neither is what our own errors say, which are
      about the text or the encoding.
    * What the exact path raises as well is not the path's fault, and is raised.
    * The gradients of a path that compiles them are tried beforehand, on copies, the first time that a shape is met:
      when the loss is differentiated it is too late to take another path.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.errors import LpeEvalError, one_sentence
from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.attentions.checkpointed import Checkpointed
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.registry import ATTENTIONS

_LONGEST_REASON = 200
"""Letters of a reason; what compilers say goes on for pages."""


class _Shape(NamedTuple):
    """What a path may be compiled anew for."""

    path: type[AttentionPath]
    encoding: tuple[object, ...]
    of_head: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    gradients: bool
    mask: Mask
    size: tuple[int, int, int] | None
    """Texts, queries and keys; None for any."""


class Fall(NamedTuple):
    """A path that an exact one stood in for, and why."""

    path: str
    instead: str
    why: str

    @property
    def sentence(self) -> str:
        """For the note of a row."""
        return f"{self.instead} computed what the attention path {self.path} could not: {self.why}"


class Taken:
    """Which paths computed something since this was made.

    Attributes:
        served: names of those that did what they were asked for.
        falls: each path that could not, and why the first time.
    """

    def __init__(self) -> None:
        self.served: set[str] = set()
        self.falls: dict[tuple[str, str], Fall] = {}

    def paths(self, asked: str) -> str:
        """The paths that computed, from those that were asked for, joined by plus signs."""
        found: list[str] = []
        for name in asked.split("+"):
            others = [fall.instead for fall in self.falls.values() if fall.path == name]
            found += [*([name] if name in self.served or not others else []), *others]
        return "+".join(dict.fromkeys(found))

    @property
    def note(self) -> str:
        """A sentence for each path that fell back; empty where none did."""
        return "; ".join(fall.sentence for fall in self.falls.values())


_failed: dict[_Shape, str] = {}
"""Why each shape failed; a process does not gain a compiler."""
_tried: set[_Shape] = set()
"""Shapes whose gradients were tried."""
_told: ContextVar[Taken | None] = ContextVar("told", default=None)


@contextmanager
def taken(so_far: Taken | None = None) -> Iterator[Taken]:
    """Inside, tells which paths compute and which fall back, beside what is known `so_far`."""
    found = so_far or Taken()
    before = _told.set(found)
    try:
        yield found
    finally:
        _told.reset(before)


def attended(
    path: type[AttentionPath],
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    encoding: Encoding,
    at: Int[Tensor, " k"],
    mask: Mask,
    features: Float[Tensor, "b h k n"] | None = None,
) -> Float[Tensor, "b h q d"]:
    """`path.attend`, or what an exact path makes of the same where that fails.

    Raises:
        Exception: whatever the exact path raises as well; lack of memory; our own errors.
    """
    if not path.falls_back:
        return path.attend(q, k, v, encoding, at, mask, features)
    shape = _shape(path, q, k, encoding, mask) if _failed or path.compiles_gradients else None
    why = None if shape is None else _failed.get(shape) or _failed.get(shape._replace(size=None))
    if why is None:
        try:
            if shape is not None and shape.gradients and path.compiles_gradients and shape not in _tried:
                _try_gradients(path, q, k, v, encoding, at, mask, features)
                _tried.add(shape)
            context = path.attend(q, k, v, encoding, at, mask, features)
        except (LpeEvalError, MemoryError):
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            # The sentence alone: the error holds everything that was computed until then.
            why = " ".join(one_sentence(error).split())[:_LONGEST_REASON]
        else:
            _tell(path)
            return context
    exact = Checkpointed if torch.is_grad_enabled() else Blocked
    context = exact.attend(q, k, v, encoding, at, mask, features)
    _remember(_shape(path, q, k, encoding, mask), why)
    _tell(path, exact, why)
    return context


def _shape(
    path: type[AttentionPath],
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    encoding: Encoding,
    mask: Mask,
) -> _Shape:
    batch, heads, rows, width = q.shape
    parts = (encoding.label, *(each.shape for each in encoding.parameters()))
    size = (batch, rows, k.shape[2])
    return _Shape(path, parts, (heads, width), q.dtype, q.device, torch.is_grad_enabled(), mask, size)


def _try_gradients(
    path: type[AttentionPath],
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    encoding: Encoding,
    at: Int[Tensor, " k"],
    mask: Mask,
    features: Float[Tensor, "b h k n"] | None,
) -> None:
    given = [q, k, v] if features is None else [q, k, v, features]
    leaves = [each.detach().requires_grad_(each.requires_grad) for each in given]
    wanted = [each for each in (*leaves, *encoding.parameters()) if each.requires_grad]
    if wanted:
        context = path.attend(leaves[0], leaves[1], leaves[2], encoding, at, mask, *leaves[3:])
        torch.autograd.grad(context.float().sum(), wanted, allow_unused=True)


def _remember(shape: _Shape, why: str) -> None:
    if shape in _failed:
        return
    kind = shape._replace(size=None)
    if any(each._replace(size=None) == kind for each in _failed):
        _failed[kind] = why
    _failed[shape] = why


def _tell(path: type[AttentionPath], instead: type[AttentionPath] | None = None, why: str = "") -> None:
    told = _told.get()
    if told is None:
        return
    name = _name(path)
    if instead is None:
        told.served.add(name)
    else:
        told.falls.setdefault((name, _name(instead)), Fall(name, _name(instead), why))


def _name(path: type[AttentionPath]) -> str:
    """What users type for a path."""
    module = path.__module__.rpartition(".")[2]
    names = ATTENTIONS.names()
    if module in names:
        return module
    return next((name for name in names if ATTENTIONS.load(name) is path), path.__name__)
