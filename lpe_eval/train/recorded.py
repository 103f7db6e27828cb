"""Work on a GPU, recorded once for each shape of its inputs and replayed from then on.

A small model keeps a GPU waiting for the next of its hundreds of kernels to be called. A CUDA graph calls them all
at once; it holds the addresses and shapes of one step, so there is a graph for each length of string, forty of them
for strings of 1 to 40 tokens, in one pool of memory.

Choices:
    * The first call with a shape is made directly: libraries load then, and constants are copied (`constants.py`).
    * The second is recorded, replayed, and made directly from the same state; the direct results are the ones that
      count. Where they disagree by more than rounding, or where something cannot be recorded because the host would
      have to wait, nothing is replayed, with that or any other shape, and `why_not` says why.
    * Random numbers are drawn by a generator that the graphs know. It takes over the state of the caller's before
      every replay, so a step draws what it would have drawn directly.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lpe_eval.model.constants import constants_used

_ROUNDING = 0.05
"""How far a replayed result may be from a direct one, as a part of its norm.

Sums in another order are far below; but Adam takes whole steps along gradients that are nothing but rounding, and some
encodings have a few of those. What was recorded wrongly is wrong altogether.
"""

Work = Callable[..., tuple[Tensor, ...]]
"""work(*inputs, generator=...) -> results, all on the device, without looking at a value."""


class _Tape(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    """What the graph reads by address beside its inputs, and a cache might drop."""


class Recorded:
    """Does one kind of work, and replays it where its inputs have a shape that was seen before.

    Args:
        state: all that the work changes, on a GPU; nothing else that it reads may move in memory.

    Attributes:
        why_not: why nothing is replayed, or None.
    """

    def __init__(self, state: Sequence[Tensor]) -> None:
        self.state = state
        self.why_not: str | None = None
        self._tapes: dict[tuple[torch.Size, ...], _Tape | None] = {}
        self._device = state[0].device
        self._generator = torch.Generator(self._device)
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(self._device)

    def __call__(self, work: Work, *inputs: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The results of the work, which is the same in every call."""
        shapes = tuple(each.shape for each in inputs)
        if self.why_not is not None or shapes not in self._tapes:
            self._tapes.setdefault(shapes, None)
            return work(*inputs, generator=generator)
        tape = self._tapes[shapes]
        if tape is None:
            return self._checked(work, shapes, inputs, generator)
        return self._replayed(tape, inputs, generator)

    def _checked(
        self, work: Work, shapes: tuple[torch.Size, ...], inputs: tuple[Tensor, ...], generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Records the work and compares a replay with the work itself, which is what stays."""
        before, drawn = [each.clone() for each in self.state], generator.get_state()
        try:
            self._tapes[shapes] = tape = self._record(work, inputs)
            replayed = [*self._replayed(tape, inputs, generator), *(each.clone() for each in self.state)]
        except RuntimeError as error:
            self.why_not = f"they could not be recorded: {str(error).partition(chr(10))[0]}"
            replayed = []
        with torch.no_grad():
            for each, was in zip(self.state, before, strict=True):
                each.copy_(was)
        generator.set_state(drawn)
        results = work(*inputs, generator=generator)
        if replayed:
            # Of what the work changes, the change is compared: it is small beside a weight.
            started = [*(torch.zeros_like(each) for each in results), *before]
            worst = max(map(_apart, replayed, (*results, *self.state), started))
            if worst > _ROUNDING:
                self.why_not = f"a replay differed from the step itself by {worst:.2g} of its size"
        return results

    def _record(self, work: Work, inputs: tuple[Tensor, ...]) -> _Tape:
        held = tuple(each.clone() for each in inputs)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.device(self._device):
            outside = torch.cuda.current_stream()
            try:
                with constants_used() as constants, torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                    results = work(*held, generator=self._generator)
            finally:
                # Where a recording fails, the stream that it was made on would remain.
                torch.cuda.set_stream(outside)
        return _Tape(graph, held, results, tuple(constants))

    def _replayed(self, tape: _Tape, inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        for held, given in zip(tape.inputs, inputs, strict=True):
            held.copy_(given)
        self._generator.set_state(generator.get_state())
        tape.graph.replay()
        generator.set_state(self._generator.get_state())
        # The next replay writes over the results, also one of another shape.
        return tuple(each.clone() for each in tape.results)


def _apart(found: Tensor, wanted: Tensor, was: Tensor) -> float:
    """The norm of a difference, as a part of the norm of a change; what is not finite in both counts as equal."""
    found, wanted, was = (each.nan_to_num(0, 0, 0) for each in (found, wanted, was))
    return float((found - wanted).norm() / (wanted - was).norm().clamp(min=1e-12))
