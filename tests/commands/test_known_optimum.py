"""Text with a known optimum through the real command line: regret and shares of models whose own are known."""

import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from lpe_eval.report.folders.ppl import Run, read_run
from tests.support.known_models import reference
from tests.support.small_ppl import told
from tests.support.warm import Warm, warm

pytestmark = pytest.mark.slow

FLOAT32 = 2e-6
"""Nats: what a log-softmax in float32 is off from the loss of a guess whose logarithms are 10 or less."""

PROTOCOLS = "nonoverlap,sliding,last,anchored"


def measure(out: Path, *flags: str, models: tuple[str, ...], code: int = 0) -> str:
    chosen = [part for each in models for part in ("-m", each)]
    return told("ppl", *chosen, "--tokenizer", "bytes", "-q", "--out", str(out), *flags, code=code)


def values(run: Run, metric: str) -> pd.DataFrame:
    rows = run.rows[run.rows.metric == metric]
    return rows.set_index(["model", "protocol", "length"])


@pytest.mark.parametrize(
    "bos", ["never", *(pytest.param(each, marks=pytest.mark.slow) for each in ("always", "first-window"))]
)
def test_the_ratio_of_counts_has_no_regret_and_no_guess_has_all_of_it(tmp_path: Path, bos: str) -> None:
    models = (reference("bayes", "bayes?symbols=8&alpha=0.2"), reference("uniform", "uniform?symbols=8"))
    data = ["--data", "urn?symbols=8&alpha=0.2&length=300", "--lengths", "32,64,128", "--protocol", PROTOCOLS]
    measure(tmp_path / "run", *data, "--bos", bos, "--max-tokens", "1500", models=models)
    run = read_run(tmp_path / "run")
    regret, nats = values(run, "regret_nats"), values(run, "nll_nats")
    assert len(regret) == 2 * 4 * 3
    assert regret.loc["bayes"].value.abs().max() < FLOAT32
    assert regret.loc["bayes"].stderr.max() < FLOAT32
    optimum = nats.loc["optimum"].value
    assert (regret.loc["uniform"].value - (math.log(8) - optimum)).abs().max() < FLOAT32
    assert (nats.loc["uniform"].value - math.log(8)).abs().max() < FLOAT32
    share = values(run, "gain_share")
    assert set(share.reset_index().length) == {64, 128}, "the gain is reckoned from the shortest length"
    assert set(share.note) == {"of the gain from 32 tokens"}
    sliding = [each for each in share.index if each[1] != "last-32"]
    assert (share.loc[[each for each in sliding if each[0] == "bayes"]].value - 1).abs().max() < 1e-4
    assert share.loc[[each for each in sliding if each[0] == "uniform"]].value.abs().max() < 1e-4


@pytest.mark.slow
def test_the_ratio_of_counts_has_no_regret_at_sixteen_thousand_tokens(tmp_path: Path) -> None:
    flags = ["--data", "urn", "--lengths", "128,1024,16384", "--protocol", "nonoverlap,anchored"]
    measure(tmp_path / "run", *flags, "--max-tokens", "40000", models=(reference("bayes", "bayes"),))
    regret = values(read_run(tmp_path / "run"), "regret_nats")
    assert len(regret) == 6
    assert regret.value.abs().max() < FLOAT32


def test_the_copier_of_echo_has_no_regret(tmp_path: Path) -> None:
    flags = ["--data", "echo?length=2000", "--lengths", "64,256,1024", "--protocol", PROTOCOLS]
    measure(tmp_path / "run", *flags, "--last-k", "32", "--max-tokens", "6000", models=(reference("copier", "copier"),))
    run = read_run(tmp_path / "run")
    regret = values(run, "regret_nats")
    assert len(regret) == 12
    assert regret.value.abs().max() < FLOAT32
    fell = values(run, "nll_nats").loc["optimum"].loc["anchored-32"].value
    # A doubling shows the values of one group of names of twelve more, which are 5 of 8 tokens: 0.217 nats.
    assert fell.loc[256] - fell.loc[1024] == pytest.approx(2 * 5 / 8 / 12 * math.log(64), rel=0.5)


def test_the_optimum_is_the_first_model_and_no_row_of_other_text_is_different(tmp_path: Path) -> None:
    flags = ["--lengths", "32,64", "--max-tokens", "1000"]
    said = measure(tmp_path / "urn", "--data", "urn?length=300", *flags, models=(reference("none", "uniform"),))
    run = read_run(tmp_path / "urn")
    assert list(dict.fromkeys(run.rows.model)) == ["optimum", "none"]
    assert set(run.rows[run.rows.model == "optimum"].dtype) == {"float64"}
    assert {"regret.png", "regret.svg"} <= {path.name for path in (tmp_path / "urn" / "figures").iterdir()}
    assert "regret" in said and "what a model gained over what the optimum gained from 32 tokens" in said
    (tmp_path / "text.txt").write_text("".join("ABC"[number * number % 3] for number in range(400)))
    measure(tmp_path / "other", "--data", str(tmp_path / "text.txt"), *flags, models=(reference("none", "uniform"),))
    other = read_run(tmp_path / "other").rows
    assert set(other.model) == {"none"}
    assert not (tmp_path / "other" / "figures" / "regret.png").exists()
    assert set(other.metric) == {"nll_nats", "perplexity", "bits_per_byte"}


def test_text_whose_tokens_are_no_symbols_has_no_optimum_and_says_so(tmp_path: Path) -> None:
    flags = ["--data", "urn?length=300&symbols=4", "--lengths", "32", "--max-tokens", "1000"]
    chosen = ["-m", reference("none", "uniform?symbols=4")]
    quiet = told("ppl", *chosen, "--tokenizer", "bytes", *flags, "--pack", "--out", str(tmp_path / "packed"), code=0)
    assert "can be guessed at best is known of single documents; leave out --pack" in quiet
    assert set(read_run(tmp_path / "packed").rows.model) == {"none"}
    (tmp_path / "upper.txt").write_text("ABCD")
    char = ["-m", reference("none", "uniform_ids?symbols=4"), "--tokenizer", f"char:{tmp_path / 'upper.txt'}"]
    told("ppl", *char, *flags, "--out", str(tmp_path / "char"), "-q", code=0)
    assert set(read_run(tmp_path / "char").rows.model) == {"optimum", "none"}, "a character is a symbol"
    (tmp_path / "folded.json").write_text('{"<unk>": 0, "A": 1, "B": 2}')
    folded = ["-m", reference("none", "uniform_ids?symbols=4"), "--tokenizer", f"char:{tmp_path / 'folded.json'}"]
    said = told("ppl", *folded, *flags, "--out", str(tmp_path / "folded"), code=0)
    assert "as --tokenizer bytes has them" in said
    assert set(read_run(tmp_path / "folded").rows.model) == {"none"}


def test_a_model_cannot_be_called_optimum_here(tmp_path: Path) -> None:
    flags = ["--data", "urn?length=300", "--lengths", "32", "--max-tokens", "1000"]
    said = measure(tmp_path / "run", *flags, models=(reference("optimum", "uniform"),), code=2)
    assert "a model is called 'optimum', as the best possible guess is" in said


def test_a_run_with_an_optimum_is_blessed_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--data", "urn?length=300", "--lengths", "32,64", "--max-tokens", "1000"]
    measure(tmp_path / "run", *flags, models=(reference("none", "uniform"),))
    told("compare", "run", "--bless", "good", code=0)
    assert "optimum" in told("compare", "run", "--baseline", "good", code=0)
    rows = (tmp_path / "run" / "rows.csv").read_text().splitlines()
    place = next(number for number, row in enumerate(rows) if "regret_nats" in row)
    value = rows[place].split(",")[12]
    rows[place] = rows[place].replace(value, "0.25", 1)
    (tmp_path / "run" / "rows.csv").write_text("\n".join([*rows, ""]))
    assert "regret_nats is 0.25 in the table" in told("compare", "run", "--baseline", "good", code=1)


@pytest.fixture
def lpe_eval(tmp_path: Path) -> Iterator[Warm]:
    with warm(tmp_path) as helper:
        yield helper


@pytest.mark.slow
def test_a_run_that_is_killed_ends_with_the_same_bytes(lpe_eval: Warm, tmp_path: Path) -> None:
    def argv(out: str) -> list[str]:
        models = [part for name in ("one", "other") for part in ("-m", reference(name, "bayes?symbols=8"))]
        text = ["--data", "urn?symbols=8&length=2000", "--lengths", "32,64,512", "--max-tokens", "6000"]
        return ["ppl", *models, *text, "--tokenizer", "bytes", "-q", "--out", out]

    assert lpe_eval.run(argv("whole"), tmp_path).code == 0
    for enough in (1, 4, 9):
        started = lpe_eval.start(argv("killed"), tmp_path)
        end = time.monotonic() + 60
        while len(list((tmp_path / "killed").glob("cells/*.json"))) < enough and time.monotonic() < end:
            time.sleep(0.002)
        assert lpe_eval.wait(started, 0).code in (0, -signal.SIGKILL)
    assert lpe_eval.run(argv("killed"), tmp_path).code == 0
    for name in ("rows.csv", "by_document.parquet", "by_position.parquet", "spec.yaml", "run.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
