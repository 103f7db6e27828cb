"""The main job through the real command line: real checkpoints on disk, real text, real files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.report.folders.ppl import read_run
from tests.support.native_checkpoints import checkpoint


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    named = {"alibi": "alibi", "rope": "rope", "dape": "dape(kerple_log)", "learned": "learned"}
    return {name: checkpoint(root / name, encoding) for name, encoding in named.items()}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for number in range(12):
        words = " ".join(f"word{(number * 7 + each * each) % 91}" for each in range(60))
        (folder / f"{number:02}.txt").write_text(words)
    return folder


def lpe_eval(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def rows_of(folder: Path, metric: str = "nll_nats") -> pd.DataFrame:
    rows = read_run(folder).rows
    return rows[rows.metric == metric].set_index(["model", "protocol", "length"])


def ppl(models: dict[str, Path], text: Path, out: Path, *more: object, names=("alibi", "rope"), code: int = 0) -> str:
    chosen = [part for name in names for part in ("-m", models[name])]
    return lpe_eval("ppl", *chosen, "--data", text, "--out", out, "--max-tokens", 1500, "-q", *more, code=code)


def test_the_main_job_writes_everything_it_promises(models, text, tmp_path):
    told = ppl(models, text, tmp_path / "run", "--lengths", "32,128", names=("alibi", "rope", "dape"))
    for name in ("alibi", "rope", "dape"):
        assert name in told
    assert {each.name for each in (tmp_path / "run").iterdir() if not each.name.startswith(".")} == {
        "rows.csv", "cost.csv", "by_document.parquet", "by_position.parquet", "provenance.json", "spec.yaml",
        "run.json", "cells", "figures", "changes.csv", "position_fit.csv",
    }  # fmt: skip
    assert (tmp_path / "run" / "figures" / "perplexity.png").stat().st_size > 10_000
    assert (tmp_path / "run" / "figures" / "perplexity.svg").exists()
    run = read_run(tmp_path / "run")
    assert len(run.rows) == 3 * 2 * 2 * 3
    assert set(run.rows.status) == {"ok"}
    assert len(run.cost) == 3 * 2 * 2


def test_every_length_scores_the_same_text(models, text, tmp_path):
    ppl(models, text, tmp_path / "run", "--lengths", "16,32,128", "--protocol", "nonoverlap,sliding,anchored")
    rows = rows_of(tmp_path / "run").reset_index()
    for _, group in rows.groupby(["model", "protocol"]):
        assert group.n_tokens.nunique() == 1


@pytest.mark.slow
def test_the_value_is_that_of_a_plain_loop_over_the_model(models, text, tmp_path):
    flags = ("--lengths", "32,64", "--protocol", "nonoverlap,sliding", "--stride", "10", "--max-tokens", "300")
    ppl(models, text, tmp_path / "run", *flags)
    run = read_run(tmp_path / "run")
    documents = dict(_kept(run, text))
    from lpe_eval.model.checkpoint import LoadOptions

    for name in ("alibi", "rope"):
        model = Native.load(models[name], LoadOptions(torch.device("cpu"), attention="dense"))
        for length in (32, 64):
            for protocol, stride in (("nonoverlap", length), ("sliding", 10)):
                nats, count = 0.0, 0
                for tokens in documents.values():
                    for target in range(1, len(tokens)):
                        # The window of a target: the first whose last target is not before it.
                        number = max(0, -(-(target - length) // stride))
                        start = number * stride
                        fed = torch.tensor(tokens[start:target])[None]
                        state = model.hidden(fed, 1, torch.Generator())[0]
                        nats -= torch.log_softmax(model.logits(state).double(), -1)[0, tokens[target]].item()
                        count += 1
                row = rows_of(tmp_path / "run").loc[(name, protocol, length)]
                assert row.n_tokens == count
                assert row.value == pytest.approx(nats / count, rel=1e-6)


def _kept(run, text: Path):
    """The documents of a run, cut as its provenance says."""
    (chosen,) = {tuple(map(tuple, each["documents"])) for each in run.provenance["models"].values()}
    for name, _, count in chosen:
        found = next(path for path in text.rglob("*.txt") if path.name == Path(name).name)
        yield name, list(found.read_bytes())[:count]


def test_sliding_by_a_whole_length_gives_the_nonoverlapping_rows(models, text, tmp_path):
    ppl(models, text, tmp_path / "run", "--lengths", "32", "--protocol", "nonoverlap,sliding", "--stride", "32")
    rows = rows_of(tmp_path / "run")
    for name in ("alibi", "rope"):
        assert rows.loc[(name, "nonoverlap", 32)].value == rows.loc[(name, "sliding", 32)].value


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("-b", "1"), ("-b", "7"), ("--attention", "dense")], ids=str)
def test_batch_and_path_move_nothing_beyond_rounding(models, text, tmp_path, flags):
    ppl(models, text, tmp_path / "a", "--lengths", "16,64", names=("alibi", "rope", "dape"))
    ppl(models, text, tmp_path / "b", "--lengths", "64,16", *flags, names=("alibi", "rope", "dape"))
    first, second = rows_of(tmp_path / "a").value, rows_of(tmp_path / "b").value
    assert (first - second.reindex(first.index)).abs().max() <= 1e-6 * first.max()


def test_the_same_command_gives_the_same_bytes(models, text, tmp_path):
    for out in ("a", "b"):
        ppl(models, text, tmp_path / out, "--lengths", "16,32")
    for name in ("rows.csv", "by_document.parquet", "figures/perplexity.png", "spec.yaml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_learned_table_that_ends_is_not_available_beyond_and_the_others_are(models, text, tmp_path):
    told = ppl(models, text, tmp_path / "run", "--lengths", "32,64", names=("alibi", "learned"))
    rows = rows_of(tmp_path / "run")
    assert rows.loc[("learned", "nonoverlap", 32)].status == "ok"
    assert rows.loc[("learned", "nonoverlap", 64)].status == "n/a"
    assert rows.loc[("alibi", "nonoverlap", 64)].status == "ok"
    assert "n/a" in told and "positions for 32 tokens" in " ".join(told.split())


def test_weights_that_are_not_finite_make_an_error_and_exit_code_four(models, text, tmp_path):
    broken = checkpoint(tmp_path / "broken")
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    weights["layers.1.mlp_out.weight"][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors")
    told = lpe_eval("ppl", "-m", broken, "-m", models["rope"], "--data", text, "--lengths", 32, "--max-tokens", 500,
                    "--out", tmp_path / "run", "-q", code=4)  # fmt: skip
    rows = rows_of(tmp_path / "run")
    assert rows.loc[("broken", "nonoverlap", 32)].status == "error"
    assert rows.loc[("rope", "nonoverlap", 32)].status == "ok"
    assert "not finite" in " ".join(told.split())


def test_a_run_goes_on_where_it_stopped_and_measures_nothing_twice(models, text, tmp_path, monkeypatch):
    ppl(models, text, tmp_path / "whole", "--lengths", "16,32")
    from lpe_eval.report.folders.ppl import PerplexityFolder

    original, saved = PerplexityFolder.save, []

    def stops_after_three(self, measurement, rows):
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(measurement.key)
        original(self, measurement, rows)

    monkeypatch.setattr(PerplexityFolder, "save", stops_after_three)
    told = ppl(models, text, tmp_path / "stopped", "--lengths", "16,32", code=130)
    assert "what was finished is kept" in " ".join(told.split())
    assert len(pd.read_csv(tmp_path / "stopped" / "rows.csv")) == 3 * 3

    again = []
    monkeypatch.setattr(
        PerplexityFolder,
        "save",
        lambda self, measurement, rows: (again.append(measurement.key), original(self, measurement, rows)),
    )
    ppl(models, text, tmp_path / "stopped", "--lengths", "16,32")
    assert not set(again) & set(saved) and len(again) + len(saved) == 8
    assert (tmp_path / "stopped" / "rows.csv").read_bytes() == (tmp_path / "whole" / "rows.csv").read_bytes()


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_a_run_that_ends_the_same(models, text, tmp_path):
    command = [
        *(sys.executable, "-m", "lpe_eval", "ppl", "-m", models["alibi"], "-m", models["dape"], "--data", text),
        *("--lengths", "16:128:x2", "--max-tokens", "1500", "-q", "--out"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*map(str, command), str(tmp_path / "whole")], check=True, capture_output=True, env=environment)
    killed = 0
    for delay in (0.2, 0.3, 0.5):
        process = subprocess.Popen(
            [*map(str, command), str(tmp_path / "killed")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        cells = tmp_path / "killed" / "cells"
        before = len(list(cells.glob("*.json")))
        while process.poll() is None and len(list(cells.glob("*.json"))) <= before:
            time.sleep(0.01)
        time.sleep(delay / 10)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    subprocess.run([*map(str, command), str(tmp_path / "killed")], check=True, capture_output=True, env=environment)
    assert (tmp_path / "killed" / "rows.csv").read_bytes() == (tmp_path / "whole" / "rows.csv").read_bytes()


def test_a_dry_run_counts_what_a_run_would_do_and_writes_nothing(models, text, tmp_path):
    told = ppl(
        models, text, tmp_path / "dry", "--lengths", "32", "--protocol", "nonoverlap", "--dry-run", names=("rope",)
    )
    assert not (tmp_path / "dry").exists()
    ppl(models, text, tmp_path / "run", "--lengths", "32", "--protocol", "nonoverlap", names=("rope",))
    run = read_run(tmp_path / "run")
    assert str(run.rows.n_tokens.iloc[0]) in told and str(run.cost.n_windows.iloc[0]) in told
    assert "minutes" in told


def test_a_spec_file_runs_again_to_the_same_rows(models, text, tmp_path):
    ppl(models, text, tmp_path / "a", "--lengths", "16")
    lpe_eval("run", tmp_path / "a" / "spec.yaml", "--out", tmp_path / "b", "-q")
    assert (tmp_path / "a" / "rows.csv").read_bytes() == (tmp_path / "b" / "rows.csv").read_bytes()


def test_several_runs_are_drawn_together(models, text, tmp_path):
    ppl(models, text, tmp_path / "a", "--lengths", "16,32", names=("alibi",))
    ppl(models, text, tmp_path / "b", "--lengths", "16,32", names=("rope",))
    told = lpe_eval("plot", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "both")
    assert (tmp_path / "both" / "perplexity.png").exists() and "perplexity.svg" in told


def test_sampled_positions_give_one_value_whatever_the_batch(text, tmp_path):
    model = checkpoint(tmp_path / "randomized", {"name": "randomized", "max_length": 256, "base": {"name": "rope"}})
    for out, size in (("a", 1), ("b", 5)):
        lpe_eval("ppl", "-m", model, "--data", text, "--lengths", 32, "--max-tokens", 900, "--out", tmp_path / out,
                 "-q", "-b", size)  # fmt: skip
    first, second = rows_of(tmp_path / "a").value, rows_of(tmp_path / "b").value
    assert (first - second).abs().max() < 1e-6 * first.max()


@pytest.mark.parametrize("pack", [False, True])
def test_the_default_text_is_measured_by_a_small_model(models, tmp_path, pack):
    flags = ("--pack",) if pack else ()
    lpe_eval(
        "ppl", "-m", models["alibi"], "--lengths", 64, "--max-tokens", 600, "--out", tmp_path / "run", "-q", *flags
    )
    row = rows_of(tmp_path / "run").loc[("alibi", "nonoverlap", 64)]
    assert (row.corpus, row.split, row.task) == ("python-stdlib", "test", "python-stdlib")
