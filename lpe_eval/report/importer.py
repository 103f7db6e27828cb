"""The contract of a format of results that other programs write, so that `compare` can judge them.

A format is one file in `importers/`, named like the program. It tells its folders from others, and makes rows that a
gate judges of what it finds: one for each task and score, with the sums of every document, which pair two outputs.

What is judged so has one model a folder, of whatever name, and no text of ours: two outputs are compared as they are.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from lpe_eval.registry import IMPORTERS
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.kind import open_folder


class Importer(ABC):
    """What another program wrote; members hold no state."""

    @classmethod
    @abstractmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether a folder holds what this program wrote; reads as little as it can."""

    @classmethod
    @abstractmethod
    def judged_rows(cls, folder: Path, source: str) -> list[Judged]:
        """The rows of a folder, of one model.

        Args:
            folder: that it recognises.
            source: what it is called.

        Raises:
            OutputError: a file is damaged.
            SpecError: it holds several models, or no scores of single documents.
        """


def importer_of(folder: Path) -> type[Importer] | None:
    """The format of a folder; None where no other program is known to have written it."""
    if not folder.is_dir():
        return None
    for name in IMPORTERS.names():
        found: type[Importer] = IMPORTERS.load(name)
        if found.recognises(folder):
            return found
    return None


def foreign_folder(text: str) -> Path | None:
    """The folder at a path, where another program wrote it; a name without a slash is never a folder."""
    place = Path(text).expanduser() if "/" in text or os.sep in text else None
    return place if place is not None and importer_of(place) is not None else None


def judged_rows_at(place: Path, source: str) -> list[Judged]:
    """The rows that a gate judges, of a run or of what another program wrote.

    Args:
        place: a folder.
        source: what it is called.

    Raises:
        SpecError: it cannot be compared.
        OutputError: it is damaged.
    """
    importer = importer_of(place)
    if importer is not None:
        return importer.judged_rows(place, source)
    found = open_folder(place)
    return found.kind.judged_rows(found, source)


def as_one_model(run: Sequence[Judged], baseline: Sequence[Judged]) -> list[Judged]:
    """The rows of a baseline under the model and the length of a run, each of which has one model.

    Two outputs are of two checkpoints with two names, and of whatever length each takes at most.
    """
    if not run:
        return list(baseline)
    name, length = run[0].row["model"], run[0].row["length"]
    return [each._replace(row={**each.row, "model": name, "length": length}) for each in baseline]
