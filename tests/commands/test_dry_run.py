"""What a command would do, told without doing it: every kind of run, by its flags and by a spec file."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.cli.help_pages import examples_of
from lpe_eval.measure.che_plan import PlannedCell, plan_cells
from lpe_eval.registry import KINDS
from lpe_eval.spec import che_spec
from lpe_eval.spec.che_spec import CheSpec, read_protocol
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.train import estimate
from lpe_eval.train.problem import ProblemTrainer
from lpe_eval.train.text import Trainer
from tests.support.native_checkpoints import checkpoint

SHAPE = ("--width", "16", "--layers", "1", "--heads", "2")
TRAIN = ("train", "--encoding", "alibi", "--data", "books", "--steps", "40", "--train-length", "32",
         "--batch-tokens", "64", "--device", "cpu", *SHAPE)  # fmt: skip
FLAGS: dict[str, tuple[str, ...]] = {
    "ppl": ("ppl", "-m", "tiny", "--data", "books", "--lengths", "16,32", "--max-tokens", "300", "--device", "cpu"),
    "che": ("che", "-m", "rope", "--tasks", "parity_check", "--lengths", "20", "--samples", "4", "--device", "cpu"),
    "recall": ("recall", "-m", "tiny", "--data", "books", "--tests", "repeat", "--lengths", "128,256",
               "--repeat-tokens", "1024", "--device", "cpu"),
    "speed": ("speed", "--encoding", "alibi", "--lengths", "16", "--mode", "forward", "--device", "cpu", *SHAPE),
    "train": TRAIN,
    "study": (*TRAIN, "--seeds", "1,2"),
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "tiny")
    for split in ("train", "valid", "test"):
        Path("books", split).mkdir(parents=True)
        Path("books", split, "a.txt").write_text("hello world, hello moon. " * 60)
    return tmp_path


def said(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def tree(home: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in home.rglob("*") if "__pycache__" not in path.parts}


def test_every_kind_is_tried_here():
    assert sorted(FLAGS) == KINDS.names()


@pytest.mark.parametrize("kind", FLAGS)
def test_it_says_about_how_long_and_writes_nothing(home: Path, kind: str):
    before = tree(home)
    shown = said(*FLAGS[kind], "--dry-run")
    assert "planned" in shown and "about" in shown
    assert tree(home) == before
    assert "note: tiny" not in said(*FLAGS[kind], "--dry-run", "-q")


@pytest.mark.parametrize("kind", [kind for kind in FLAGS if kind not in ("speed", "study")])
def test_the_spec_of_a_run_is_foreseen_too(home: Path, kind: str):
    fields: dict[str, dict[str, Any]] = {
        "ppl": {
            "kind": "ppl", "models": ["tiny"], "corpus": "books", "protocols": [{"name": "nonoverlap"}],
            "lengths": [16], "max_tokens": 100, "device": "cpu",
        },
        "che": {"kind": "che", "models": ["rope"], "tasks": ["parity_check"], "lengths": [20], "samples": 4},
        "recall": {
            "kind": "recall", "models": ["tiny"], "corpus": "books", "tests": ["repeat"], "lengths": [128],
            "repeat_tokens": 1024,
        },
        "train": {
            "kind": "train", "name": "mine", "corpus": "books", "steps": 4, "batch_tokens": 64,
            "model": {"encoding": "alibi", "width": 16, "layers": 1, "heads": 2, "train_length": 32},
        },
    }  # fmt: skip
    Path("spec.yaml").write_text(yaml.safe_dump(fields[kind]))
    before = tree(home)
    assert "about" in said("run", "spec.yaml", "--dry-run")
    assert tree(home) == before


def test_what_cannot_be_is_told_as_a_run_would(home: Path):
    assert "did you mean alibi" in said("train", "--encoding", "alibbi", "--dry-run", code=2)
    assert "no corpus" in said(*TRAIN[:3], "--data", "nothing", "--dry-run", code=2)
    assert "no such device" in said("che", "--device", "tpu9", "--dry-run", code=2)
    assert "cannot compute alibi" in said(*FLAGS["speed"], "--attention", "sdpa", "--dry-run", code=2)
    assert "no corpus" in said("ppl", "--data", "nothing", "--dry-run", code=2)


def test_the_examples_of_the_help_pages_that_ask_can_be_asked(home: Path):
    Path("mine.py").write_text(
        "import torch\n\n\nclass Model(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.table = torch.nn.Embedding(258, 258)\n\n    def forward(self, tokens):\n"
        "        return self.table(tokens)\n\n\ndef make():\n    return Model()\n"
    )
    study = {
        "kind": "study", "name": "small", "encodings": {"a": "alibi"},
        "recipe": {
            "model": {"width": 16, "layers": 1, "heads": 2, "train_length": 16}, "corpus": "books", "steps": 2,
            "batch_tokens": 64,
        },
    }  # fmt: skip
    Path("study.yaml").write_text(yaml.safe_dump(study))
    asked = [typed for name in ("ppl", "run", "train") for _, typed in examples_of(name) if "--dry-run" in typed]
    assert len(asked) == 3
    small = {"ppl": ["--data", "books", "--lengths", "16", "--max-tokens", "100"], "train": [*SHAPE, "--steps", "2"]}
    before = tree(home)
    for typed in asked:
        _, name, *arguments = shlex.split(typed)
        assert "about" in said(name, *arguments, *small.get(name, []))
    assert tree(home) == before


class Clock:
    """Seconds that pass where somebody says so."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(estimate, "time", found)
    return found


def test_a_training_takes_its_steps_and_a_third_of_a_step_for_each_token_of_a_validation(clock, monkeypatch):
    step = Trainer._train_step

    def slow(self: Trainer) -> tuple[float, float]:
        # The first step of all is slower.
        clock.now += 1e-3 * self.spec.batch_tokens * (100 if self.step == 0 else 1)
        return step(self)

    monkeypatch.setattr(Trainer, "_train_step", slow)
    spec = TrainSpec.model_validate({
        "name": "mine", "corpus": "python-stdlib", "steps": 250, "batch_tokens": 4096, "validate_every": 100,
        "validation_tokens": 3000,
        "model": {"encoding": "alibi", "width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "train_length": 32},
    })  # fmt: skip
    seconds = estimate.seconds_of_training(spec, torch.device("cpu"))
    assert seconds == pytest.approx(1e-3 * (250 * 4096 + 3 * 3000 / 3))


def test_a_problem_takes_its_steps_with_all_runs_and_its_scoring(clock, monkeypatch):
    spec = CheSpec.model_validate({
        "encodings": ["alibi"], "protocol": read_protocol("smoke").model_dump(mode="json"), "tasks": ["parity_check"],
    })  # fmt: skip
    cells = plan_cells(spec)

    def asked(cell: PlannedCell) -> che_spec.TestSet:
        return che_spec.TestSet((10, 20), 5, 5, 0, False)

    made = ProblemTrainer.__init__

    def slow(self: ProblemTrainer, *given: Any) -> None:
        made(self, *given)
        taken = self.stack.step

        def step(tokens: Any, *more: Any) -> Any:
            clock.now += 1e-3 * tokens.numel()
            return taken(tokens, *more)

        self.stack.step = step

    monkeypatch.setattr(ProblemTrainer, "__init__", slow)
    protocol = cells[0].protocol
    seconds = estimate.seconds_to_train_on(cells, asked, torch.device("cpu"))
    mean = (protocol.train_lengths[0] + protocol.train_lengths[1]) // 2
    # Every string has one place for its answer.
    read = protocol.steps * protocol.batch * (mean + 1) + 5 * (11 + 21) / 3
    assert seconds == pytest.approx(1e-3 * read)
