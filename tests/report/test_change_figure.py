"""The paired change from the training length: its numbers, its figure, and the files that follow from a run."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lpe_eval import text_tables
from lpe_eval.cli import app
from lpe_eval.report.figures.change import CLIPPED, change_figure
from lpe_eval.report.figures.files import save
from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.ppl import draw_perplexity
from lpe_eval.report.folders.derived import change_rows, derived_files, sweeps_of
from lpe_eval.report.folders.ppl import read_run
from lpe_eval.report.frames import read_csv, records
from lpe_eval.report.numbers.statistics import paired_difference
from lpe_eval.table import CellKey
from tests.support.far_context import LENGTHS, STRIDE, text
from tests.support.figure_rows import curves_of, legend_of, panels_of, triangles_of
from tests.support.gate_runs import run_of
from tests.support.native_checkpoints import checkpoint

HOLDS, GAINS = [2.7, 2.6, 2.5, 2.5, 2.5, 2.51], [2.7, 2.6, 2.5, 2.45, 2.42, 2.41]
BREAKS, FAILS = [2.7, 2.6, 2.5, 2.56, 2.8, 3.5], [2.7, 2.6, 2.5, 4.5, 6.0, 8.0]


def run(models: dict[str, list[float]], protocol: str = "nonoverlap", noise: float = 0.002, **how):
    cells = {}
    for model, losses in models.items():
        for length, blocks in text(losses, noise=noise).items():
            stride = {"nonoverlap": length, "sliding": length // 2}.get(protocol, STRIDE)
            cells[CellKey(model, protocol, length, stride)] = blocks
    return run_of(cells, **how)


def figure_of(*runs):
    changes = [row for each in runs for row in change_rows(sweeps_of(each))]
    return change_figure(changes, pd.concat([each.rows for each in runs]).to_dict("records"))


def test_each_change_is_the_paired_difference_to_the_training_length():
    found = list(change_rows(sweeps_of(run({"alibi": GAINS}))))
    assert [(row["length"], row["from_length"]) for row in found] == [(length, 512) for length in LENGTHS]
    own = text(GAINS, noise=0.002)
    for row in found:
        pair = paired_difference(own[row["length"]], own[512])
        assert row["change"] == pytest.approx(pair.difference, abs=1e-12)
        assert row["stderr"] == pytest.approx(pair.stderr, abs=1e-12)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((pair.ci_low, pair.ci_high), abs=1e-12)
    assert found[2]["change"] == found[2]["stderr"] == 0


def test_without_a_train_length_that_was_measured_it_is_the_shortest():
    for train_length in (None, 300):
        found = list(change_rows(sweeps_of(run({"alibi": GAINS}, train_length=train_length))))
        assert {row["from_length"] for row in found} == {128}
    key = CellKey("alibi", "nonoverlap", 512, 512)
    assert not list(change_rows(sweeps_of(run({"alibi": GAINS}, statuses={key: "n/a"}))))


def test_each_model_has_its_own_training_length_and_last_has_no_part():
    both = [*change_rows(sweeps_of(run({"alibi": GAINS}, train_length=256)))]
    assert {row["from_length"] for row in both} == {256}
    assert not list(change_rows(sweeps_of(run({"alibi": GAINS}, "last-256"))))
    assert not list(change_rows(sweeps_of(run_of({CellKey("a", "nonoverlap", 512, 512): text(GAINS)[512]}))))


def test_two_strides_of_one_protocol_are_told_apart():
    cells = {}
    for length, blocks in text(GAINS).items():
        cells[CellKey("a", "sliding", length, 64)] = blocks
        cells[CellKey("a", "sliding", length, length // 2)] = [each._replace(nll_nats=9.0) for each in blocks]
    found = sweeps_of(run_of(cells))
    assert [len(each.rows) for each in found] == [6, 5]
    assert [each.longest["stride"] for each in found] == [64, 2048]


def test_models_that_hold_stay_apart_although_others_fail_and_those_are_marked():
    figure = figure_of(run({"holds": HOLDS, "gains": GAINS, "breaks": BREAKS, "fails": FAILS}))
    (axes,) = panels_of(figure)
    low, high = axes.get_ylim()
    assert high == CLIPPED and low < -0.09
    assert (0.01 + 0.09) / (high - low) > 0.3, "two that hold are told apart"
    assert [(round(x), y) for x, y in triangles_of(axes)] == [(1024, high), (2048, high)]
    assert legend_of(figure) == ["fails", "breaks", "holds", "gains", "above 0.15, or infinite"]
    assert axes.get_ylabel() == LABELS["change"]
    drawn = {round(y[-1], 2) for _, y in curves_of(axes) if len(y) == len(LENGTHS)}
    assert drawn == {0.01, -0.09, 1.0, 5.5}


def test_shorter_lengths_may_leave_the_axis_without_a_mark():
    figure = figure_of(run({"one": [9.0, 4.0, 2.5, 2.5, 2.5, 2.5]}))
    (axes,) = panels_of(figure)
    assert not triangles_of(axes) and "infinite" not in " ".join(legend_of(figure))
    assert axes.get_ylim()[1] < 0.05


def test_where_no_model_holds_the_axis_is_wider():
    figure = figure_of(run({"a": FAILS, "b": [2.7, 2.6, 2.5, 3.0, 3.5, 4.0]}))
    (axes,) = panels_of(figure)
    assert axes.get_ylim()[1] == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("count", [1, 2, 12, 20])
def test_any_number_of_models_and_panels_is_drawn(tmp_path: Path, count: int):
    curves = [[each + 0.1 * number for each in (HOLDS, BREAKS)[number % 2]] for number in range(count)]
    made = run({f"model {number}": curve for number, curve in enumerate(curves)})
    rows = [
        {**row, "protocol": protocol}
        for protocol in ("nonoverlap", "sliding", "anchored-256")
        for row in change_rows(sweeps_of(made))
    ]
    figures = [change_figure(rows, made.rows.to_dict("records")) for _ in range(2)]
    assert [axes.get_title() for axes in panels_of(figures[0])] == ["nonoverlap", "sliding", "anchored-256"]
    assert len(legend_of(figures[0])) == count + (count > 1)
    first, again = (save(each, tmp_path / str(number), "change") for number, each in enumerate(figures))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_a_model_looks_as_in_the_figure_of_perplexities(tmp_path: Path):
    made = run({"alone": [2.5] * 6, "other": HOLDS}, statuses={
        CellKey("alone", "nonoverlap", length, length): "n/a" for length in LENGTHS if length != 512
    })  # fmt: skip
    (axes,) = panels_of(figure_of(made))
    (line,) = [line for line in axes.lines if np.size(line.get_xdata()) == len(LENGTHS)]
    assert line.get_color() == "#D55E00", "the colour of the second model, though the first has no change"
    names = {path.stem for path in draw_perplexity([made], tmp_path)}
    assert names == {"perplexity", "change"}


def test_values_that_are_not_finite_and_nothing_at_all_make_a_figure(tmp_path: Path):
    row = dict.fromkeys((column.name for column in text_tables.CHANGES), None)
    row |= {"model": "a", "protocol": "nonoverlap", "length": 512, "from_length": 512, "train_length": 512}
    row |= {"change": math.nan, "ci_low": math.nan, "ci_high": math.nan}
    save(change_figure([row], []), tmp_path, "nan")
    save(change_figure([{**row, "change": math.inf}], []), tmp_path, "inf")
    save(change_figure([], []), tmp_path, "nothing")


def test_the_files_of_a_run_are_read_back_with_their_columns(tmp_path: Path):
    files = derived_files(run({"alibi": GAINS, "rope": FAILS}, "anchored-256"))
    assert sorted(files) == ["changes.csv", "effective_length.csv"]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    found = records(read_csv(tmp_path / "effective_length.csv", text_tables.EFFECTIVE_LENGTHS))
    assert [(row["model"], row["effective_length"], row["beyond"]) for row in found] == [
        ("alibi", 4096, "none"), ("rope", 512, "loses"),
    ]  # fmt: skip
    assert found[0]["gain"] == pytest.approx(0.29, abs=0.01) and found[0]["gain_stderr"] < 0.01
    assert len(read_csv(tmp_path / "changes.csv", text_tables.CHANGES)) == 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("far")
    checkpoint(root / "alibi", "alibi")
    checkpoint(root / "learned", "learned")
    words = " ".join(f"word{each * each % 91}" for each in range(900))
    (root / "text.txt").write_text(words)
    models = ["-m", str(root / "alibi"), "-m", str(root / "learned")]
    flags = ["--data", str(root / "text.txt"), "--lengths", "8,16,32,64", "--max-tokens", "3000", "-q"]
    command = ["ppl", *models, *flags, "--protocol", "nonoverlap,anchored", "--stride", "8", "--out", str(root / "run")]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
    assert result.exit_code == 0, result.output
    (root / "told").write_text(result.stdout)
    return root


def shown(*arguments: object, code: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def told(folder: Path) -> str:
    return shown("show", folder).replace(str(folder), "").replace("─", "").replace(" ", "")


def test_a_run_tells_effective_lengths_and_show_tells_more(place: Path):
    printed = (place / "told").read_text()
    assert "effective length" in printed and "where more context stops gaining" in printed
    assert "loss by context" not in printed and "no fit of" not in printed, "for those who ask"
    assert "loss by context" in shown("show", place / "run") or "no fit of" in shown("show", place / "run")
    found = records(read_csv(place / "run" / "effective_length.csv", text_tables.EFFECTIVE_LENGTHS))
    learned = found[1]
    assert learned["model"] == "learned" and learned["effective_length"] <= 32 and learned["longest"] == 64
    names = {path.name for path in (place / "run" / "figures").iterdir()}
    assert {"change.png", "change.svg", "perplexity.png", "loss_by_context.png"} <= names


def test_an_older_folder_is_shown_and_drawn_with_what_it_has(place: Path, tmp_path: Path):
    for name in ("rows.csv", "cost.csv", "by_document.parquet", "by_position.parquet", "spec.yaml", "provenance.json",
                 "run.json"):  # fmt: skip
        (tmp_path / name).write_bytes((place / "run" / name).read_bytes())
    assert told(tmp_path) == told(place / "run")
    drawn = shown("plot", tmp_path, "--out", tmp_path / "figures")
    assert "change.png" in drawn
    for name in ("change.png", "change.svg"):
        assert (tmp_path / "figures" / name).read_bytes() == (place / "run" / "figures" / name).read_bytes()
    (tmp_path / "by_document.parquet").unlink()
    assert "effective length" not in shown("show", tmp_path)
    (tmp_path / "by_document.parquet").write_bytes(b"damaged")
    assert "alibi" in shown("show", tmp_path)
    for name in ("cost.csv", "by_document.parquet", "by_position.parquet", "run.json", "provenance.json"):
        (tmp_path / name).unlink()
    assert "alibi" in shown("show", tmp_path)


def test_a_gate_holds_what_a_run_measured(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shown("compare", place / "run", "--bless", "good")
    kept = {path.name for path in (tmp_path / "results" / "baselines" / "good").iterdir()}
    assert "effective_length.csv" not in kept and {"rows.csv", "by_document.parquet"} <= kept
    said = shown("compare", place / "run", "--baseline", "good")
    assert "effective length" in said and "18 rows: 18 same" in " ".join(said.split())
    assert len(sweeps_of(read_run(tmp_path / "results" / "baselines" / "good"))) == 4
