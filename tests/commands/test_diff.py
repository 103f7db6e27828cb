"""Differences inside a run, several trainings as one line, and tables for a paper."""

import re
import statistics
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.commands.diff import differences
from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.report.numbers.trainings import recipe_of, spread
from tests.support.native_checkpoints import checkpoint
from tests.support.small_ppl import TEXT

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "results/baselines/released"


def said(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three trainings of a recipe and one of another, at two lengths under two protocols."""
    home = tmp_path_factory.mktemp("home")
    models = {"a": ("alibi", 0), "a-seed2": ("alibi", 2), "a-seed3": ("alibi", 3), "b": ("rope", 0)}
    for name, (encoding, seed) in models.items():
        checkpoint(home / name, encoding, seed=seed)
    (home / "texts").mkdir()
    for number in range(9):
        (home / "texts" / f"{number}.txt").write_text(TEXT[number * 40 : number * 40 + 400])
    flags = [flag for name in models for flag in ("-m", str(home / name))]
    said("ppl", *flags, "--data", str(home / "texts"), "--lengths", "16,32", "--max-tokens", "3000", "-q",
         "--out", str(home / "run"))  # fmt: skip
    return home / "run"


def mean_nats(run: Path, model: str, protocol: str, length: int) -> float:
    rows = pd.read_csv(run / "rows.csv")
    own = rows[(rows.model == model) & (rows.protocol == protocol) & (rows.length == length)]
    return float(own[own.metric == "nll_nats"].value.iloc[0])


def cell(table, line: str, group: str, length: int) -> str:
    (place,) = [
        place for place, each in enumerate(table.columns) if each.text == str(length) and each.group in (group, "")
    ]
    (row,) = [row for row in table.rows if row[0] == line]
    return str(row[place])


def test_a_model_beside_another_is_the_difference_of_their_losses_with_a_small_error(run: Path):
    (table,) = differences(run, "a", None)
    assert [row[0] for row in table.rows] == ["a-seed2", "a-seed3", "b"]
    for protocol in ("nonoverlap", "sliding"):
        for length in (16, 32):
            shown = cell(table, "b", protocol, length)
            value, error = (float(part) for part in shown.split(" ± "))
            # Every document is scored by both, so the difference of the means is that of the paired sums.
            wanted = mean_nats(run, "b", protocol, length) - mean_nats(run, "a", protocol, length)
            assert value == pytest.approx(wanted, abs=0.51 * 10 ** -len(shown.split(" ±")[0].partition(".")[2]))
            assert error > 0 and shown.startswith("-" if wanted < 0 else "+")
    assert "differences in nats a token, paired" in table.below[0] and "bootstrap-documents" in table.below[0]


def test_a_length_beside_another_is_the_change_of_the_loss(run: Path):
    (table,) = differences(run, None, 16)
    assert {each.text for each in table.columns} == {"model", "32"} and len(table.rows) == 4
    wanted = mean_nats(run, "b", "nonoverlap", 32) - mean_nats(run, "b", "nonoverlap", 16)
    assert float(cell(table, "b", "nonoverlap", 32).split(" ±")[0]) == pytest.approx(wanted, abs=1e-3)


def test_a_baseline_that_ships_is_taken_too():
    shown = said("diff", str(RELEASED), "--against", "alibi")
    rows = pd.read_csv(RELEASED / "rows.csv")
    rows = rows[(rows.metric == "nll_nats") & (rows.length == 2048)].set_index("model")
    (value,) = re.findall(r"^ rope .* (\+\d\.\d+) ± \d\.\d+ *$", shown, re.MULTILINE)
    assert float(value) == pytest.approx(rows.value["rope"] - rows.value["alibi"], abs=1e-3)
    # No value beyond its table of positions, and no difference then.
    assert re.search(r"^ learned +\+0\.567 ± 0\.017 *$", shown, re.MULTILINE)


def test_answers_to_problems_are_paired_by_string():
    tables = differences(ROOT / "results/baselines/released-che", "rope", None)
    assert len(tables) == 1 and "shares of right answers" in tables[0].below[0]
    assert {each.group for each in tables[0].columns[1:]} >= {"parity_check", "reverse_string"}


@pytest.mark.parametrize(
    ("model", "length", "error", "sentence"),
    [
        (None, None, SpecError, "one of the two"),
        ("alibi", 512, SpecError, "one of the two"),
        ("alibbi", None, UnknownName, "did you mean alibi"),
        (None, 513, SpecError, "has no length 513; it has 512, 2048"),
    ],
)
def test_what_cannot_be_set_beside_is_one_sentence(model, length, error, sentence):
    with pytest.raises(error, match=sentence):
        differences(RELEASED, model, length)


def test_models_of_other_tokenizers_are_not_subtracted(run: Path, tmp_path: Path):
    import json
    import shutil

    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "provenance.json"
    known = json.loads(path.read_text())
    known["models"]["b"] |= {"tokenizer_fingerprint": "another", "ids_fingerprint": "another"}
    path.write_text(json.dumps(known))
    (table,) = differences(tmp_path / "run", "a", None)
    assert cell(table, "b", "nonoverlap", 16) == "other tokens"
    assert "±" in cell(table, "a-seed2", "nonoverlap", 16)


def test_trainings_of_a_recipe_are_one_line_with_mean_and_deviation(run: Path):
    shown = said("show", str(run), "--over-seeds")
    rows = pd.read_csv(run / "rows.csv")
    rows = rows[(rows.metric == "perplexity") & (rows.protocol == "sliding") & (rows.length == 32)]
    values = [float(rows[rows.model == name].value.iloc[0]) for name in ("a", "a-seed2", "a-seed3")]
    part = shown.partition("perplexity")[2].partition("bits_per_byte")[0]
    (line,) = re.findall(r"^ a \(3 trainings\) (.*)$", part, re.MULTILINE)
    last = re.findall(r"(\d+\.?\d*) ± (\d+\.?\d*)", line)[-1]
    assert float(last[0]) == pytest.approx(statistics.fmean(values), rel=0.02)
    assert float(last[1]) == pytest.approx(statistics.stdev(values), rel=0.06)
    assert re.search(r"^ b +\d", part, re.MULTILINE) and "standard deviation of the trainings" in part


def test_names_of_trainings():
    assert [recipe_of(name) for name in ("a", "a-seed2", "a@3", "a-seed", "seed2", "dape-kerple-log-seed12")] == [
        "a", "a", "a", "a-seed", "seed2", "dape-kerple-log",
    ]  # fmt: skip
    assert spread([1.0, 2.0, 3.0]) == (2.0, 1.0, 3) and spread([4.0]) == (4.0, None, 1)


def test_tables_alone_and_other_things_alone_are_not_mixed(run: Path):
    assert "choose one" in said("show", str(run), "--cite", "--as", "latex", code=2)
    assert "did you mean latex" in said("show", str(run), "--as", "latx", code=2)
    markdown = said("show", str(run), "--as", "markdown")
    assert markdown.count("| model |") == 1 and "16, nonoverlap" in markdown and "measured" not in markdown
