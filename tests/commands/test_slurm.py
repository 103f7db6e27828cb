"""`lpe-eval slurm`: a script that bash can read, with what the queue needs, and nothing that does not fit."""

import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.commands.slurm import Job, script_of
from lpe_eval.errors import SpecError

PPL = ["ppl", "-m", "hf:org/name", "--lengths", "512,8192", "-o", "/shared/my sweep", "-q"]


def told(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["slurm", *arguments], env={"COLUMNS": "400"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def test_a_script_has_an_array_of_shards_and_a_job_that_merges_behind_it():
    flags = ["--array", "16", "--gpus", "1", "--mem", "64G", "--sbatch", "--account=mine", "--at-once", "4"]
    script = told(*flags[:4], *PPL, *flags[4:])
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    array, merging = script.split("merging=")
    for line in ("--array=1-16%4", "--gres=gpu:1", "--mem=64G", "--account=mine"):
        assert f"#SBATCH {line}\n" in array
    assert "#SBATCH --account=mine\n" in merging and "--gres" not in merging
    (called,) = [line for line in array.splitlines() if line.endswith("--shard slurm")]
    assert shlex.split(called)[1:] == ["-m", "lpe_eval", *PPL, "--shard", "slurm"]
    assert "afterany:" in merging and "merge '/shared/my sweep'\n" in merging


def test_a_value_of_a_flag_may_hold_anything_but_a_line_end():
    script = script_of(["ppl", "-m", "a b'$(c)", "--out", "o"], Job(2, setup="source my/bin/activate"), ("lpe-eval",))
    assert "lpe-eval ppl -m 'a b'\"'\"'$(c)' --out o --shard slurm" in script
    assert script.count("source my/bin/activate") == 2
    with pytest.raises(SpecError, match="one line"):
        script_of(["ppl", "-m", "a\nrm", "--out", "o"], Job(2))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["ppl", "-m", "alibi"], "--out"),
        (["speed", "--out", "x"], "one of ppl"),
        ([], "one of ppl"),
        (["ppl", "--out", "x", "--shard", "1/2"], "--shard"),
        (["ppl", "--out", "x", "--baseline=released"], "--baseline"),
        (["ppl", "--out", "x", "--overwrite"], "--overwrite"),
        (["ppl", "--out", "x", "--array", "0"], "--array"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: list[str], why: str):
    assert why in told(*arguments, code=2)


def test_where_no_queue_is_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no sbatch here" in told(*PPL, "--submit", code=1)
