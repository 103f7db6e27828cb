"""What every kind of run has in common, tried on folders that the real commands made."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.registry import KINDS
from lpe_eval.report.folders.provenance import read_provenance
from tests.support.page_reader import PageReader
from tests.support.warm import Warm, warm

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BASELINES = sorted(path for path in (ROOT / "results" / "baselines").iterdir() if path.is_dir())
SHAPE = ("--width", "16", "--layers", "1", "--heads", "2")
STUDY = {
    "kind": "study", "name": "two", "encodings": {"first": "alibi", "second": "rope"},
    "recipe": {
        "model": {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "train_length": 32},
        "corpus": {"name": "local", "path": "text"}, "steps": 2, "batch_tokens": 64, "warmup_steps": 0,
    },
}  # fmt: skip
COMMANDS: dict[str, tuple[str, ...]] = {
    "ppl": ("ppl", "-m", "alibi", "--data", "text/test.txt", "--lengths", "32", "--max-tokens", "300"),
    "che": ("che", "-m", "rope", "--tasks", "parity_check,even_pairs", "--lengths", "20,30", "--samples", "4"),
    "recall": (
        *("recall", "-m", "alibi", "--data", "text/test.txt", "--lengths", "128"),
        *("--prompts", "2", "--repeat-tokens", "128"),
    ),
    "speed": ("speed", "--encoding", "alibi", "--lengths", "16", "--mode", "forward", *SHAPE),
    "train": (
        *("train", "--encoding", "alibi", "--corpus", "text", "--steps", "3", "--train-length", "32"),
        *("--batch-tokens", "64", *SHAPE),
    ),
    "study": ("run", "study.yaml", "--jobs", "1"),
}
EVERY_PROVENANCE = {"kind", "run", "models", "seeds", "dtype", "attention", "environment", "starts"}


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("warm")) as helper:
        yield helper


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, processes: Warm) -> Path:
    """A folder with a text and a study's spec, and one run of each kind."""
    home = tmp_path_factory.mktemp("home")
    (home / "text").mkdir()
    for split in ("train", "valid", "test"):
        (home / "text" / f"{split}.txt").write_text(" ".join(f"word{(each * each) % 91}" for each in range(300)))
    (home / "study.yaml").write_text(yaml.safe_dump(STUDY))
    for kind, command in COMMANDS.items():
        done = processes.run([*command, "--out", kind, "--quiet"], home)
        assert done.code == 0, done.stdout + done.stderr
    return home


def lpe_eval(*arguments: object) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def test_no_kind_is_left_out():
    assert sorted(COMMANDS) == KINDS.names()
    assert [path.name for path in BASELINES] == ["released", "released-che"]


@pytest.mark.parametrize("kind", COMMANDS)
def test_its_folder_is_shown_and_cited(home: Path, kind: str):
    shown = lpe_eval("show", home / kind)
    known = read_provenance(home / kind)
    for part in (KINDS.load(kind).title, known["run"], "libraries", "started", "seeds"):
        assert part in shown, part
    cited = lpe_eval("show", home / kind, "--cite")
    assert "@misc{lpe_eval," in cited and ("press2021alibi" in cited or (kind == "che" and "su2021roformer" in cited))
    assert lpe_eval("show", home / kind, "--spec") == (home / kind / "spec.yaml").read_text()


@pytest.mark.parametrize("kind", COMMANDS)
def test_its_values_come_in_every_form(home: Path, kind: str):
    stored = [*csv.DictReader(io.StringIO(lpe_eval("show", home / kind, "--format", "csv")))]
    rows = json.loads(lpe_eval("show", home / kind, "--format", "json"))
    assert len(rows) == len(stored) > 0 and all(
        row.keys() == line.keys() for row, line in zip(rows, stored, strict=True)
    )
    file = {"ppl": "rows.csv", "train": "training.csv"}.get(kind, f"{kind}.csv")
    if kind != "study":
        assert lpe_eval("show", home / kind, "--format", "csv") == (home / kind / file).read_text()
    assert "| --- |" in lpe_eval("show", home / kind, "--format", "markdown")
    latex = lpe_eval("show", home / kind, "--format", "latex", "--error-digits", "2")
    assert "\\toprule" in latex and latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") > 0
    first, second = list(stored[0])[:2]
    chosen = lpe_eval("show", home / kind, "--format", "csv", "--columns", f"{second},{first}")
    assert chosen.splitlines()[1] == f"{stored[0][second]},{stored[0][first]}"
    assert lpe_eval("show", home / kind, "--format", "table").strip()


@pytest.mark.parametrize("kind", COMMANDS)
def test_it_has_a_page(home: Path, kind: str, tmp_path: Path):
    pytest.importorskip("vl_convert", reason="the extra `report` is not installed")
    lpe_eval("report", home / kind, "--out", tmp_path / "page.html")
    found = PageReader((tmp_path / "page.html").read_text(encoding="utf-8"))
    text = "".join(found.texts)
    for part in (read_provenance(home / kind)["run"], "Cost", "Provenance", "@misc{lpe_eval,"):
        assert part in text, part
    drawn = len(found.data) + sum("heat" in str(at.get("class")) for _, at in found.tags)
    assert (drawn > 0) == (kind not in ("train", "study"))


@pytest.mark.parametrize("kind", COMMANDS)
def test_its_provenance_has_the_one_shape(home: Path, kind: str):
    known = json.loads((home / kind / "provenance.json").read_text())
    assert known.keys() >= EVERY_PROVENANCE and known["kind"] == kind
    assert known["models"] and all(isinstance(facts, dict) for facts in known["models"].values())
    assert isinstance(known["attention"], list) and isinstance(known["seeds"], dict)
    assert known["starts"][-1]["seconds"] >= 0 and known["starts"][-1]["argv"][0] == "lpe-eval"
    marker = json.loads((home / kind / "run.json").read_text())
    assert marker == {"kind": kind, "run": known["run"], "schema": 1}


@pytest.mark.parametrize("folder", BASELINES, ids=lambda path: path.name)
def test_every_baseline_that_ships_is_shown_and_cited(folder: Path):
    shown = lpe_eval("show", folder)
    known = read_provenance(folder)
    assert known["run"] in shown and all(name in shown for name in known["models"])
    assert "@misc{lpe_eval," in lpe_eval("show", folder, "--cite")


@pytest.mark.parametrize("kind", COMMANDS)
def test_an_argument_that_is_not_utf8_ends_in_no_traceback(processes: Warm, home: Path, kind: str, tmp_path: Path):
    shutil.copytree(home / "text", tmp_path / "text")
    shutil.copy(home / "study.yaml", tmp_path)
    out = os.fsdecode(b"out-\xff")
    done = processes.run([*COMMANDS[kind], "--out", out, "--quiet"], tmp_path)
    assert done.code == 0, done.stdout + done.stderr
    assert read_provenance(tmp_path / out)["starts"][0]["argv"][-2] == out
    assert "Traceback" not in processes.run(["show", out], tmp_path).stderr


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_start_that_goes_on_keeps_the_starts_before_it(processes: Warm, home: Path, kind: str, tmp_path: Path):
    shutil.copytree(home, tmp_path / "home")
    folder = tmp_path / "home" / kind
    # What a kill at some moment leaves: of a training no checkpoint, of the others a unit less.
    gone = {"speed": "speed.csv", "train": "model.safetensors", "study": "first/model.safetensors"}
    (folder / gone[kind] if kind in gone else next(folder.glob("cells/*.json"))).unlink()
    done = processes.run([*COMMANDS[kind], "--out", kind, "--quiet"], tmp_path / "home")
    assert done.code == 0, done.stdout + done.stderr
    assert len(read_provenance(folder)["starts"]) == 2
    if kind != "speed":
        tables = ("rows.csv", "che.csv", "recall.csv", "effective_length.csv")
        for table in (*tables, "model.safetensors", "first/model.safetensors"):
            if (home / kind / table).exists():
                assert (folder / table).read_bytes() == (home / kind / table).read_bytes()


@pytest.mark.parametrize("kind", [kind for kind in COMMANDS if kind != "study"])
def test_somebody_elses_folder_is_never_written_to(processes: Warm, home: Path, kind: str, tmp_path: Path):
    shutil.copytree(home / "text", tmp_path / "text")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")
    for more in ((), ("--overwrite",)):
        done = processes.run([*COMMANDS[kind], "--out", "thesis", "--quiet", *more], tmp_path)
        assert done.code == 1 and "holds files that are no run (thesis.tex)" in " ".join(done.stderr.split())
        assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]


def test_what_a_run_has_in_it_beside_its_own_files_is_kept_when_it_is_discarded(
    processes: Warm, home: Path, tmp_path: Path
):
    shutil.copytree(home, tmp_path / "home")
    for kind in ("ppl", "che", "recall", "speed", "train"):
        (tmp_path / "home" / kind / "notes.txt").write_text("mine")
        done = processes.run([*COMMANDS[kind], "--out", kind, "--quiet", "--overwrite"], tmp_path / "home")
        assert done.code == 0, done.stdout + done.stderr
        assert (tmp_path / "home" / kind / "notes.txt").read_text() == "mine"
        assert len(read_provenance(tmp_path / "home" / kind)["starts"]) == 1


@pytest.mark.parametrize("kind", ["speed", "train"])
def test_a_folder_that_an_earlier_version_wrote_without_a_marker_goes_on(
    processes: Warm, home: Path, kind: str, tmp_path: Path
):
    shutil.copytree(home, tmp_path / "home")
    folder = tmp_path / "home" / kind
    (folder / "run.json").unlink()
    assert KINDS.load(kind).title in lpe_eval("show", folder)
    done = processes.run([*COMMANDS[kind], "--out", kind, "--quiet"], tmp_path / "home")
    assert done.code == 0 and (folder / "run.json").exists(), done.stdout + done.stderr
    (folder / "run.json").unlink()
    other = [*COMMANDS[kind], "--width", "32"]
    done = processes.run([*other, "--out", kind, "--quiet"], tmp_path / "home")
    assert done.code == 1 and "holds another run" in " ".join(done.stderr.split())
