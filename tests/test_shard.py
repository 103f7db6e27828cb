"""Which share of the work a process does."""

import random

import pytest

from lpe_eval.errors import SpecError
from lpe_eval.shard import Shard, asked_shard, shares

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node", "MASTER_PORT": "29500"}
ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"}


def test_every_piece_has_one_shard_and_shards_are_stretches():
    draw = random.Random(3)
    for _ in range(300):
        work = [draw.choice([0, 1, 5, 100]) for _ in range(draw.randint(0, 40))]
        count = draw.randint(1, 9)
        found = shares(work, count)
        assert len(found) == len(work) and found == sorted(found)
        assert all(0 <= place < count for place in found)
        for number, (each, place) in enumerate(zip(work, found, strict=True)):
            if not each and number:
                assert place == found[number - 1], "what is no work goes with what stands before it"
        # Nobody does more than an even share and one whole piece, half of which may stick out on each side.
        for number in range(count):
            own = sum(each for each, place in zip(work, found, strict=True) if place == number)
            assert own <= sum(work) / count + max(work, default=0)


def test_shares_do_not_depend_on_what_is_finished_and_are_even():
    assert shares([1] * 10, 4) == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert shares([10, 1, 1], 2) == [0, 1, 1]
    assert shares([0, 0, 0], 3) == [0, 0, 0]
    assert shares([5], 3) == [1]
    assert shares([1, 1, 1, 1], 1) == [0, 0, 0, 0]


def test_a_shard_is_asked_for_by_hand():
    assert asked_shard(None, {}) is None
    assert asked_shard("2/8", {}) == Shard(2, 8)
    assert str(asked_shard(" 8 / 8 ", {})) == "8/8"


@pytest.mark.parametrize("text", ["0/8", "9/8", "2", "a/b", "-1/4", "2/0", "1/2/3", ""])
def test_what_is_no_shard_is_refused(text: str):
    with pytest.raises(SpecError, match="--shard"):
        asked_shard(text, {})


def test_a_job_array_counts_only_where_it_is_asked_for():
    assert asked_shard(None, ARRAY) is None
    assert asked_shard("slurm", ARRAY) == Shard(3, 4)
    assert asked_shard("slurm", {**ARRAY, "SLURM_ARRAY_TASK_STEP": "2"}) == Shard(2, 4)
    with pytest.raises(SpecError, match="sbatch --array"):
        asked_shard("slurm", {})
    with pytest.raises(SpecError, match="none of 4"):
        asked_shard("slurm", {**ARRAY, "SLURM_ARRAY_TASK_ID": "30"})
    with pytest.raises(SpecError, match="whole number"):
        asked_shard("slurm", {**ARRAY, "SLURM_ARRAY_TASK_ID": "x"})


def test_a_rank_is_what_torchrun_started_and_no_shell_of_a_queue():
    found = asked_shard(None, TORCHRUN)
    assert found is not None and (found.number, found.total, found.local) == (6, 8, 1)
    assert found.is_rank and not found.leads
    first = asked_shard(None, {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"})
    assert first is not None and first.leads
    # What SLURM sets in an interactive shell, and what mpirun sets.
    assert asked_shard(None, {"WORLD_SIZE": "8", "RANK": "0", "SLURM_PROCID": "0"}) is None
    assert asked_shard(None, {key: TORCHRUN[key] for key in TORCHRUN if key != "MASTER_ADDR"}) is None
    assert asked_shard("1/2", {}) == Shard(1, 2)
    with pytest.raises(SpecError, match="torchrun"):
        asked_shard("1/2", TORCHRUN)
    with pytest.raises(SpecError, match="RANK"):
        asked_shard(None, {**TORCHRUN, "RANK": "8"})
