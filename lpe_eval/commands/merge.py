"""Shards into one run: an operation on files, without models and without text.

A kind of run whose cells have parts, or that leaves more than tables of items, has a function
`merged(directory, plan, spec_text)` in its command: it makes everything that follows from the cells of the plan that
are there, and gives a `Merged`. Of other kinds `run.merged_items` does.

Choices:
    * Tables are made of what is there, even where something is missing: a run of many hours is looked at before its
      last shard has ended. What is missing is told, and the end is that of a run with failed cells.
    * Merging again gives the same bytes, and so do two merges at once.
"""

from collections.abc import Sequence
from pathlib import Path

from lpe_eval.errors import SpecError
from lpe_eval.measure.progress import Tell
from lpe_eval.registry import COMMANDS
from lpe_eval.report.folders.gathering import bring, common_plan, spec_text_of
from lpe_eval.report.folders.shared import begun, clear
from lpe_eval.run import Outcome, merged_items

_TOLD = 5
"""Missing pieces that are named."""


def merge(folders: Sequence[Path], out: Path | None, tell: Tell) -> Outcome:
    """Makes one run of what shards left in one folder or in several.

    Args:
        folders: of the shards.
        out: where the run is put together; None is the one folder that is given.
        tell: takes a sentence for the user.

    Raises:
        SpecError: the folders hold no shards, shards of different plans, or different values of one cell.
        OutputError: something is damaged, or cannot be written.
    """
    if out is None and len(folders) > 1:
        raise SpecError("several folders are merged into one of their own: name it with --out")
    target, plan = out or folders[0], common_plan(folders)
    if plan is None:
        tell(f"{folders[0]} holds no shards that wait to be merged; its tables are as they were")
        return Outcome(folders[0])
    text = spec_text_of(folders[0])
    make = COMMANDS.function(plan.kind, "merged") if COMMANDS.has(plan.kind, "merged") else merged_items
    others = [folder for folder in folders if folder.resolve() != target.resolve()]
    if others:
        if all(folder.resolve() != target.resolve() for folder in folders):
            # Makes the folder, or is refused by it.
            make(target, plan, text)
        for folder in others:
            bring(folder, target)
    known = begun(target)
    outcome, missing = make(target, plan, text)
    if not missing:
        clear(target)
        return outcome
    named = "; ".join(missing[:_TOLD]) + ("; ..." if len(missing) > _TOLD else "")
    shards = f" ({', '.join(name.replace('-of-', '/') for name in known)} have begun)" if known else ""
    sentence = f"{len(missing)} pieces are missing{shards}: {named}; run their shards again, and then merge"
    return outcome._replace(failed="; ".join(filter(None, [sentence, outcome.failed])))
