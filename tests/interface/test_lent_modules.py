"""A module that is lent for a measurement is as it was to the bit, and so is the program around it."""

import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lpe_eval
from lpe_eval.errors import CodeError
from lpe_eval.interface.surroundings import left_alone
from lpe_eval.measure.denormals import denormals_as_zero
from tests.support.own_models import SYMBOLS, Bigram

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu " * 12


class Trained(nn.Module):
    """Has what training code has: parts in different modes, dropout, batch norm, buffers, a cache, plain state."""

    mask: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.drop = nn.Embedding(SYMBOLS, 16), nn.LayerNorm(16), nn.Dropout(0.5)
        self.head = nn.Linear(16, SYMBOLS)
        self.register_buffer("mask", torch.ones(4096, 4096, dtype=torch.bool).tril())
        self.register_buffer("scale", torch.ones(1))
        self.angles: Tensor | None = None
        self.seen: list[int] = []
        self.longest = 8

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        torch.rand(1), random.random(), np.random.rand()
        self.longest = max(self.longest, length)
        self.seen.append(length)
        if self.angles is None or len(self.angles) < length:
            self.angles = torch.arange(length, device=tokens.device)[:, None] / 100.0
        self.scale.mul_(1.0 + 1e-3)
        x = self.embed(tokens) + self.angles[:length] * self.embed.weight[0]
        weights = self.mask[:length, :length].float() / torch.arange(1, length + 1)[:, None]
        return self.head(self.drop(self.norm(weights @ x)))


def seeded() -> None:
    """The program's own random numbers, from their beginning."""
    torch.default_generator.manual_seed(5)
    random.seed(5)  # noqa: TID251
    np.random.seed(5)  # noqa: TID251


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(WORDS)
    return path


def measured(models: Any, text: Path, **more: Any) -> lpe_eval.Run:
    return lpe_eval.ppl(models, [32, 64], data=text, protocol="nonoverlap", max_tokens=600, **more)


def trained() -> Trained:
    torch.default_generator.manual_seed(1)
    model = Trained()
    model.norm.eval()
    model.head.weight.requires_grad_(False)
    return model


def snapshot(model: nn.Module) -> dict[str, Any]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "modes": [each.training for each in model.modules()],
        "tensors": {name: (id(each), each.data_ptr(), each.dtype, each.requires_grad, each._version, each.clone())
                    for name, each in tensors.items()},
        "gradients": {name: None if each.grad is None else each.grad.clone() for name, each in
                      model.named_parameters()},
        "attributes": {name: sorted(vars(each)) for name, each in model.named_modules()},
        "hooks": [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules()],
    }  # fmt: skip


def unchanged(before: dict[str, Any], after: dict[str, Any], written: tuple[str, ...] = ()) -> None:
    for name in ("modes", "attributes", "hooks"):
        assert before[name] == after[name], name
    for name, (*facts, value) in before["tensors"].items():
        *now, found = after["tensors"][name]
        # What the module itself writes to is put back, which autograd may count.
        same = facts == now if name not in written else facts[:-1] == now[:-1]
        assert same and torch.equal(value, found), name
    for name, gradient in before["gradients"].items():
        other = after["gradients"][name]
        assert (gradient is None) == (other is None) and (gradient is None or torch.equal(gradient, other)), name


def test_a_module_in_training_is_as_it_was(text: Path):
    model = trained()
    model(torch.arange(12).reshape(2, 6)).sum().backward()
    kept, seen = model.angles, model.seen
    before = snapshot(model)
    run = measured(model, text)
    unchanged(before, snapshot(model), ("scale",))
    assert model.angles is kept and model.seen is seen == [6] and model.longest == 8
    assert set(run.rows.status) == {"ok"} and set(run.rows.model) == {"Trained"}


def test_the_program_around_it_is_as_it_was(text: Path):
    model = trained()
    seeded()
    wanted = (torch.rand(3).tolist(), np.random.rand())
    seeded()
    threads, determinism = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    usual = measured(model, text).rows.value.tolist()
    assert (torch.rand(3).tolist(), np.random.rand()) == wanted
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == threads and torch.are_deterministic_algorithms_enabled() == determinism
    assert torch.full((1,), 1e-39).mul(1.0).count_nonzero() == 1, "small numbers are flushed"
    assert torch.get_default_dtype() == torch.float32
    # Whatever the program has set, the values are those of the command, and what was set stays so.
    torch.set_default_dtype(torch.float64)
    try:
        assert measured(model, text).rows.value.tolist() == usual
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert measured(model, text).rows.value.tolist() == usual
        assert torch.is_autocast_enabled("cpu")
    with torch.no_grad():
        assert measured(model, text).rows.value.tolist() == usual
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert measured(Bigram(), text).rows.status.eq("ok").all()
    with denormals_as_zero():
        assert measured(model, text).rows.value.tolist() == usual
        assert torch.full((1,), 1e-39).mul(1.0).count_nonzero() == 0


def test_random_numbers_of_python_go_on_too():
    """By itself, since what checks annotations in these tests draws from them as well."""
    before = random.getstate()
    with left_alone(torch.device("cpu")):
        random.random()
    assert random.getstate() == before


def test_a_program_may_have_its_tensors_elsewhere(text: Path):
    class Where(Bigram):
        found: list[str] = []

        def forward(self, tokens: Tensor) -> Tensor:
            self.found.append(torch.get_default_device().type)
            return super().forward(tokens)

    model = Where()
    before = snapshot(model)
    with torch.device("meta"):
        run = measured(model, text)
        assert torch.get_default_device().type == "meta"
    unchanged(before, snapshot(model))
    assert set(Where.found) == {"meta"} and run.rows.value.tolist() == measured(Bigram(), text).rows.value.tolist()


def test_a_measurement_between_a_pass_and_its_gradient_spoils_nothing(text: Path):
    model = trained()
    model.drop.p = 0.0
    model.scale.requires_grad_(False)

    def gradient(measure: bool) -> Tensor:
        model.zero_grad()
        loss = model(torch.arange(40).reshape(2, 20)).square().mean()
        if measure:
            measured(model, text)
        loss.backward()
        found = model.embed.weight.grad
        assert found is not None
        return found.clone()

    assert torch.equal(gradient(False), gradient(True))


def test_what_a_module_keeps_of_its_first_pass_can_be_trained_with(text: Path):
    class Deep(Bigram):
        """Its cache is in an object that nobody looks into."""

        def __init__(self) -> None:
            super().__init__()
            self.cache = type("Cache", (), {"ones": None})()

        def forward(self, tokens: Tensor) -> Tensor:
            if self.cache.ones is None:
                self.cache.ones = torch.ones(SYMBOLS)
            return super().forward(tokens) * self.cache.ones

    model = Deep()
    measured(model, text)
    model(torch.arange(6).reshape(1, 6)).sum().backward()
    assert model.table.grad is not None


class Merging(nn.Module):
    """As LoRA's layers do: in evaluation mode the small matrix is part of the large one."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.small = Bigram().table, nn.Parameter(torch.eye(SYMBOLS))
        self.merged = False

    def train(self, mode: bool = True) -> "Merging":
        super().train(mode)
        if mode == self.merged:
            self.table.data = self.table.data + self.small.data * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.table if self.merged else self.table + self.small)[tokens]


def test_modes_are_changed_by_the_module_itself(text: Path):
    model = nn.ModuleDict({"inner": Merging()})
    model.forward = lambda tokens: model["inner"](tokens)  # pyright: ignore[reportAttributeAccessIssue]
    table = model["inner"].table.detach().clone()
    run = measured({"own": model}, text)
    inner = model["inner"]
    assert inner.training and not inner.merged
    torch.testing.assert_close(inner.table.detach(), table, rtol=0, atol=1e-6)
    assert run.rows.status.eq("ok").all()


@pytest.mark.parametrize("asked", [{}, {"dtype": "bfloat16"}])
def test_what_does_not_suit_is_copied(asked: dict[str, Any], text: Path):
    model = Bigram().double()
    before = snapshot(model)
    run = measured({"own": model}, text, **asked)
    unchanged(before, snapshot(model))
    assert set(run.rows.dtype) == {asked.get("dtype", "float32")} and run.rows.status.eq("ok").all()
    half = Bigram().bfloat16()
    assert set(measured(half, text).rows.dtype) == {"bfloat16"} and half.table.dtype == torch.bfloat16
    both = measured({"a": half, "b": Bigram()}, text)
    assert set(both.rows.dtype) == {"float32"} and half.table.dtype == torch.bfloat16


def test_what_cannot_be_copied_says_so(text: Path):
    class Locked(Bigram):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    assert measured(Locked(), text).rows.status.eq("ok").all()
    with pytest.raises(CodeError, match=r"has to be copied for cpu in bfloat16, and cannot be: TypeError"):
        measured(Locked(), text, dtype="bfloat16")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_whatever_is_raised_everything_is_put_back(error: type[BaseException], text: Path):
    class Raises(Trained):
        fails = False

        def forward(self, tokens: Tensor) -> Tensor:
            found = super().forward(tokens)
            if tokens.shape[1] > 40:
                raise error("stop")
            return found

    torch.default_generator.manual_seed(2)
    model = Raises()
    model.norm.eval()
    before, numbers = snapshot(model), torch.get_rng_state()
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            measured(model, text)
    else:
        rows = measured(model, text).rows
        assert rows[rows.length == 32].status.eq("ok").all() and rows[rows.length == 64].status.eq("failed").all()
    unchanged(before, snapshot(model), ("scale",))
    assert torch.equal(torch.get_rng_state(), numbers)


def test_models_with_other_weights_are_other_runs_and_equal_ones_go_on(text: Path, tmp_path: Path):
    model = Bigram()
    first = measured({"own": model}, text, out=tmp_path / "first")
    again = measured({"own": Bigram()}, text, out=tmp_path / "first")
    assert again.rows.equals(first.rows) and any("already holds 2 of 2" in note for note in again.notes)
    model.table.data[0, 0] += 1
    assert measured({"own": model}, text).provenance["run"] != first.provenance["run"]
    vars(model)["window"] = 3
    assert measured({"own": model}, text).provenance["run"] != first.provenance["run"]
