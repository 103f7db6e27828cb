"""`lpe-eval plot` on the folders of every kind of run."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from tests.support.che_runs import trained
from tests.support.native_checkpoints import checkpoint
from tests.support.speed_flags import SMALL


def plot(*arguments: object):
    return CliRunner().invoke(app, ["plot", *map(str, arguments)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    trained(place / "both", ["rope", "alibi"])
    trained(place / "rope", ["rope"])
    trained(place / "alibi", ["alibi"])
    speed = ["speed", "--encoding", "alibi", "--lengths", "8", *SMALL, "--out", str(place / "speed")]
    assert CliRunner().invoke(app, speed).exit_code == 0
    return place


@pytest.mark.slow
def test_problems_in_several_folders_are_drawn_as_if_they_stood_in_one(runs: Path, tmp_path: Path):
    result = plot(runs / "rope", runs / "alibi", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.output.split() == [str(tmp_path / name) for name in sorted(each.name for each in tmp_path.iterdir())]
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in (runs / "both" / "figures").iterdir()}
    assert len(drawn) == 4


@pytest.mark.parametrize("run", ["both", "speed"])
def test_the_figures_of_one_run_are_those_it_made_itself(run: str, runs: Path, tmp_path: Path):
    result = plot(runs / run, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in (runs / run / "figures").iterdir()}


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("rope", "speed"), "hold runs of different kinds; draw each kind by itself"),
        (("speed", "speed"), "each speed measurement has a unit of its own"),
        (("bare",), "bare: no problem has a score yet"),
    ],
)
def test_what_cannot_be_drawn_together_is_one_sentence(
    names: tuple[str, ...], sentence: str, runs: Path, tmp_path: Path
):
    (tmp_path / "bare").mkdir()
    header, *_ = (runs / "rope" / "che.csv").read_text().splitlines(keepends=True)
    (tmp_path / "bare" / "che.csv").write_text(header)
    result = plot(*(tmp_path / name if name == "bare" else runs / name for name in names), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_models_chosen_by_name_are_drawn_alone(runs: Path, tmp_path: Path):
    assert plot(runs / "both", "--models", "rope", "--out", tmp_path / "chosen").exit_code == 0
    assert plot(runs / "rope", "--out", tmp_path / "alone").exit_code == 0
    chosen, alone = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in tmp_path.iterdir())
    assert chosen == alone
    result = plot(runs / "both", "--models", "ropes", "--out", tmp_path / "none")
    assert result.exit_code == 2 and "did you mean rope?" in result.output


def test_runs_on_different_texts_are_drawn_with_a_note(tmp_path: Path):
    checkpoint(tmp_path / "model", "alibi")
    for name in ("one", "other"):
        (tmp_path / f"{name}.txt").write_text(name * 400)
        run = [
            "ppl",
            "-m",
            str(tmp_path / "model"),
            "--data",
            str(tmp_path / f"{name}.txt"),
            "--lengths",
            "16,32",
            "-q",
        ]
        result = CliRunner().invoke(app, [*run, "--out", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
    result = plot(tmp_path / "one", tmp_path / "other", "--out", tmp_path / "figures")
    assert result.exit_code == 0
    assert "measured different texts, which have nothing in common" in " ".join(result.output.split())
    assert "different texts" not in plot(tmp_path / "one", "--out", tmp_path / "figures").output
