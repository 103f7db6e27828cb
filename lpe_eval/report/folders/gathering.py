"""What shards wrote in folders of their own, brought into one: cells, parts, losses of tokens, weights.

A file that both have stays as it is where it says the same; what a cell cost, and nothing else, may differ.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lpe_eval.errors import OutputError, SpecError
from lpe_eval.plain import Unreadable, json_of
from lpe_eval.report.folders.atomic import PARTIAL, write_atomically
from lpe_eval.report.folders.cells import CELLS
from lpe_eval.report.folders.folder import SPEC
from lpe_eval.report.folders.marker import read_marker
from lpe_eval.report.folders.provenance import earlier_provenance
from lpe_eval.report.folders.shared import PARTS, PLAN, SharedPlan, begun, read_plan
from lpe_eval.report.folders.tokens import BY_TOKEN

_KEPT = ("snapshots", "checkpoints")
"""What else is brought over, of trainings."""
_MAY_DIFFER = ("cost", "seconds", "peak_memory_mib", "batch_tokens", "tokens")


def common_plan(folders: Sequence[Path]) -> SharedPlan | None:
    """The plan of the shards in some folders; None where the only one holds none any more.

    Raises:
        SpecError: a folder holds no run, or they hold shards that planned different things.
        OutputError: something is damaged.
    """
    found: SharedPlan | None = None
    for folder in folders:
        run, plan = read_marker(folder), read_plan(folder)
        if run is None:
            raise SpecError(f"{folder} holds no run; name folders that shards were given as --out")
        if plan is None and len(folders) == 1:
            return None
        if plan is None:
            raise SpecError(f"{folder} holds no shards: its tables are there already, or it was measured in one piece")
        if found is not None and found.fingerprint != plan.fingerprint:
            raise SpecError(
                f"{folder} and {folders[0]} hold shards of different plans ({plan.run} {plan.fingerprint[:8]} and "
                f"{found.run} {found.fingerprint[:8]}): other flags, models, text or version; merge those that belong "
                "together"
            )
        found = plan
    return found


def bring(source: Path, target: Path) -> None:
    """Copies what shards finished in `source` into `target`, each file whole or not at all.

    Raises:
        SpecError: both have a cell or a part, with different values.
        OutputError: something cannot be read or written.
    """
    for folder in (CELLS, PARTS, BY_TOKEN):
        for path in _files(source / folder, "*"):
            if path.name != PLAN:
                _bring_one(path, target / folder / path.name)
    for folder in _KEPT:
        for path in _files(source / folder, "**/*"):
            _bring_one(path, target / path.relative_to(source))


def spec_text_of(folder: Path) -> str:
    """The spec of a run as it is stored.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        return (folder / SPEC).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"cannot read {folder / SPEC}; give the folder that shards wrote to") from error


def refuse_other_counts(plan: SharedPlan, counts: Mapping[Any, int], where: Path) -> None:
    """Nothing, if every cell scored as many targets as was planned.

    Args:
        plan: of the shards.
        counts: of each cell with a value, how many targets it scored.
        where: the folder.

    Raises:
        OutputError: one did not.
    """
    for cell, planned in (pair for piece in plan.pieces for pair in piece.planned()):
        if planned not in (None, counts.get(tuple(cell), planned)):
            name = " ".join(map(str, cell))
            raise OutputError(
                f"{name} in {where} scored {counts[tuple(cell)]} targets, and {planned} were planned; remove its file "
                "in cells/ and run its shard again"
            )


def joined_provenance(folder: Path) -> dict[str, Any]:
    """The provenance of a run that shards did: models as whoever opened them tells, and the starts of all.

    Where it was merged before, those starts stay. An environment stands beside a start where it is not that of the
    first shard.
    """
    before = earlier_provenance(folder)
    read = {name: earlier_provenance(folder, f"{PARTS}/shard-{name}.json") for name in begun(folder)}
    shards = {name: each for name, each in read.items() if each}
    if not shards:
        return before
    first = next(iter(shards.values()))
    models: dict[str, Any] = {}
    for each in [*shards.values(), before]:
        for name, facts in each.get("models", {}).items():
            known = models.setdefault(name, dict(facts))
            if not known.get("opened"):
                known["opened"] = facts.get("opened")
    starts: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, each in [("", before), *shards.items()]:
        for start in each.get("starts", []):
            there = start.get("environment", each.get("environment"))
            told = {key: value for key, value in start.items() if key != "environment"}
            told |= {"shard": name.replace("-of-", "/")} if name else {}
            told |= {} if there in (None, first.get("environment")) else {"environment": there}
            # One that was merged before may have gone on since.
            starts[told.get("shard"), told.get("began"), str(told.get("argv"))] = told
    paths = [path for each in [*shards.values(), before] for path in each.get("attention", [])]
    return {**first, "models": models, "attention": list(dict.fromkeys(paths)), "starts": list(starts.values())}


def _files(folder: Path, pattern: str) -> Iterable[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.endswith(PARTIAL))


def _bring_one(path: Path, there: Path) -> None:
    try:
        content = path.read_bytes()
        if there.exists():
            if path.parent.name in (CELLS, PARTS) and not path.name.startswith(("shard-", "rank-")):
                _refuse_different(path, content, there)
            return
        there.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(there, content, private=True)
    except OSError as error:
        raise OutputError(
            f"cannot copy {path} to {there}: {error.strerror}; merging again goes on from there"
        ) from error


def _refuse_different(path: Path, content: bytes, there: Path) -> None:
    if path.suffix != ".json":
        return
    try:
        one, other = _values(json_of(content)), _values(json_of(there.read_bytes()))
    except (Unreadable, AttributeError, TypeError) as error:
        raise OutputError(f"{path} or {there} is damaged; remove it and run its shard again") from error
    if one != other:
        raise SpecError(
            f"{path} and {there} hold different values of the same thing: they were not measured alike (by another "
            "device, library or number of threads); merge folders of one kind of machine, or remove one of the files"
        )


def _values(content: dict[str, Any]) -> str:
    kept = {key: value for key, value in content.items() if key not in _MAY_DIFFER}
    # Of a cell in a part, the seconds stand behind key, blocks and positions.
    kept["cells"] = [[*each[:3], *each[4:]] for each in content.get("cells", [])]
    return json.dumps(kept)
