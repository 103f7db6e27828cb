"""Many processes, real launchers, any kills: the bytes of one process, and nobody waits for somebody who is gone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lpe_eval.commands.slurm import Job, script_of
from tests.support.runs_to_end import che, furnished, ppl
from tests.support.small_parts import WORK
from tests.support.warm import ROOT, Started, Warm, warm

SCRIPT = ROOT / "tests" / "support" / "small_parts.py"
PPL = ("rows.csv", "by_document.parquet", "by_position.parquet", "changes.csv", "spec.yaml", "run.json")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
KILLS = 20


@pytest.fixture(scope="module")
def lpe_eval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("warm")) as helper:
        yield helper


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, lpe_eval: Warm) -> Path:
    folder = furnished(tmp_path_factory.mktemp("many"))
    for argv in (ppl("whole"), che("problems")):
        ended = lpe_eval.run(argv, folder, part_work=WORK)
        assert ended.code == 0, ended.stderr
    return folder


def torchrun(place: Path, count: int, argv: Sequence[str]) -> "subprocess.Popen[str]":
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.Popen(
        [*launcher, str(SCRIPT), *argv], cwd=place, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def alike(one: Path, other: Path, names: Sequence[str]) -> None:
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_ranks_of_torchrun_give_the_bytes_of_one_process(place: Path, count: int):
    out = f"by {count} ranks"
    launched = torchrun(place, count, [each for each in ppl(out) if each != "-q"])
    stdout, stderr = launched.communicate(timeout=540)
    assert launched.returncode == 0, stderr
    alike(place / out, place / "whole", PPL)
    assert stdout.count("bold is the lowest") == 1, "the first rank alone shows the table"
    starts = json.loads((place / out / "provenance.json").read_text())["starts"]
    assert [start["shard"] for start in starts] == [f"{number}/{count}" for number in range(1, count + 1)]
    assert not (place / out / "parts").exists()


@pytest.mark.slow
def test_ranks_of_torchrun_train_the_encoders_of_one_process(place: Path):
    launched = torchrun(place, 2, che("problems by ranks"))
    _, stderr = launched.communicate(timeout=540)
    assert launched.returncode == 0, stderr
    alike(place / "problems by ranks", place / "problems", ("che.csv", "summary.csv", "by_string.parquet", "spec.yaml"))


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_launch_and_costs_its_unfinished_part(place: Path, lpe_eval: Warm):
    launched, parts = torchrun(place, 2, ppl("one rank killed")), place / "one rank killed" / "parts"
    rank = parts / "rank-2-of-2.json"
    while not rank.exists() and launched.poll() is None:
        time.sleep(0.005)
    assert launched.poll() is None, launched.communicate()
    os.kill(json.loads(rank.read_text())["pid"], signal.SIGKILL)
    launched.communicate(timeout=120)
    assert launched.returncode != 0, "a launch of which a rank was killed has not succeeded"
    ended = lpe_eval.run(ppl("one rank killed"), place, part_work=WORK)
    assert ended.code == 0, ended.stderr
    alike(place / "one rank killed", place / "whole", PPL)
    assert not list(parts.glob("alibi*")), "parts become cells"


@pytest.mark.slow
def test_shards_killed_at_twenty_random_moments_lose_the_part_in_hand(place: Path, lpe_eval: Warm):
    moments, kills, seen, folders = random.Random(21), 0, set(), 0
    while kills < KILLS:
        out, before, left = f"killed shards {folders}", set(), {1, 2}
        folders += 1

        def start(number: int, out: str = out) -> Started:
            return lpe_eval.start([*ppl(out), "--shard", f"{number}/2"], place, part_work=WORK)

        while left and kills < KILLS:
            running = {number: start(number) for number in sorted(left)}
            wanted, end = len(before) + moments.randint(0, 3), time.monotonic() + 60
            while len(_kept(place / out)) < wanted and time.monotonic() < end:
                time.sleep(0.001)
            for number, started in running.items():
                ended = lpe_eval.wait(started, moments.uniform(0, 0.05))
                assert ended.code in (0, -signal.SIGKILL), ended.stderr
                kills += ended.code != 0
                left -= {number} if ended.code == 0 else set()
            now = _kept(place / out)
            assert before <= set(now), "what was finished stays"
            for path in now.values():
                json.loads(path.read_text())
            seen.add(len(now))
            before = set(now)
        for number in (1, 2):
            assert lpe_eval.wait(start(number)).code == 0
        merged = lpe_eval.run(["merge", out, "-q"], place, part_work=WORK)
        assert merged.code == 0, merged.stderr
        alike(place / out, place / "whole", PPL)
        assert not list((place / out).rglob("*.partial"))
    assert len(seen) > 3, "the moments are spread over the run"


def _kept(folder: Path) -> dict[str, Path]:
    """The cells and parts that are finished."""
    found = [path for inside in ("parts", "cells") for path in (folder / inside).glob("*.json")]
    return {path.name: path for path in found if not path.name.startswith(("rank", "shard", "plan"))}


@pytest.mark.slow
def test_a_job_array_of_slurm_gives_the_bytes_of_one_process(place: Path, tmp_path: Path):
    # What sbatch promises, done at once: each task with its variables, and what depends on them afterwards.
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        "#!/bin/bash\n"
        f"job=$(mktemp {tmp_path}/job.XXXX); cat > $job\n"
        "last=$(sed -n 's/^#SBATCH --array=1-\\([0-9]*\\).*/\\1/p' $job)\n"
        "if [ -z \"$last\" ]; then bash $job >&2; echo '8;here'; exit; fi\n"
        "for task in $(seq 1 $last); do SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$last "
        "SLURM_ARRAY_TASK_MIN=1 bash $job >&2; done\n"
        "echo '7;here'\n"
    )
    sbatch.chmod(0o755)
    script = script_of(ppl("by an array"), Job(2, asked={"mem": "2G"}), (sys.executable, str(SCRIPT)))
    environment = {**ENVIRONMENT, "PATH": f"{sbatch.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-s"], input=script, cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["shards: job 7", "merging: job 8"]
    alike(place / "by an array", place / "whole", PPL)
