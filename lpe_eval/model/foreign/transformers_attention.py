"""An attention function registered with `transformers`, which takes the layers of a model at distances of their own.

The attention of a layer hands over queries and keys that its own code has turned. Rotations compose, so they are turned
on from there, with the frequencies that the model holds at that moment: scaled ones serve as well as plain ones.

Choices:
    * What is done in a layer is looked up by the module that calls. One that nobody has said anything of gets the
      library's own attention `sdpa`, or the same in blocks of rows where it has a soft cap on its logits.
    * A mask is made only where a query does not see its whole past, and there at every length. Versions of
      `transformers` before 4.53 have no registration of masks and always make one, of length x length.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import ReferenceType, WeakKeyDictionary

import torch
from torch import Tensor, nn

from lpe_eval.model.attention import rows_per_block
from lpe_eval.model.merged_ranges import attend_in_ranges, fused_piece, plain_piece, repeated
from lpe_eval.model.parts import rows_of_block
from lpe_eval.model.products import products
from lpe_eval.model.remap_options import Remapping
from lpe_eval.model.rotary import Layout, Rotation

NAME = "remapped"
"""As it is registered, and so what a result calls the attention path."""


class Turning(NamedTuple):
    """How a layer turns its queries and keys."""

    holder: "ReferenceType[nn.Module]"
    buffer: str
    """Where the holder has the frequencies; a forward pass may replace them."""
    layout: Layout
    last: bool
    """Whether it turns the last channels of a head, not the first."""

    def rotation(self, device: torch.device) -> Rotation:
        """With the frequencies of the forward pass that is running, for a layer on `device`."""
        holder = self.holder()
        assert holder is not None
        return Rotation(holder.get_buffer(self.buffer).to(device), self.layout, "float32", self.last)


class LayerChange(NamedTuple):
    """Other distances in one layer."""

    remapping: Remapping
    turning: Turning


class LayerCall(NamedTuple):
    """One call of the registered function."""

    module: nn.Module
    queries: Tensor
    keys: Tensor
    limited: bool
    """Whether there is a length at which a query does not see its whole past."""
    scale: float = 1.0
    """Of the products."""
    cap: float | None = None
    """Logits s become cap * tanh(s / cap); None leaves them."""
    mask: Tensor | None = None
    """[1 or b, 1 or h, t, t], truth values or numbers that are added; None where a query sees its whole past."""
    change: LayerChange | None = None
    """The other distances that are taken in this layer."""


_CHANGES: WeakKeyDictionary[nn.Module, LayerChange] = WeakKeyDictionary()
_TOLD: list[Callable[[LayerCall], object]] = []
"""Who is told of each call."""


def change(layers: Mapping[nn.Module, LayerChange]) -> None:
    """Takes these layers at other distances for as long as they live."""
    _CHANGES.update(layers)


@contextmanager
def changed(layers: Mapping[nn.Module, LayerChange]) -> Iterator[None]:
    """The same, within it."""
    _CHANGES.update(layers)
    try:
        yield
    finally:
        for module in layers:
            del _CHANGES[module]


@contextmanager
def watched() -> Iterator[list[LayerCall]]:
    """Within it, the calls of the registered function are written down."""
    seen: list[LayerCall] = []
    with told_to(seen.append):
        yield seen


@contextmanager
def told_to(listener: Callable[[LayerCall], object]) -> Iterator[None]:
    """Within it, `listener` is told of each call of the registered function, before it computes."""
    _TOLD.append(listener)
    try:
        yield
    finally:
        # By identity: methods of two lists that hold equal calls are equal.
        _TOLD[:] = [each for each in _TOLD if each is not listener]


@contextmanager
def registered_in(model: nn.Module) -> Iterator[None]:
    """Within it, the attention of a model goes through the registered function."""
    before = [(config, config._attn_implementation) for config in _configs(model)]
    try:
        register_in(model)
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name


def register_in(model: nn.Module) -> None:
    """Lets the attention of a model go through the registered function from now on."""
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, _attention)
    masks = _masks()
    if masks is not None:
        masks.register(NAME, _mask)
    for config in _configs(model):
        config._attn_implementation = NAME


def _configs(model: nn.Module) -> list[Any]:
    """Each config that a module of the model looks into, once."""
    held = {id(each): each for each in (getattr(part, "config", None) for part in model.modules())}
    return [each for each in held.values() if getattr(each, "_attn_implementation", None) is not None]


def _masks() -> Any:
    """The registration of masks; None in versions that have none."""
    try:
        from transformers.masking_utils import AttentionMaskInterface
    except ImportError:
        return None
    return AttentionMaskInterface


def _mask(*positional: Any, **given: Any) -> Any:
    if not _sees_everything(given.get("mask_function")):
        given["allow_is_causal_skip"] = False
    return _masks()()["sdpa"](*positional, **given)


def _sees_everything(function: Any) -> bool:
    """Whether a query far into a text sees its first token."""
    zero, far = torch.tensor(0), torch.tensor(1 << 40)
    try:
        return function is None or bool(function(zero, zero, far, zero))
    except (RuntimeError, IndexError, TypeError, ValueError):
        return False


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    """What is registered: queries [b, h, t, d], keys and values [b, g, t, d], contexts [b, t, h, d]."""
    layer, scale, cap = _CHANGES.get(module), given.get("scaling") or query.shape[-1] ** -0.5, given.get("softcap")
    if _TOLD:
        limited = _limited(module, attention_mask, given)
        called = LayerCall(module, query, key, limited, scale, cap, attention_mask, layer)
        for each in _TOLD:
            each(called)
    if layer is None:
        return _left_alone(module, query, key, value, attention_mask, scale, given)
    heads, length = query.shape[1], key.shape[2]
    at = torch.arange(length - query.shape[2], length, device=query.device)
    factor = layer.remapping.query_factor(at, length)
    if factor is not None:
        held = torch.promote_types(query.dtype, torch.float32)
        query = (query.to(held) * factor[:, None]).to(query.dtype)
    fused = cap is None and query.device.type == "cpu" and query.shape[-1] == value.shape[-1]
    piece, rows = (fused_piece(scale) if fused else None), rows_of_block(length)
    if piece is None:
        piece, rows = plain_piece(scale, cap), rows_per_block(query.shape[0] * heads, length, query.device)
    context = attend_in_ranges(
        query,
        repeated(key, heads),
        repeated(value, heads),
        layer.remapping.distances,
        layer.turning.rotation(query.device),
        rows,
        piece,
    )
    return context.transpose(1, 2).contiguous(), None


def _limited(module: nn.Module, mask: Tensor | None, given: Mapping[str, Any]) -> bool:
    if given.get("sliding_window") is not None or getattr(module, "is_sliding", False):
        return True
    if _masks() is not None:
        return mask is not None
    chunks = getattr(getattr(module, "config", None), "attention_chunk_size", None)
    return bool(chunks) and bool(getattr(module, "use_rope", False))


def _left_alone(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    given: Mapping[str, Any],
) -> tuple[Tensor, None]:
    cap = given.get("softcap")
    if cap is None:
        from transformers.modeling_utils import AttentionInterface

        return AttentionInterface()["sdpa"](module, query, key, value, mask, **given)
    keys, values = repeated(key, query.shape[1]), repeated(value, query.shape[1])
    length, contexts = key.shape[2], []
    rows = rows_per_block(query.shape[0] * query.shape[1], length, query.device)
    for some in torch.arange(query.shape[2], device=query.device).split(rows):
        logits = cap * (products(query[:, :, some], keys, scale) / cap).tanh()
        seen = torch.arange(length, device=query.device) <= some[:, None] if mask is None else mask[:, :, some]
        added = seen if seen.dtype != torch.bool else torch.zeros_like(logits).masked_fill(~seen, float("-inf"))
        contexts.append((logits + added).softmax(dim=-1).to(value.dtype) @ values)
    return torch.cat(contexts, dim=2).transpose(1, 2).contiguous(), None
