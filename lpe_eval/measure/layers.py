"""How far a forward pass is: a batch may take minutes, and a bar that stands still for minutes is taken for dead."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lpe_eval.measure.progress import Advance
from lpe_eval.model.language_model import LanguageModel


class Passes:
    """Tells of the tokens of forward passes, layer by layer where there are layers, and of each token once."""

    def __init__(self, layers: int, advance: Advance) -> None:
        self._layers, self._advance = layers, advance
        self._whole = self._told = self._passed = 0
        self._credit = 0
        """Told of in passes that did not end."""

    def begin(self, tokens: int) -> None:
        """A pass over so many tokens begins."""
        self._whole, self._told, self._passed = tokens, 0, 0

    def end(self) -> None:
        """It has ended."""
        self._tell(self._whole)
        self._whole = 0

    def fail(self) -> None:
        """It has failed, and its tokens will be in another pass."""
        self._credit, self._whole = self._credit + self._told, 0

    def layer(self, *_: Any) -> None:
        """One of its layers has ended."""
        self._passed += 1
        self._tell(min(self._passed, self._layers) * self._whole // (self._layers + 1))

    def _tell(self, tokens: int) -> None:
        more = max(0, tokens - self._told)
        self._told = max(self._told, tokens)
        known = min(more, self._credit)
        self._credit -= known
        if more > known:
            self._advance(more - known)


@contextmanager
def told_by_layer(model: LanguageModel, advance: Advance) -> Iterator[Passes]:
    """Inside, the layers of a model tell when they have ended."""
    layers = _layers(getattr(model, "model", None))
    passes = Passes(len(layers), advance)
    handles = [each.register_forward_hook(passes.layer) for each in layers]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def _layers(module: Any) -> list[nn.Module]:
    """The parts of the longest list of modules; none where hooks would get in the way of a compiler."""
    if not isinstance(module, nn.Module):
        return []
    parts = list(module.modules())
    if any(isinstance(each, torch.jit.ScriptModule) or type(each).__name__ == "OptimizedModule" for each in parts):
        return []
    lists = [list(each) for each in parts if isinstance(each, nn.ModuleList)]
    return max(lists, key=len, default=[])
