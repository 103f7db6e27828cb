"""What somebody else's encoding or problem raises costs the cells that need it, and the others go on."""

import csv
import importlib.metadata
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lpe_eval import registry
from lpe_eval.cli import app
from lpe_eval.commands import speed
from lpe_eval.commands.che import run_spec
from lpe_eval.data.problem import Problem, all_count, open_problem, uniform_tokens
from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.windows import plan, resolve
from lpe_eval.errors import LengthError, SpecError, one_sentence
from lpe_eval.measure.by_length import Plan, measure
from lpe_eval.measure.determinism import deterministic
from lpe_eval.measure.peak import Peak
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.transformer import Transformer
from lpe_eval.model.transformer_model import TransformerModel
from lpe_eval.run import Outcome, Settings
from lpe_eval.spec.che_spec import CheProtocol, CheSpec, read_protocol
from lpe_eval.spec.fingerprint import spec_text
from lpe_eval.spec.model_spec import CheckpointSpec, ModelSpec
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.spec.speed_spec import SpeedSpec
from lpe_eval.table import CellKey, Facts, Measurement

CPU = torch.device("cpu")
FACTS = Facts("moody", 16, "custom", 0, "test", "test", 0, "float32", "cpu")


class Moody(Encoding):
    """No encoding; raises what it is told to, beyond some tokens."""

    title = "Moody"
    paper = "none: a test"
    raised: Exception | None = None
    beyond = 0

    def bias_by_offset(self, offset):
        if self.raised is not None and len(offset) > self.beyond:
            raise self.raised
        return torch.zeros(self.geometry.heads, len(offset))


class Broken(Problem):
    """Draws, and cannot solve."""

    title, level, input_size, classes = "Broken", "regular", 2, 2

    @classmethod
    def draw(cls, batch, length, generator, device):
        return uniform_tokens(batch, length, 2, generator, device)

    @classmethod
    def solve(cls, inputs):
        raise KeyError("the key")


class Silent(Problem):
    """Does not say of which level it is."""

    title, input_size, classes = "Silent", 2, 2

    @classmethod
    def draw(cls, batch, length, generator, device):
        return uniform_tokens(batch, length, 2, generator, device)

    @classmethod
    def solve(cls, inputs):
        return all_count(inputs)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a package of somebody else were installed."""
    module = ModuleType("somebody")
    members = {"moody": Moody, "broken": Broken, "silent": Silent}
    for name, member in members.items():
        setattr(module, member.__name__, member)
        monkeypatch.setattr(member, "__module__", f"somebody.{name}")
    monkeypatch.setitem(sys.modules, "somebody", module)
    points = {
        "lpe_eval.encodings": ["moody"],
        "lpe_eval.problems": ["broken", "silent"],
    }
    monkeypatch.setattr(
        registry,
        "_entry_points",
        lambda group: tuple(
            importlib.metadata.EntryPoint(name, f"somebody:{members[name].__name__}", group)
            for name in points.get(group, [])
        ),
    )


def small() -> CheProtocol:
    fields = {"steps": 4, "check_every": 2, "batch": 4, "samples": 8, "check_samples": 8, "width": 16, "heads": 2}
    return CheProtocol.model_validate({**read_protocol("smoke").model_dump(), **fields, "name": "small"})


@contextmanager
def no_bar(total: int, unit: str):
    yield lambda done, description=None: None


def trained(out: Path, encodings: list[str], tasks: list[str]) -> Outcome:
    spec = CheSpec.model_validate({"encodings": encodings, "tasks": tasks, "protocol": small().model_dump()})
    return run_spec(spec, Settings(out, False, no_bar, lambda sentence: None))


def command(*flags: object):
    return CliRunner().invoke(app, ["che", *map(str, flags)], env={"COLUMNS": "400"})


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def statuses(rows: list[dict[str, str]], column: str) -> dict[str, set[str]]:
    return {name: {row["status"] for row in rows if row[column] == name} for name in {row[column] for row in rows}}


def test_an_encoding_that_raises_fails_its_own_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Moody, "raised", ZeroDivisionError("nothing to divide by\nand a second line"))
    tasks = ["even_pairs", "parity_check"]
    outcome = trained(tmp_path, ["moody", "rope"], tasks)
    note = "ZeroDivisionError: nothing to divide by"
    assert outcome.failed.startswith(f"there is no value for moody on {tasks[0]}: {note}")
    assert f"{len(tasks) - 1} more" in outcome.failed
    rows = lines(tmp_path / "che.csv")
    assert statuses(rows, "encoding") == {"moody": {"failed"}, "rope": {"ok"}}
    assert {row["note"] for row in rows if row["encoding"] == "moody"} == {note}
    assert {row["length"] for row in rows if row["encoding"] == "moody"} == {"8", "9", "12", "16"}
    # A cell that failed is made again, with what was repaired.
    monkeypatch.setattr(Moody, "raised", None)
    assert trained(tmp_path, ["moody", "rope"], tasks).failed == ""
    assert statuses(lines(tmp_path / "che.csv"), "encoding") == {"moody": {"ok"}, "rope": {"ok"}}


def test_the_command_says_the_sentence_and_exits_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Moody, "raised", RuntimeError("a kernel of somebody"))
    (tmp_path / "small.yaml").write_text(spec_text(small()))
    flags = ("--train", "--protocol", tmp_path / "small.yaml", "--tasks", "even_pairs", "-q")
    result = command(*flags, "--encoding", "moody,rope", "--out", tmp_path / "out")
    assert result.exit_code == 4, result.output
    said = "there is no value for moody on even_pairs: RuntimeError: a kernel of somebody"
    assert said in " ".join(result.output.split())


def test_stored_encoders_that_raise_fail_their_own_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained(tmp_path / "run", ["moody", "rope"], ["even_pairs"])
    for raised, note in ((AssertionError(), "AssertionError"), (MemoryError("no more"), "out of memory")):
        monkeypatch.setattr(Moody, "raised", raised)
        result = command("-m", tmp_path / "run", "--out", tmp_path / note[:6], "-q")
        assert result.exit_code == 4, result.output
        rows = lines(tmp_path / note[:6] / "che.csv")
        assert statuses(rows, "model") == {"moody": {"failed"}, "rope": {"ok"}}
        assert {row["note"] for row in rows if row["model"] == "moody"} == {note}


@pytest.mark.parametrize("beyond", [0, 5])
def test_an_encoding_that_raises_while_it_is_timed_fails_its_own_case(
    beyond: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Memory is measured in a process of its own, which does not know the encodings of a test.
    monkeypatch.setattr(speed, "peak_of", lambda case, device: Peak(1.0))
    monkeypatch.setattr(Moody, "raised", ZeroDivisionError("nothing to divide by"))
    monkeypatch.setattr(Moody, "beyond", beyond)
    fields = {"encodings": ["moody", "rope"], "lengths": [16], "width": 16, "layers": 1, "heads": 2}
    spec = SpeedSpec.model_validate({**fields, "batch_tokens": 16, "rounds": 5, "modes": ["forward", "train"]})
    outcome = speed.run_spec(spec, Settings(tmp_path, False, no_bar, lambda sentence: None))
    assert outcome.failed.startswith("2 of the cases")
    rows = lines(tmp_path / "speed.csv")
    assert statuses(rows, "encoding") == {"plain": {"ok"}, "moody": {"failed"}, "rope": {"ok"}}
    assert {row["note"] for row in rows if row["encoding"] == "moody"} == {"ZeroDivisionError: nothing to divide by"}


def test_a_problem_that_raises_fails_its_own_cells(tmp_path: Path):
    outcome = trained(tmp_path, ["rope", "alibi"], ["broken", "even_pairs"])
    assert outcome.failed.startswith("there is no value for rope on broken: KeyError: 'the key'; 1 more")
    assert statuses(lines(tmp_path / "che.csv"), "task") == {"broken": {"failed"}, "even_pairs": {"ok"}}


def test_a_problem_that_does_not_say_what_it_must_is_refused_before_anything_is_made(tmp_path: Path):
    with pytest.raises(SpecError, match="'silent' does not say its level"):
        open_problem("silent")
    with pytest.raises(SpecError, match="does not say its level"):
        trained(tmp_path / "run", ["rope"], ["even_pairs", "silent"])
    assert not (tmp_path / "run").exists()


def moody_model() -> TransformerModel:
    spec = ModelSpec.model_validate(
        {"encoding": "moody", "vocab_size": 7, "width": 16, "layers": 1, "heads": 2, "train_length": 16}
    )
    model = Transformer(spec, "dense")
    model.initialise(torch.Generator().manual_seed(0))
    options = LoadOptions(CPU, torch.float32, "dense")
    return TransformerModel(model, CheckpointSpec(schema=1, name="m", model=spec), "", options, "native")


def by_length(advanced: list[int]) -> list[Measurement]:
    """At 8, 16 and 32 tokens."""
    tokens = np.random.default_rng(0).integers(0, 7, 203)
    document = EncodedDocument("d", "digest", tokens, np.ones_like(tokens))
    protocol = resolve(ProtocolSpec(name="nonoverlap"), (8, 32))
    plans = [
        Plan(length, {CellKey("m", "nonoverlap", length, length): plan(protocol, length, [203], "never", "score", 32)})
        for length in (8, 16, 32)
    ]
    found = measure(
        moody_model(), [document], plans, FACTS, bos_id=None, batch_tokens=64, seed=0, advance=advanced.append
    )
    return list(found)


def test_an_encoding_that_raises_at_one_length_costs_that_length(monkeypatch: pytest.MonkeyPatch):
    whole: list[int] = []
    expected = by_length(whole)
    assert [each.status for each in expected] == ["ok", "ok", "ok"]
    # Offsets of n tokens are 2n - 1 at most; only the longest length has more than 31.
    monkeypatch.setattr(Moody, "raised", IndexError("position 31 is out of range"))
    monkeypatch.setattr(Moody, "beyond", 31)
    advanced: list[int] = []
    short, middle, long = by_length(advanced)
    assert [each.blocks for each in (short, middle)] == [each.blocks for each in expected[:2]]
    assert (long.status, long.note, long.blocks) == ("failed", "IndexError: position 31 is out of range", ())
    assert sum(advanced) == sum(whole)


def test_a_step_that_has_no_deterministic_form_still_ends_a_run_that_demands_one(monkeypatch: pytest.MonkeyPatch):
    message = "put_ does not have a deterministic implementation. More."
    monkeypatch.setattr(Moody, "raised", RuntimeError(message))
    with pytest.raises(SpecError, match="--deterministic: put_ does not have"), deterministic(True):
        by_length([])
    assert [each.note for each in by_length([])] == [f"RuntimeError: {message}"] * 3


def test_the_sentence_of_an_error():
    assert one_sentence(LengthError("too long\nmore")) == "too long"
    assert one_sentence(ValueError("\n  bad \n more")) == "ValueError: bad"
    assert one_sentence(AssertionError()) == "AssertionError"
