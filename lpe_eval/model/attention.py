"""The contract of an attention path, and the choice among the paths.

A path is one way to compute exactly the same thing: queries are rotated, logits q . k / sqrt(d)
get the encoding's bias and adjustment, what the layer does not let a query see is masked, the
softmax weighs the values, and the encoding's `kept`, if it has one, multiplies each row. Logits, bias
and softmax are float32, whatever the dtype of the model, and so are the encoding's own parameters.
Paths differ in time and memory alone. They are chosen by what the encoding uses and where the tensors
live, never by the encoding's name.

What a path owes besides:

    * Every mask: one that has no way of its own with windows and chunks hands them to `blocked`, or to
      `checkpointed` where gradients are wanted. A path that leaves out the keys nobody sees takes time linear in
      the length where there is a window.
    * Features: cut like queries (`features[:, :, rows]`) and like keys, and given to `adjust` in the `Scores`.
    * `kept`, or a `serves` that is false where `capabilities.keeps` is true.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.errors import SpecError
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.registry import ATTENTIONS

_BLOCK_LOGITS = 1 << 22
"""Logits held at once. Four million floats are 16 MiB: few enough blocks, and still in the cache that cores share."""

_FEWEST_ROWS, _MOST_ROWS = 64, 128
"""Fewer rows make thin, slow products; more rows waste half of a larger square on the diagonal."""

_BLOCK_LOGITS_GPU, _MOST_ROWS_GPU = 1 << 26, 1024
"""The same on a GPU, which waits for the host between small blocks: 256 MiB of float32."""


class PathError(RuntimeError):
    """A path cannot compute this shape on this device; `falling_back.py` takes another one."""


class AttentionPath(ABC):
    """One way to compute exact attention; members hold no state."""

    preference: ClassVar[int] = 0
    """Among the paths that can serve, the highest preference is taken."""
    falls_back: ClassVar[bool] = True
    """Whether an exact path of PyTorch's own operations stands in where this one cannot be compiled or launched."""
    compiles_gradients: ClassVar[bool] = False
    """Whether a backward pass is compiled, which may fail when the forward pass did not."""

    @classmethod
    @abstractmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        """Whether the path can compute this encoding there."""

    @classmethod
    @abstractmethod
    def attend(
        cls,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b h k d"],
        v: Float[Tensor, "b h k d"],
        encoding: Encoding,
        at: Int[Tensor, " k"],
        mask: Mask,
        features: Float[Tensor, "b h k n"] | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """The context of each query.

        Args:
            q: rotated queries; when there are fewer than keys they are the last rows.
            k: rotated keys.
            v: values.
            encoding: what turns logits into positioned logits.
            at: the position of every key; the queries' are its last entries.
            mask: which keys each query sees.
            features: what the encoding's `features` made of every token; None where it has none.
        """


def choose(
    name: str | type[AttentionPath], encoding: Encoding, device: torch.device
) -> tuple[str, type[AttentionPath]]:
    """The path called `name`, or for "auto" the preferred one among those that can serve; a path is itself.

    Raises:
        UnknownName: no path has that name.
        SpecError: the path cannot serve this encoding on this device.
    """
    if isinstance(name, type):
        return name.__name__, name
    if name != "auto":
        path = ATTENTIONS.load(name)
        if not path.serves(encoding, device):
            raise SpecError(f"the attention path {name!r} cannot compute {encoding.label} on {device.type}; use auto")
        return name, path
    able = [(each, ATTENTIONS.load(each)) for each in ATTENTIONS.names()]
    return max(
        ((each, path) for each, path in able if path.serves(encoding, device)),
        key=lambda pair: (pair[1].preference, pair[0]),
    )


def rows_per_block(matrices: int, keys: int, device: torch.device) -> int:
    """Query rows whose logits over `keys` keys, of `matrices` batch entries and heads, fill one block on a device."""
    on_cpu = device.type == "cpu"
    logits, most = (_BLOCK_LOGITS, _MOST_ROWS) if on_cpu else (_BLOCK_LOGITS_GPU, _MOST_ROWS_GPU)
    return max(_FEWEST_ROWS, min(most, logits // (matrices * keys)))
