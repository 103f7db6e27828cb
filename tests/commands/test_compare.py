"""`lpe-eval compare` and `--baseline`: baselines on disk, through the real command line."""

import json
import math
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.commands.compare import compare, open_baselines, refuse_regression
from lpe_eval.errors import RegressionFound, SpecError
from lpe_eval.report.folders.ppl import read_run
from lpe_eval.report.gate.judge import Rules
from lpe_eval.spec.released import released_folder
from tests.support.native_checkpoints import checkpoint


def lpe_eval(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A directory with twelve documents in `text/`, none longer than a window and a half, and a run on them."""
    root = tmp_path_factory.mktemp("measured")
    (root / "text").mkdir()
    for number in range(12):
        words = " ".join(f"word{(number * 7 + each * each) % 91}" for each in range(7))
        (root / "text" / f"{number:02}.txt").write_text(words[:40])
    ppl(model, root / "run", "--data", root / "text")
    return root


@pytest.fixture
def here(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current directory."""
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ppl(model: Path, out: object, *more: object, code: int = 0) -> str:
    flags = ("--data", "text", "--lengths", "16,32", "--protocol", "nonoverlap", "--max-tokens", 900, "-q")
    return lpe_eval("ppl", "-m", model, *flags, "--out", out, *more, code=code)


def test_a_baseline_is_a_small_run_folder_that_every_command_reads(here):
    assert "results/baselines/mine" in lpe_eval("compare", "run", "--bless", "mine")
    folder = here / "results" / "baselines" / "mine"
    assert {each.name for each in folder.iterdir()} == {
        "rows.csv", "by_document.parquet", "provenance.json", "spec.yaml", "cost.csv", "by_position.parquet",
        "run.json",
    }  # fmt: skip
    for name in ("rows.csv", "by_document.parquet", "provenance.json"):
        assert (folder / name).read_bytes() == (here / "run" / name).read_bytes()
    assert len(read_run(folder).by_position) == 0
    assert "2 same" in lpe_eval("compare", "run", "--baseline", "mine")
    assert "2 same" in lpe_eval("compare", folder, "--baseline", "./run")
    lpe_eval("plot", folder, "--out", "figures")


def test_a_baseline_is_replaced_only_when_that_is_said_and_only_if_the_run_passes(here, tmp_path):
    lpe_eval("compare", "run", "--bless", "mine")
    assert "replace it with --overwrite" in lpe_eval("compare", "run", "--bless", "mine", code=2)
    lpe_eval("compare", "run", "--baseline", "mine", "--bless", "mine", "--overwrite")
    before = (here / "results/baselines/mine/rows.csv").read_bytes()
    bad = checkpoint(tmp_path / "worse" / "tiny", seed=1)
    ppl(bad, "worse-run")
    changed = lpe_eval("compare", "worse-run", "--baseline", "mine", "--bless", "mine", "--overwrite", code=3)
    assert "worse" in changed or "better" in changed
    assert (here / "results/baselines/mine/rows.csv").read_bytes() == before
    lpe_eval("compare", "worse-run", "--bless", "mine", "--overwrite")
    assert (here / "results/baselines/mine/rows.csv").read_bytes() != before
    assert [each.name for each in (here / "results/baselines").iterdir()] == ["mine"]


def test_a_run_that_is_not_whole_or_has_failed_cells_is_no_baseline(here):
    lines = (here / "run" / "rows.csv").read_text().splitlines(keepends=True)
    (here / "run" / "rows.csv").write_text("".join(lines[:4]))
    assert "has 1 of 2 cells" in lpe_eval("compare", "run", "--bless", "mine", code=2)
    (here / "run" / "rows.csv").write_text("".join(line.replace(",ok,,", ",failed,no memory,") for line in lines))
    told = lpe_eval("compare", "run", "--bless", "mine", code=2)
    assert "tiny failed at 16 (no memory)" in told
    (here / "run" / "rows.csv").write_text(lines[0])
    assert "has no rows" in lpe_eval("compare", "run", "--bless", "mine", code=2)
    assert not (here / "results").exists()


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("spec.yaml", "lengths:\n- 16", "lengths:\n- many", "the run ./broken is damaged"),
        ("rows.csv", ",nonoverlap,16,16,", ",nonoverlap,,16,", "the run ./broken is damaged"),
        ("rows.csv", ",nonoverlap,16,16,", ",nonoverlap,x,16,", "rows.csv is damaged"),
        ("run.json", "{", "", "run.json is damaged"),
        ("provenance.json", "{", "", "provenance.json is not JSON"),
    ],
)
def test_a_baseline_that_was_tampered_with_is_one_sentence(here, name, old, new, told):
    shutil.copytree("run", "broken")
    content = (here / "broken" / name).read_text()
    assert old in content
    (here / "broken" / name).write_text(content.replace(old, new))
    if name == "spec.yaml":
        # Where anchored blocks lie depends on the lengths of the spec.
        rows = here / "broken" / "rows.csv"
        rows.write_text(rows.read_text().replace(",nonoverlap,", ",anchored-8,"))
    assert told in lpe_eval("compare", "run", "--baseline", "./broken", code=1)


def test_a_corpus_of_which_more_than_a_fifth_changed_is_not_comparable(here, model):
    shutil.copytree("run", "old")
    for number in (3, 5, 7):
        path = here / "text" / f"{number:02}.txt"
        path.write_text("a line that was not there before\n" + path.read_text())
    ppl(model, "new")
    told = lpe_eval("compare", "new", "--baseline", "./old", code=2)
    assert "only 75 % of the baseline's scored tokens are in the run with the same text" in told
    assert "3 documents changed" in told


def test_edited_and_vanished_documents_are_counted_and_the_rest_decides(here, model, tmp_path):
    shutil.copytree("run", "old")
    (here / "text" / "05.txt").unlink()
    path = here / "text" / "07.txt"
    path.write_text("a line that was not there before\n" + path.read_text())
    ppl(model, "new")
    told = lpe_eval("compare", "new", "--baseline", "./old")
    assert "1 document changed and 1 vanished since the baseline; they are left out" in told
    assert "the run shares at least 83.3 % of the baseline's scored tokens" in told
    # The files may lie elsewhere, under other names, as on another machine.
    shutil.copytree(here / "text", tmp_path / "elsewhere")
    ppl(model, "moved", "--data", tmp_path / "elsewhere")
    assert "2 same" in lpe_eval("compare", "moved", "--baseline", "./new")


def test_packed_runs_are_compared_only_while_no_document_changes(here, model):
    ppl(model, "old", "--pack")
    ppl(model, "again", "--pack", "--overwrite")
    assert "2 same" in lpe_eval("compare", "again", "--baseline", "./old")
    path = here / "text" / "07.txt"
    path.write_text(path.read_text() + ".")
    ppl(model, "new", "--pack", "--max-tokens", 5000)
    assert "packed text is one stream" in lpe_eval("compare", "new", "--baseline", "./old", code=2)


def test_ppl_compares_after_measuring_and_ends_with_that_exit_code(here, model):
    shutil.copytree("run", "old")
    lpe_eval("compare", "old", "--bless", "mine")
    assert "2 same" in ppl(model, "new", "--baseline", "mine")
    told = ppl(model, "longer", "--baseline", "mine", "--lengths", "16,24", code=3)
    assert "missing: tiny, nonoverlap, at length 32" in told
    told = ppl(model, "never", "--baseline", "mnie", code=2)
    assert "no baseline named 'mnie'; did you mean mine?" in told
    assert not (here / "never").exists(), "a slip in a name is told before anything is measured"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["run"], 2, "nothing to compare with"),
        (["run", "--json", "a.json", "--bless", "a"], 2, "a report needs a comparison"),
        (["run", "--baseline", "nothing"], 2, "no baseline named 'nothing'"),
        (["run", "--baseline", "./text"], 1, "text holds no run"),
        (["text", "--baseline", "./run"], 1, "text holds no run"),
        (["nowhere", "--baseline", "./run"], 1, "nowhere holds no run"),
        (["run", "--baseline", "./run", "--tolerance", "-1"], 2, "--tolerance is a part of the loss"),
        (["run", "--baseline", "./run", "--tolerance", "nan"], 2, "--tolerance is a part of the loss"),
        (["run", "--baseline", "./run", "--tolerance", "25"], 2, "0.0025 is 0.25 %"),
        (["run", "--baseline", "./run", "--sigmas", "7"], 2, "--sigmas must be between 0 and 6"),
        (["run", "--baseline", "./run", "--sigmas", "nan"], 2, "--sigmas must be between 0 and 6"),
        (["run", "--baseline", "./run", "--allow", "tasks"], 2, "no --allow named 'tasks'; did you mean task?"),
        (["run", "--baseline", "./run", "--json", "text"], 1, "cannot write text"),
        (["run", "--bless", "../mine"], 2, "a baseline cannot be called '../mine'"),
        (["run", "--bless", ""], 2, "a baseline cannot be called ''"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_comparison_is_one_sentence(here, arguments, code, told):
    assert told in lpe_eval("compare", *arguments, code=code)


def test_a_folder_of_something_else_is_not_overwritten_by_a_baseline(here):
    (here / "results/baselines/mine").mkdir(parents=True)
    (here / "results/baselines/mine/notes.txt").write_text("mine")
    told = lpe_eval("compare", "run", "--bless", "mine", "--overwrite", code=1)
    assert "holds files that are no baseline" in told
    assert (here / "results/baselines/mine/notes.txt").read_text() == "mine"


def test_what_is_missing_can_be_allowed_and_the_reports_are_written_either_way(here, model):
    shutil.copytree("run", "old")
    ppl(model, "new", "--lengths", "32", "--overwrite")
    flags = ("compare", "new", "--baseline", "./old", "--json", "reports/gate.json", "--junit", "reports/gate.xml")
    lpe_eval(*flags, code=3)
    assert json.loads((here / "reports/gate.json").read_text())["exit_code"] == 3
    root = ElementTree.parse(here / "reports/gate.xml").getroot()
    assert root.attrib["failures"] == "1"


# What users copy

FOLDER = Path(__file__).parents[2] / "results" / "baselines"


@pytest.mark.parametrize("name", ["README.md", "gate-your-checkpoint.yml"])
def test_every_command_that_users_are_told_to_copy_has_only_commands_and_flags_that_exist(name):
    import typer.main

    known = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    lines = re.findall(r"lpe-eval ((?:ppl|run|compare) .+)", (FOLDER / name).read_text().replace("`", "\n"))
    assert len(lines) >= 4
    for line in lines:
        command, *words = line.split()
        flags = {flag for each in known[command].params for flag in each.opts}
        assert {word for word in words if word.startswith("-")} <= flags, line


def test_the_workflow_for_users_is_one_that_github_reads():
    workflow = yaml.safe_load((FOLDER / "gate-your-checkpoint.yml").read_text())
    # YAML 1.1 takes `on` for true.
    assert set(workflow) == {"name", True, "permissions", "env", "defaults", "jobs"}
    steps = workflow["jobs"]["gate"]["steps"]
    used = {name for step in steps for name in re.findall(r"\$(\w+)", step.get("run", ""))}
    # Two variables are GitHub's own, and one is read by `lpe-eval` itself.
    assert used - {"RUNNER_TEMP", "GITHUB_STEP_SUMMARY"} == set(workflow["env"]) - {"COLUMNS"}


# The released checkpoint


def noisy(source: Path, folder: Path, scale: float) -> Path:
    """A copy of a released checkpoint with noise of so much of its spread in the embedding, which is also the head."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    weights = load_file(source / "model.safetensors")
    embedding = weights["embedding.weight"].float()
    noise = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(2))
    weights["embedding.weight"] = embedding + scale * embedding.std() * noise
    save_file({name: tensor.float() for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.slow
def test_noise_of_half_a_percent_in_the_head_of_a_released_checkpoint_fails_and_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--protocol", "nonoverlap", "--lengths", "128,512", "--max-tokens", 24576, "-q")
    alibi = released_folder("alibi")
    assert alibi is not None
    lpe_eval("ppl", "-m", "alibi", "--out", "released", *flags)
    lpe_eval("compare", "released", "--bless", "released")
    again = lpe_eval("ppl", "-m", "alibi", "--out", "again", *flags, "--baseline", "released")
    assert "2 rows: 2 same" in again

    def measured(scale: float) -> float:
        """How much worse the checkpoint is at 512 with so much noise; the run is left in `noisy`."""
        model = noisy(alibi, tmp_path / "model", scale)
        lpe_eval("ppl", "-m", f"alibi={model}", "--out", "noisy", *flags, "--overwrite")
        found = compare(tmp_path / "noisy", open_baselines(["released"]), Rules())
        return next(each.change for each in found.verdicts if each.length == 512)

    # Noise costs about its square, so the search interpolates in that.
    wanted, low, high = 0.005, (0.0, 0.0), (0.05, measured(0.05))
    assert high[1] > wanted
    for _ in range(8):
        part = (wanted - low[1]) / (high[1] - low[1])
        scale = math.sqrt(low[0] ** 2 + part * (high[0] ** 2 - low[0] ** 2))
        change = measured(scale)
        if abs(change - wanted) < 0.0002:
            break
        low, high = ((scale, change), high) if change < wanted else (low, (scale, change))
    assert change == pytest.approx(wanted, abs=0.0002)

    told = lpe_eval("compare", "noisy", "--baseline", "released", code=3)
    comparison = compare(tmp_path / "noisy", open_baselines(["released"]), Rules())
    found = {each.length: each for each in comparison.verdicts}
    assert found[512].verdict == "worse" and found[512].method == "paired-bootstrap-documents-1000"
    assert "error: noisy against released: worse: alibi, nonoverlap, at length " in told
    assert f"512 ({100 * found[512].change:+.2f} %)" in told
    with pytest.raises(RegressionFound, match="alibi, nonoverlap, at length"):
        refuse_regression(comparison)


def test_a_baseline_without_a_row_to_compare_with_is_refused(measured):
    with pytest.raises(SpecError, match="the baseline empty has no row to compare with"):
        compare(measured / "run", {"empty": []}, Rules())
