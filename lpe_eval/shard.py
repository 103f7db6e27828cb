"""Which share of a run's work a process does: asked for by hand, by a SLURM job array, or by torchrun.

The work of a run is a list of pieces in the order of its plan, which is model by model. Shard I of N does a stretch of
that list, so it opens few models, each once. The stretches follow from the plan and from N alone: no process asks
another one for anything, and what was finished before changes nothing.

Choices:
    * SLURM sets the variables of a job array, and torchrun's WORLD_SIZE, in shells that people type in as well. An
      array counts only behind `--shard slurm`; ranks count only where LOCAL_RANK and MASTER_ADDR are both set, as
      torchrun does and no queue.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lpe_eval.errors import SpecError

_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
_RANK = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")


class Shard(NamedTuple):
    """A process among those that do one run.

    Attributes:
        number: from 1.
        total: how many there are.
        local: of a rank of torchrun, its number among those of its machine, from 0; else None.
        launch: of a rank, what tells this start of all ranks from others.
    """

    number: int
    total: int
    local: int | None = None
    launch: str = ""

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    @property
    def is_rank(self) -> bool:
        """Whether torchrun started it, so that the first rank puts the run together."""
        return self.local is not None

    @property
    def leads(self) -> bool:
        """Whether it is the first rank."""
        return self.is_rank and self.number == 1


def asked_shard(text: str | None, environ: Mapping[str, str]) -> Shard | None:
    """The shard that a process is, or None where it does all of the work.

    Args:
        text: what `--shard` says: `2/8`, or `slurm`; None where the flag was not given.
        environ: the environment.

    Raises:
        SpecError: the text says no shard, or the environment contradicts it.
    """
    rank = _rank(environ)
    if text is None:
        return rank
    if rank is not None:
        raise SpecError("--shard: torchrun makes each of its processes a shard already; leave the flag out")
    if text.strip().lower() == "slurm":
        return _of_array(environ)
    found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
    if found is None:
        raise SpecError(f"--shard {text}: write which of how many, such as 2/8, or slurm inside a job array")
    index, count = int(found[1]), int(found[2])
    if not 1 <= index <= count:
        raise SpecError(f"--shard {text}: shards are counted from 1/{max(count, 1)} to {max(count, 1)}/{max(count, 1)}")
    return Shard(index, count)


def shares(work: Sequence[int], count: int) -> list[int]:
    """For each piece of work, which of `count` shards does it, from 0; rising, and as even as whole pieces allow.

    A piece goes to the shard in whose share of all work its middle lies. One without work goes with the one before it.

    Args:
        work: of each piece, in any unit.
        count: of shards.
    """
    total, before, place = sum(work), 0, 0
    found: list[int] = []
    for each in work:
        if each > 0:
            place = (2 * before + each) * count // (2 * total)
        found.append(place)
        before += each
    return found


def _rank(environ: Mapping[str, str]) -> Shard | None:
    if not environ.get("LOCAL_RANK") or not environ.get("MASTER_ADDR"):
        return None
    rank, world, local = (_whole(environ, name) for name in _RANK[:3])
    if not 0 <= rank < world:
        raise SpecError(f"RANK is {rank} and WORLD_SIZE is {world}, which no launcher sets; unset LOCAL_RANK")
    told = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    return Shard(rank + 1, world, local, "-".join(environ.get(name, "") for name in told))


def _of_array(environ: Mapping[str, str]) -> Shard:
    if not all(environ.get(name) for name in _ARRAY):
        raise SpecError(f"--shard slurm: {' and '.join(_ARRAY)} are not set here; submit it with sbatch --array=1-N")
    task, count = (_whole(environ, name) for name in _ARRAY)
    first = _whole(environ, "SLURM_ARRAY_TASK_MIN") if environ.get("SLURM_ARRAY_TASK_MIN") else 1
    step = _whole(environ, "SLURM_ARRAY_TASK_STEP") if environ.get("SLURM_ARRAY_TASK_STEP") else 1
    index = (task - first) // max(step, 1) + 1
    if not 1 <= index <= count:
        raise SpecError(
            f"--shard slurm: task {task} is none of {count} in a row; give the array as 1-N, or name --shard I/N"
        )
    return Shard(index, count)


def _whole(environ: Mapping[str, str], name: str) -> int:
    try:
        return int(environ[name])
    except (KeyError, ValueError):
        raise SpecError(f"{name} is {environ.get(name, '')!r} and has to be a whole number") from None
