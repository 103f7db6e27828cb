"""Steps that a GPU can replay: they look at no value, copy nothing from the host, and replayed are the same."""

import contextlib
import traceback
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lpe_eval.model import offsets
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.encodings import transformer_xl
from lpe_eval.model.fast import interpolation
from lpe_eval.model.mask import Mask
from lpe_eval.train import recorded
from lpe_eval.train.stack import Stack
from tests.support.attending import built
from tests.support.stacks import ENCODINGS, RATES, encoder

ALL = [*ENCODINGS, "kerple_power", "sandwich", "xpos", {"name": "xpos", "centre": "length"}, "randomized(kerple_log)"]

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


class Crossings(TorchDispatchMode):
    """Notes every copy between the CPU and elsewhere, and whatever else has tensors of both; single numbers may mix."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, out)) if isinstance(each, Tensor)]
        copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if len({each.device.type for each in tensors if copies or each.dim()}) > 1:
            frames = [f"{each.filename}:{each.lineno}" for each in traceback.extract_stack()]
            self.found.append(f"{func} at {next((each for each in reversed(frames) if '/lpe_eval/' in each), 'here')}")
        return out


def on_meta(text: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Stack, Tensor, Tensor]:
    """A stack on the device of tensors without values, where looking at one is an error, as in a recording."""
    # This device has no mixed precision.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    stack = Stack([encoder(text, seed).to("meta") for seed in (1, 2, 3)], RATES, clip_norm=0.5)
    tokens, targets = (torch.zeros(5, length, dtype=torch.long, device="meta") for length in (9, 3))
    return stack, tokens, targets


@pytest.mark.parametrize("text", ALL, ids=str)
def test_a_step_looks_at_no_value_and_copies_nothing_from_the_host(text: Any, monkeypatch: pytest.MonkeyPatch):
    stack, tokens, targets = on_meta(text, monkeypatch)
    factors, draws = torch.ones(2, device="meta"), torch.Generator()
    stack._taken(tokens, targets, factors, generator=draws)  # constants are copied in the first step
    with Crossings() as crossings:
        stack._taken(tokens, targets, factors, generator=draws)
    # The generator of a GPU draws there; this one draws on the CPU.
    drawn = [each for each in crossings.found if "randomized.py" not in each]
    assert not drawn
    assert bool(crossings.found) == str(text).startswith("randomized")


@pytest.mark.parametrize("text", ["t5", "kerple_log", "kerple_power", "mep", "sandwich", "fire", "transformer_xl"])
@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_without_looking_at_positions_the_numbers_are_the_same(
    text: str, causal: bool, monkeypatch: pytest.MonkeyPatch
):
    member, draw = built(text, causal, train_length=16), torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 3, 30, 8, generator=draw) for _ in range(3))
    for at in (torch.arange(30), 5 * torch.arange(30)):
        for rows in (30, 7):
            with monkeypatch.context() as patch:
                seen = Dense.attend(q[:, :, -rows:], k, v, member, at, Mask(causal))
                for module in (offsets, interpolation, transformer_xl):
                    patch.setattr(module, "worth_looking", lambda *_: False)
                unseen = Dense.attend(q[:, :, -rows:], k, v, member, at, Mask(causal))
            torch.testing.assert_close(unseen, seen, rtol=1e-5, atol=1e-6)


def test_looking_and_copying_would_be_noticed(monkeypatch: pytest.MonkeyPatch):
    stack, tokens, targets = on_meta({"name": "rope", "scaling": {"type": "dynamic_ntk", "factor": 2.0}}, monkeypatch)
    stack.step(tokens, targets, torch.Generator())
    # Of positions that were made without `run_on` nothing is known, so the largest has to be looked at.
    monkeypatch.setattr("lpe_eval.model.encoding.run_on", lambda length, device: torch.arange(length, device=device))
    with pytest.raises(RuntimeError, match="item"):
        stack.step(tokens, targets, torch.Generator())
    with Crossings() as crossings:
        torch.ones(3).to("meta")
        torch.ones(()).to("meta")
    assert len(crossings.found) == 2


def test_numbers_of_a_step_are_inputs_of_it():
    """What changes from step to step must not be held by a recording: the rate, and Adam's corrections."""
    stack = Stack([encoder("none", seed) for seed in (1, 2, 3)], RATES, clip_norm=0.5)
    stack.steps = 1
    first = stack._factors(1.0).tolist()
    assert first == pytest.approx([1e-8 * 0.001**0.5, 0.001**0.5 / 0.1], rel=1e-6)
    stack.steps = 7
    later = [1e-8 * (1 - 0.999**7) ** 0.5, 0.5 * (1 - 0.999**7) ** 0.5 / (1 - 0.9**7)]
    assert stack._factors(0.5).tolist() == pytest.approx(later, rel=1e-6)


def test_a_cpu_records_nothing():
    stack = Stack([encoder("none", 1)], (1e-3,), clip_norm=0.5)
    assert stack._recording is None
    assert stack.why_not_replayed is None


def test_the_distance_of_two_results():
    nan = float("nan")
    assert recorded._apart(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]), torch.zeros(2)) == 0
    assert recorded._apart(torch.tensor([3.0, nan]), torch.tensor([4.0, nan]), torch.tensor([2.0, nan])) == 0.5
    assert recorded._apart(torch.ones(2), torch.ones(2), torch.ones(2)) == 0


@needs_gpu
@pytest.mark.parametrize("text", ALL, ids=str)
def test_replayed_training_is_the_direct_one(text: Any):
    def trained(record: bool) -> tuple[Stack, list[Tensor]]:
        models = [encoder(text, seed, dropout=0.2).cuda() for seed in (1, 2, 3)]
        stack = Stack(models, RATES, clip_norm=0.5, record=record)
        losses = []
        for step in range(40):
            strings = torch.Generator().manual_seed(step)
            shapes = ((5, 7 + step % 4), (5, 1 + step % 4))
            tokens, targets = (torch.randint(3, shape, generator=strings).cuda() for shape in shapes)
            losses.append(stack.step(tokens, targets, torch.Generator("cuda").manual_seed(step))[0])
        return stack, losses

    (direct, expected), (replayed, found) = trained(False), trained(True)
    assert replayed.why_not_replayed is None
    assert replayed._recording is not None
    assert [tape is not None for tape in replayed._recording._tapes.values()] == [True] * 4
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-3, atol=1e-4)
    assert direct._recording is None


@needs_gpu
def test_what_cannot_be_recorded_is_done_directly():
    state = torch.zeros(3, device="cuda")

    def looks(given: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        state.add_(given * given.sum().item())
        return (state.clone(),)

    work = recorded.Recorded([state])
    draws = torch.Generator("cuda")
    results = [work(looks, torch.ones(3, device="cuda"), generator=draws)[0].tolist() for _ in range(4)]
    assert results == [[3.0] * 3, [6.0] * 3, [9.0] * 3, [12.0] * 3]
    assert work.why_not is not None
    assert "could not be recorded" in work.why_not


@needs_gpu
def test_a_replay_that_differs_is_given_up():
    state, calls = torch.zeros(3, device="cuda"), []

    def changes(given: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        calls.append(1)
        state.add_(given * len(calls))  # a number that a recording holds as it was
        return (state.clone(),)

    work = recorded.Recorded([state])
    draws = torch.Generator("cuda")
    for _ in range(3):
        work(changes, torch.ones(3, device="cuda"), generator=draws)
    assert work.why_not is not None
    assert "differed" in work.why_not


class GraphOnCpu:
    """Stands for a CUDA graph where there is none: recording undoes what was done, a replay does it again."""

    def __init__(self) -> None:
        self.generator = torch.Generator()

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generator = generator

    def replay(self) -> None:
        for held, new in zip(self.results, self.call(), strict=True):
            held.copy_(new)


def cpu_graphs(monkeypatch: pytest.MonkeyPatch, work: recorded.Recorded) -> None:
    """What `Recorded` asks of torch.cuda, so that its order of doing things can be seen without a GPU."""
    record = work._record

    @contextlib.contextmanager
    def recording(graph: GraphOnCpu, **_: Any):
        before = [each.clone() for each in work.state]
        yield
        for each, was in zip(work.state, before, strict=True):
            each.copy_(was)

    def kept(does: recorded.Work, inputs: tuple[Tensor, ...]) -> recorded._Tape:
        tape = record(does, inputs)
        tape.graph.results = tape.results
        tape.graph.call = lambda: does(*tape.inputs, generator=tape.graph.generator)
        return tape

    monkeypatch.setattr(work, "_record", kept)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", GraphOnCpu)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda _: None)


@pytest.mark.parametrize("broken", [False, True], ids=["right", "wrong from the second replay on"])
def test_each_call_has_its_own_inputs_and_draws(broken: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: None)

    def work(state: Tensor):
        def add(given: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
            state.add_(given.sum() * torch.rand(3, generator=generator))
            return state * 2, given + 1

        return add

    direct, replayed = torch.zeros(3), torch.zeros(3)
    one_by_one, alike, with_tapes = work(direct), work(replayed), recorded.Recorded([replayed])
    cpu_graphs(monkeypatch, with_tapes)
    held: list[tuple[Tensor, ...]] = []
    wanted: list[tuple[Tensor, ...]] = []
    for step in range(12):
        given = torch.full((2 + step % 3,), float(step))
        draws = torch.Generator().manual_seed(step), torch.Generator().manual_seed(step)
        wanted.append(tuple(each.clone() for each in one_by_one(given, draws[0])))
        held.append(with_tapes(alike, given, generator=draws[1]))
        if broken and step == 6:
            with_tapes._generator = torch.Generator()  # not the one that the recordings know
    same = all(torch.equal(*pair) for pair in zip(sum(held, ()), sum(wanted, ()), strict=True))
    assert with_tapes.why_not is None
    assert [tape is not None for tape in with_tapes._tapes.values()] == [True] * 3
    assert same is not broken
    assert torch.equal(draws[0].get_state(), draws[1].get_state()) is not broken
