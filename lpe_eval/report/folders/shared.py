"""A folder that several processes fill at once, without a lock: shards of one run, on a shared file system.

    parts/plan.json              what all of them do, made by the first; a process that plans something else is refused
    parts/shard-2-of-4.json      where and with what one of them worked, as a provenance
    parts/rank-2-of-4.json       of ranks that torchrun started: whether it still works

Nobody waits for anybody. A file is written under a name of its own and then takes its name in one step, so that
whoever reads sees all of it or none; the plan is the only file that must not be replaced. `lpe-eval merge` makes the
tables and removes the folder `parts`.

Choices:
    * Locks of the kernel do not reach all machines of every file system, so none is needed.
    * What a process has to do follows from the plan and its number alone. Where two do the same work all the same, both
      write the same values.
"""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval import table
from lpe_eval.errors import OutputError, SpecError
from lpe_eval.part_records import Piece
from lpe_eval.plain import Unreadable, json_of, read_plain
from lpe_eval.report.folders.atomic import PARTIAL, write_once
from lpe_eval.spec.fingerprint import fingerprint

PARTS = "parts"
PLAN = "plan.json"
_PATIENCE = 5.0
"""Seconds until a plan that is there can be read; only where files have no second names is it ever written slowly."""


class SharedPlan(NamedTuple):
    """What all shards of a run do together.

    Attributes:
        more: what merging needs to know beside it.
    """

    kind: str
    run: str
    pieces: Sequence[Piece]
    more: Mapping[str, Any] = {}

    @property
    def fingerprint(self) -> str:
        """A hash of all of it; of shards with equal ones any may be missing or done twice."""
        return fingerprint([self.kind, self.run, [list(each) for each in self.pieces], dict(self.more)])

    @property
    def order(self) -> list[tuple[Any, ...]]:
        """The keys of all cells."""
        return [tuple(key) for each in self.pieces for key in each.cells]

    def content(self) -> bytes:
        """As it is stored."""
        content = {
            "kind": self.kind, "run": self.run, "schema": table.SCHEMA, "plan": self.fingerprint,
            "pieces": [list(each) for each in self.pieces], "more": dict(self.more),
        }  # fmt: skip
        return json.dumps(content).encode()


class Sharing(NamedTuple):
    """How a process takes part.

    Attributes:
        plan: of all.
        name: of this process among them, `2-of-4`; "" of one that merges.
    """

    plan: SharedPlan
    name: str


def read_plan(directory: Path) -> SharedPlan | None:
    """The plan of the shards that fill a folder; None where there is none.

    Raises:
        OutputError: it is damaged.
    """
    path = directory / PARTS / PLAN
    if not path.exists():
        return None
    try:
        found = json_of(read_plain(path))
        plan = SharedPlan(found["kind"], found["run"], [Piece(*each) for each in found["pieces"]], found["more"])
        if found["plan"] != plan.fingerprint or found["schema"] != table.SCHEMA:
            raise ValueError("its fingerprint is that of another plan")
    except (Unreadable, LookupError, TypeError, ValueError) as error:
        raise OutputError(f"{path} is damaged or of another version of lpe-eval; begin in another --out") from error
    return plan


def agree(directory: Path, plan: SharedPlan) -> None:
    """Makes the plan of a folder, or sees that it has this one.

    Raises:
        SpecError: the folder is filled by shards that planned something else.
        OutputError: its plan is damaged.
        OSError: it cannot be written.
    """
    (directory / PARTS).mkdir(exist_ok=True)
    until = time.monotonic() + _PATIENCE
    while not write_once(directory / PARTS / PLAN, plan.content()):
        try:
            found = read_plan(directory)
        except OutputError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
            continue
        if found is not None:
            if found.fingerprint != plan.fingerprint:
                raise SpecError(_told(directory, found, plan))
            return


def begun(directory: Path) -> list[str]:
    """The names of the shards that have begun in a folder."""
    names = [path.stem.removeprefix("shard-") for path in (directory / PARTS).glob("shard-*-of-*.json")]
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else 0 for part in name.split("-of-")][::-1])


def clear(directory: Path) -> None:
    """Removes what shards left of their work, the plan last; what cannot be removed stays."""
    places = [path for folder in (directory, *directory.glob("*/")) for path in folder.glob(f".*{PARTIAL}")]
    inside = sorted((directory / PARTS).glob("*"), key=lambda path: path.name == PLAN)
    for path in [*places, *inside]:
        with contextlib.suppress(OSError):
            path.unlink()
    with contextlib.suppress(OSError):
        (directory / PARTS).rmdir()


def _told(directory: Path, found: SharedPlan, plan: SharedPlan) -> str:
    what = "another run" if found.run != plan.run else "the same run cut otherwise"
    return (
        f"the shards in {directory} do {what} ({found.run} {found.fingerprint[:8]}, here {plan.run} "
        f"{plan.fingerprint[:8]}); give every shard the same flags, models, text and version, or another --out"
    )
