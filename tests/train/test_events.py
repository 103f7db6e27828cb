"""A training as a stream of events: what they bring, and that it goes on from any of them as if never stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from lpe_eval.commands.che import run_spec
from lpe_eval.data.problem import open_problem
from lpe_eval.errors import OutputError
from lpe_eval.measure.che_plan import PlannedCell, plan_cells
from lpe_eval.measure.problem_rows import cell_row
from lpe_eval.run import Settings
from lpe_eval.spec.che_spec import CheProtocol, CheSpec, read_protocol
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.train import encoders
from lpe_eval.train.encoders import Trained, Validated, train_encoders
from lpe_eval.train.problem import ProblemTrainer
from lpe_eval.train.snapshot import SnapshotError, opened_snapshot, snapshot_of
from lpe_eval.train.text import Trainer, train_text

CPU = torch.device("cpu")
TEXT = torch.from_numpy(np.random.default_rng(0).integers(0, 257, 3000)).to(torch.int32)


def small(**changes) -> CheProtocol:
    fields = {"steps": 6, "check_every": 2, "batch": 4, "samples": 8, "check_samples": 8, "width": 16, "heads": 2}
    return CheProtocol.model_validate({**read_protocol("smoke").model_dump(), **fields, **changes})


def asked(**protocol) -> CheSpec:
    fields = {"encodings": ["kerple_log"], "tasks": ["even_pairs"], "protocol": small(**protocol).model_dump()}
    return CheSpec.model_validate({**fields, "device": "cpu"})


def events(spec: CheSpec, saved=None, advanced: list[int] | None = None) -> Iterator[Validated | Trained]:
    (cell,) = plan_cells(spec)
    test = spec.test_set(cell.protocol, cell.task.problem.shortest_length)
    steps = [] if advanced is None else advanced
    yield from train_encoders(
        cell, cell_row(cell, "x", CPU), test, device=CPU, keep_dropout=False, saved=saved,
        advance=lambda done, description=None: steps.append(done),
    )  # fmt: skip


def test_each_validation_is_an_event_and_the_last_event_is_the_end():
    spec, advanced = asked(), []
    *before, trained = events(spec, advanced=advanced)
    validated = [event for event in before if isinstance(event, Validated)]
    assert len(validated) == len(before)
    assert [event.validation.step for event in validated] == [2, 4, 6]
    assert isinstance(trained, Trained)
    assert sum(advanced) == 6
    (cell,) = plan_cells(spec)
    alone = ProblemTrainer(cell.task.problem, cell.encoding, small(), CPU)
    found = list(alone.run(lambda done: None))
    assert [event.validation for event in validated] == found
    rows = [
        ["kerple_log", "even_pairs", index, seed, 0.003, each.step, train, held_out, accuracy]
        for each in found
        for index, (seed, train, held_out, accuracy) in enumerate(
            zip((1, 2), each.train_nll_nats, each.nll_nats, each.accuracy, strict=True)
        )
    ]
    assert trained.log == validated[-1].log == rows
    assert [event.log for event in validated] == [rows[:2], rows[:4], rows]
    kept = alone.models[trained.chosen.run_index].state_dict()
    for name, weight in load(trained.weights).items():
        assert torch.equal(weight, kept[name]), name


def test_a_snapshot_comes_when_one_is_due_and_never_at_the_end(monkeypatch: pytest.MonkeyPatch):
    assert [event.snapshot for event in events(asked()) if isinstance(event, Validated)] == [None] * 3
    monkeypatch.setattr(encoders, "_SECONDS_BETWEEN_SNAPSHOTS", -1.0)
    given = [event.snapshot is not None for event in events(asked()) if isinstance(event, Validated)]
    assert given == [True, True, False]


def test_training_goes_on_from_any_snapshot_to_the_same_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoders, "_SECONDS_BETWEEN_SNAPSHOTS", -1.0)
    spec = asked(dropout=0.1)
    *validated, whole = events(spec)
    for event, left in zip(validated[:2], (4, 2), strict=True):
        assert isinstance(event, Validated) and event.snapshot is not None
        advanced: list[int] = []
        *later, end = events(spec, (event.log, event.snapshot), advanced)
        assert end == whole
        assert later == validated[-len(later) :] and len(later) == left // 2
        assert (advanced[0], sum(advanced)) == (6 - left, 6)
    *again, end = events(spec, ([["a log"]], b"damaged"))
    assert end == whole and len(again) == 3


def test_what_the_disk_refuses_ends_the_run_and_fails_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A cell that says `failed` would blame the encoding, and each of the others would train in vain."""
    monkeypatch.setattr(encoders, "_SECONDS_BETWEEN_SNAPSHOTS", -1.0)

    @contextmanager
    def bar(total: int, unit: str):
        snapshots = tmp_path / "snapshots"
        snapshots.rmdir()
        snapshots.write_text("a file in the way")
        yield lambda done, description=None: None

    with pytest.raises(OutputError, match="cannot write"):
        run_spec(asked(), Settings(tmp_path, False, bar, lambda sentence: None))
    assert not list((tmp_path / "cells").iterdir())


def test_text_is_logged_at_each_validation_and_goes_on_from_it():
    model = {"encoding": "alibi", "width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "train_length": 16}
    batches = {"batch_tokens": 64, "warmup_steps": 2, "validation_tokens": 64}
    fields = {"name": "small", "model": model, "corpus": "python-stdlib", "steps": 50, "validate_every": 30}
    spec = TrainSpec.model_validate({**fields, **batches})
    advanced: list[int] = []
    whole = Trainer(spec, TEXT, TEXT, CPU)
    logged = list(train_text(whole, 5.0, lambda done, description=None: advanced.append(done)))
    assert [event.row.step for event in logged] == [20, 30, 40, 50]
    assert [event.snapshot is not None for event in logged] == [False, True, False, False]
    assert [event.row.valid_nll_nats is not None for event in logged] == [False, True, False, True]
    assert all(event.row.seconds >= 5.0 for event in logged)
    assert sum(advanced) == 50
    steps = list(Trainer(spec, TEXT, TEXT, CPU).run())
    for event, some in zip(logged, (steps[:20], steps[20:30], steps[30:40], steps[40:]), strict=True):
        assert event.row.train_nll_nats == pytest.approx(sum(each.train_nll_nats for each in some) / len(some))
        assert event.row.learning_rate == some[-1].learning_rate
        assert event.row.valid_nll_nats == some[-1].valid_nll_nats
    resumed = Trainer(spec, TEXT, TEXT, CPU)
    assert logged[1].snapshot is not None
    resumed.restore(logged[1].snapshot)
    later = [event.row._replace(seconds=0) for event in train_text(resumed, 0.0, lambda done, description=None: None)]
    assert later == [event.row._replace(seconds=0) for event in logged[2:]]
    assert save(dict(resumed.model.state_dict())) == save(dict(whole.model.state_dict()))


def test_a_snapshot_is_read_back_or_refused():
    state = {"step": 3, "weights": torch.arange(4.0)}
    with opened_snapshot(snapshot_of(state), CPU) as found:
        assert found["step"] == 3 and torch.equal(found["weights"], state["weights"])
    for damaged in (b"", b"junk", snapshot_of(state)[:-40], snapshot_of({"step": 3})):
        with pytest.raises(SnapshotError), opened_snapshot(damaged, CPU) as found:
            found["weights"]
    with pytest.raises(KeyboardInterrupt), opened_snapshot(snapshot_of(state), CPU):
        raise KeyboardInterrupt


def test_a_cell_is_told_by_its_model_and_its_task():
    (cell,) = plan_cells(asked())
    assert isinstance(cell, PlannedCell)
    assert cell.title == "kerple_log on even_pairs"
    assert cell.task.problem is open_problem("even_pairs")


def test_the_bar_of_a_training_is_filled_where_it_is_solved_early():
    advanced: list[int] = []
    *_, trained = events(asked(steps=100, solved_at=0.01), advanced=advanced)
    assert isinstance(trained, Trained) and trained.chosen.steps == 2
    assert sum(advanced) == 100
