"""What one short forward pass of somebody else's model shows: which modules run, where tables of positions end, and
which layers rotate queries and keys.

A config tells what its author thought of; a pass tells what the code does. Vision towers and the like do not run on
text, so what they hold is no concern of ours.

Choices:
    * A table of positions is one that is looked up at consecutive rows, one for each token, while the tokens
      themselves are not consecutive. Tables of distances are looked up otherwise.
    * A rotation is a call of a function that is called like one (`apply_rotary_pos_emb`, `rotate_half`). Code that
      writes it out in place is not seen, so its absence proves something for known code only.
    * A table whose rows all have the squared length of half their width holds sines and cosines.
"""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

_ROTATION = re.compile(r"apply_\w*(rotary|rope)|apply_multidimensional_rope|^rotate_(half|every_two|pairwise|queries)")
_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
_NOT_SOFTMAX = re.compile(r"linear|lightning|delta|layer|block|norm|vision|pool", re.IGNORECASE)
"""In the names of classes that are called like attention and are another kind of mixer, or a part or whole of one."""


class PositionTable(NamedTuple):
    """Rows that are looked up by position."""

    end: int
    """The most tokens that have a row."""
    sinusoidal: bool
    learned: bool


class Trace(NamedTuple):
    """What a pass did."""

    called: frozenset[nn.Module]
    tables: tuple[PositionTable, ...]
    rotations: int
    """Calls of functions that rotate."""
    attending: frozenset[int]
    """Layers in which softmax attention ran."""
    rotated: frozenset[int]
    """Those in which something was rotated."""


def some_tokens(symbols: int, count: int, without: int | None) -> list[int]:
    """Tokens that are not consecutive, none of them `without` where the vocabulary allows that."""
    known = [token for token in range(min(symbols, count + 1)) if token != without] or [0]
    mixed = known[1::2] + known[::-2]
    return [mixed[place % len(mixed)] for place in range(count)]


def trace(model: nn.Module, run: Callable[[], Any], tokens: int) -> Trace:
    """Runs `run()`, a forward pass of `model` on one text of some tokens, and tells what it did."""
    layers = _layers(model)
    called: set[nn.Module] = set()
    attending: set[int] = set()
    rotated: set[int] = set()
    inside: list[int] = []
    rotations = 0

    def enters(module: nn.Module, _arguments: Any) -> None:
        called.add(module)
        if module in layers:
            inside.append(layers[module])
        name = type(module).__name__
        if inside and _ATTENTION.search(name) and not _NOT_SOFTMAX.search(name):
            attending.add(inside[-1])

    def leaves(module: nn.Module, _arguments: Any, _output: Any) -> None:
        if inside and layers.get(module) == inside[-1]:
            inside.pop()

    def calls(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal rotations
        if event == "call" and _ROTATION.search(frame.f_code.co_name):
            rotations += 1
            rotated.update(inside[-1:])

    handles = [register_module_forward_pre_hook(enters), register_module_forward_hook(leaves)]
    looked_up = _LookUps(tokens)
    try:
        with looked_up, _profiled(calls):
            run()
    finally:
        for handle in handles:
            handle.remove()
    tables = tuple(looked_up.tables.values())
    return Trace(frozenset(called), tables, rotations, frozenset(attending), frozenset(rotated))


@contextmanager
def _profiled(calls: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    before = sys.getprofile()
    sys.setprofile(calls)
    try:
        yield
    finally:
        sys.setprofile(before)


class _LookUps(TorchFunctionMode):
    """Looks at each look-up of an embedding, however the code calls it."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tables: dict[tuple[int, int], PositionTable] = {}
        self._tokens = tokens

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") == "embedding":
            given = [each for each in (*args, *(kwargs or {}).values()) if isinstance(each, Tensor)]
            # PyTorch's two functions of that name take them in different orders.
            table = next((each for each in given if each.is_floating_point()), None)
            rows = next((each for each in given if not each.is_floating_point()), None)
            if table is not None and rows is not None and rows.numel() == self._tokens and table.dim() == 2:
                self._look(table, _held(rows).flatten().tolist())
        return func(*args, **(kwargs or {}))

    def _look(self, table: Tensor, rows: list[int]) -> None:
        first = rows[0]
        if rows == list(range(first, first + len(rows))):
            held = _held(table)
            some = held[:: max(1, held.shape[0] // 64)].detach().float()
            even = (some.square().sum(1) / (table.shape[1] / 2) - 1).abs()
            found = PositionTable(table.shape[0] - first, bool((even < 1e-2).float().mean() > 0.9), table.requires_grad)
            self.tables[held.data_ptr(), first] = found


def _held(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor that ranks share; of any other all of it."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def _layers(model: nn.Module) -> dict[nn.Module, int]:
    """The blocks of a model, numbered: the children of each list of modules that lies in no other list."""
    lists = [(name, each) for name, each in model.named_modules() if isinstance(each, nn.ModuleList)]
    outer = [each for name, each in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    blocks = [block for each in outer for block in each]
    return {block: number for number, block in enumerate(blocks)}
