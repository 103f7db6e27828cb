"""Speed: the order of turns, medians and ratios from a clock we hold, memory that grows, and what is kept."""

import csv
import math
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lpe_eval import table
from lpe_eval.cli import app
from lpe_eval.commands import speed as timing
from lpe_eval.errors import OutputError, SpecError
from lpe_eval.measure.peak import Peak, peak_of
from lpe_eval.measure.speed import Case, Passes, seconds_in_turn, unit_of
from lpe_eval.measure.speed import timing as timing_of
from lpe_eval.report.figures.speed import speed_figure
from lpe_eval.report.folders.speed import SpeedFolder
from lpe_eval.run import Settings
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.model_spec import ModelSpec
from lpe_eval.spec.speed_spec import SpeedSpec, parse_encodings, parse_modes
from tests.support.speed_flags import SMALL

CPU = torch.device("cpu")


def case(encoding: str = "alibi", mode: str = "forward", length: int = 32, **changes) -> Case:
    model = ModelSpec(encoding=EncodingSpec.parse(encoding), width=16, layers=1, heads=2, mlp_width=64)
    fields = {"attention": "auto", "mode": mode, "length": length, "windows": 1, "dtype": "float32"}
    return Case.model_validate({"model": model, **fields, **changes})


def spec(*encodings: str, **changes) -> SpeedSpec:
    fields = {"encodings": encodings, "lengths": [16, 32], "width": 16, "layers": 1, "heads": 2, "batch_tokens": 32}
    return SpeedSpec.model_validate({**fields, **changes})


@contextmanager
def silent(total: int, unit: str):
    yield lambda done, description=None: None


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_candidates_take_turns_in_every_round_and_the_first_round_does_not_count():
    order: list[str] = []
    now = 0.0

    def costing(name: str, seconds: list[float]):
        def run() -> None:
            nonlocal now
            order.append(name)
            now += seconds.pop(0)

        return run

    passes = {"plain": costing("plain", [100.0, 1, 2, 4]), "alibi": costing("alibi", [500.0, 3, 2, 6])}
    told: list[str] = []
    found = seconds_in_turn(passes, 3, told.append, lambda: now)
    assert order == ["plain", "alibi"] * 4 == told
    assert found == {"plain": [1, 2, 4], "alibi": [3, 2, 6]}


def test_medians_are_over_rounds_and_a_ratio_is_one_of_the_same_round():
    found = timing_of([3.0, 2.0, 6.0, 30.0, 5.0], [1.0, 2.0, 4.0, 15.0, 1.0])
    # Ratios 3, 1, 1.5, 2, 5: the median is 2, while the medians' ratio would be 5 / 2.
    assert found == (5.0, 2.0, 30.0, 2.0)
    assert timing_of([3.0, 1.0, 2.0], None) == (2.0, 1.0, 3.0, None)


def test_the_unit_is_the_same_model_without_encoding_on_fused_attention():
    unit = unit_of(case("dape(kerple_log)", attention="dense"))
    assert (str(unit.model.encoding), unit.attention) == ("none", "sdpa")
    assert unit.model.model_dump(exclude={"encoding"}) == case().model.model_dump(exclude={"encoding"})
    assert Passes(unit, CPU).attention == "sdpa"


@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pass_leaves_no_gradient_behind(mode: str, dtype: str):
    passes = Passes(case("dape(kerple_log)", mode, dtype=dtype), CPU)
    passes.once(24, 2)
    assert all(each.grad is None for each in passes.model.parameters())


def test_a_longer_text_needs_no_less_memory():
    short, long = (peak_of(case("cope", length=length, attention="dense"), CPU) for length in (64, 1024))
    assert short.mib is not None and long.mib is not None
    assert 0 <= short.mib <= long.mib
    # Two heads of logits alone, float32, are 8 MiB, and dense attention holds several such.
    assert long.mib >= 8


def test_memory_of_a_length_without_positions_is_an_answer_and_a_broken_case_a_failure():
    assert peak_of(case("learned", length=600), CPU).status == "n/a"
    broken = peak_of(case("alibi", attention="sdpa"), CPU)
    assert broken.mib is None and broken.status == "failed" and "cannot compute alibi" in broken.note


@pytest.mark.slow
def test_a_small_measurement_gives_a_tidy_table_and_a_length_without_positions_is_not_available(tmp_path: Path):
    out = tmp_path / "cost"
    flags = ["--encoding", "alibi,learned", "--encoding", "dape(kerple_log)", "--lengths", "32,600", *SMALL]
    done = CliRunner().invoke(app, ["speed", *flags, "--mode", "forward", "--out", str(out), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "learned has positions for 512 tokens, not 600" in " ".join(done.output.split())
    rows = rows_of(out / "speed.csv")
    assert list(rows[0]) == [column.name for column in table.SPEED]
    assert [(row["encoding"], row["length"]) for row in rows] == [
        (name, length) for length in ("32", "600") for name in ("plain", "alibi", "learned", "dape(kerple_log)")
    ]
    for row in rows:
        if (row["encoding"], row["length"]) == ("learned", "600"):
            assert row["status"] == "n/a" and row["median_seconds"] == row["times_plain"] == ""
            continue
        assert row["status"] == "ok" and int(row["rounds"]) == 5
        speed = int(row["batch_windows"]) * int(row["length"]) / float(row["median_seconds"])
        assert math.isclose(float(row["median_tokens_per_second"]), speed)
        assert float(row["fastest_seconds"]) <= float(row["median_seconds"]) <= float(row["slowest_seconds"])
        assert (float(row["times_plain"]) == 1) if row["encoding"] == "plain" else float(row["times_plain"]) > 0
    paths = {row["encoding"]: row["attention"] for row in rows if row["length"] == "32"}
    assert paths == {"plain": "sdpa", "alibi": "toeplitz", "learned": "sdpa", "dape(kerple_log)": "blocked"}
    assert (out / "figures" / "speed.png").stat().st_size > 0 and (out / "figures" / "memory.svg").exists()


def test_an_interruption_keeps_finished_lengths_and_the_same_command_goes_on(tmp_path: Path, monkeypatch):
    asked: list[tuple[str, int]] = []

    def remembered(case: Case, device: torch.device) -> Peak:
        asked.append((str(case.model.encoding), case.length))
        if stop and case.length == 32:
            raise KeyboardInterrupt
        return Peak(2.0 * case.length)

    # Counting bytes takes a process each; what is tested here is what is kept.
    monkeypatch.setattr(timing, "peak_of", remembered)
    arguments = ["speed", "--encoding", "alibi", "--lengths", "16,32", "--mode", "train", *SMALL, "--device", "cpu"]
    stop = True
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "cost")])
    assert done.exit_code == 130 and "interrupted" in done.output
    first = rows_of(tmp_path / "cost" / "speed.csv")
    assert [(row["encoding"], row["length"]) for row in first] == [("plain", "16"), ("alibi", "16")]
    stop = False
    asked.clear()
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "cost")])
    assert done.exit_code == 0, done.output
    assert asked == [("none", 32), ("alibi", 32)]
    rows = rows_of(tmp_path / "cost" / "speed.csv")
    assert rows[:2] == first and [row["length"] for row in rows] == ["16", "16", "32", "32"]


def test_a_failed_case_is_shown_not_timed_and_measured_again(tmp_path: Path, monkeypatch):
    def failing(case: Case, device: torch.device) -> Peak:
        plain = str(case.model.encoding) == "none"
        return Peak(1.0) if plain or not broken else Peak(None, "failed", "no memory")

    monkeypatch.setattr(timing, "peak_of", failing)
    arguments = ["speed", "--encoding", "alibi", "--lengths", "16", "--mode", "forward", *SMALL, "--device", "cpu"]
    broken = True
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 4 and "no memory" in done.output
    assert [row["status"] for row in rows_of(tmp_path / "speed.csv")] == ["ok", "failed"]
    broken = False
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert [row["status"] for row in rows_of(tmp_path / "speed.csv")] == ["ok", "ok"]


def test_progress_ends_where_it_said_it_would_also_when_a_case_is_left_out(tmp_path: Path, monkeypatch):
    def missing(case: Case, device: torch.device) -> Peak:
        return Peak(None, "n/a", "no positions") if str(case.model.encoding) == "rope" else Peak(1.0)

    monkeypatch.setattr(timing, "peak_of", missing)
    totals: list[int] = []
    counted: list[int] = []

    @contextmanager
    def counting(total: int, unit: str):
        totals.append(total)
        yield lambda done, description=None: counted.append(done)

    timing.run_spec(spec("alibi", "rope"), Settings(tmp_path, False, counting, print))
    assert totals == [sum(counted)]


def test_another_measurement_in_the_folder_is_refused_and_discarded_only_when_asked(tmp_path: Path):
    with SpeedFolder(tmp_path, "1", "one\n") as folder:
        folder.write_provenance({})
        with pytest.raises(OutputError, match="another process is writing to"):
            SpeedFolder(tmp_path, "1", "one\n")
    # What has nothing to lose goes to the next.
    with SpeedFolder(tmp_path, "3", "three\n") as folder:
        assert folder.rows() == []
    (tmp_path / "speed.csv").write_text("something measured\n")
    with pytest.raises(OutputError, match="holds another run"):
        SpeedFolder(tmp_path, "2", "two\n")
    with SpeedFolder(tmp_path, "2", "two\n", overwrite=True) as folder:
        assert folder.rows() == []
    (tmp_path / "thesis.txt").write_text("mine")
    with SpeedFolder(tmp_path, "2", "two\n", overwrite=True) as folder:
        assert folder.rows() == [] and (tmp_path / "thesis.txt").read_text() == "mine"
    (tmp_path / "run.json").unlink()
    (tmp_path / "spec.yaml").unlink()
    with pytest.raises(OutputError, match="holds files that are no run"):
        SpeedFolder(tmp_path, "2", "two\n", overwrite=True)
    with pytest.raises(OutputError, match="cannot write to"):
        SpeedFolder(tmp_path / "thesis.txt" / "below", "2", "two\n")


def test_rows_are_read_back_as_they_were_written(tmp_path: Path):
    texts = {column.name: "x" for column in table.SPEED if column.kind == "string"}
    row = {column.name: None for column in table.SPEED} | texts | {"length": 16, "median_seconds": 0.1}
    row["schema"] = table.SCHEMA
    with SpeedFolder(tmp_path, "1", "one\n") as folder:
        folder.write_rows([row])
        assert folder.rows() == [row]


def test_a_figure_has_a_panel_for_each_mode_and_both_axes_are_logarithmic():
    rows = [
        {"encoding": name, "mode": mode, "length": length, "times_plain": ratio}
        for name, ratio in (("plain", 1.0), ("dape(kerple_log)", 3.0), ("learned", None))
        for mode in ("forward", "train")
        for length in (512, 1024)
    ]
    figure = speed_figure(rows, "times_plain")
    assert [axes.get_title() for axes in figure.axes] == ["forward", "train"]
    assert all((axes.get_xscale(), axes.get_yscale()) == ("log", "log") for axes in figure.axes)
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[1.0, 1.0], [3.0, 3.0]]


def test_what_people_write_is_read():
    found = parse_encodings(["alibi, rope", "dape(kerple_log)"])
    assert [str(each) for each in found] == ["alibi", "rope", "dape(kerple_log)"]
    assert parse_modes("train, Forward") == ["train", "forward"]
    assert len(spec("alibi", "rope", "alibi").encodings) == 2
    with pytest.raises(SpecError, match="known: forward, train"):
        parse_modes("backward")


def test_a_spec_file_of_a_measurement_runs_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(timing, "peak_of", lambda case, device: Peak(1.0))
    timing.run_spec(spec("dape(kerple_log)", modes=["forward"]), Settings(tmp_path / "a", False, silent, print))
    again = ["run", str(tmp_path / "a" / "spec.yaml"), "--out", str(tmp_path / "b"), "--quiet"]
    done = CliRunner().invoke(app, again)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a" / "spec.yaml").read_bytes() == (tmp_path / "b" / "spec.yaml").read_bytes()
