"""The contract of a tracker of experiments, to which `--log-to` hands a finished run.

A tracker is one file in `trackers/`, named like the service, and needs an extra of the same name, which is imported
when the tracker is asked for and never else. It gets the spec, then the values point by point (curves over length, or
over the steps of a training), then the figures. What it raises never costs the run: the run is on disk by then, and a
note says what went wrong.
"""

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from lpe_eval.errors import MissingExtra, one_sentence
from lpe_eval.records import Point
from lpe_eval.registry import TRACKERS
from lpe_eval.report.kind import Found

PROJECT = "lpe-eval"
"""What services call the place of all runs."""


class Tracked(NamedTuple):
    """A run as a tracker is told of it.

    Attributes:
        name: of its folder.
        run: its id.
        kind: what sort of run.
        spec: what was asked.
    """

    name: str
    run: str
    kind: str
    spec: Mapping[str, Any]


class Tracker(ABC):
    """One run at one service.

    Attributes:
        module: what is imported of the extra.
        extra: its name.

    Args:
        run: what is logged.
    """

    module: ClassVar[str]
    extra: ClassVar[str]

    @abstractmethod
    def __init__(self, run: Tracked) -> None: ...

    @abstractmethod
    def log(self, point: Point) -> None:
        """Takes the values at one length, or at one step. Points of one axis come in their order."""

    @abstractmethod
    def figure(self, path: Path) -> None:
        """Takes a figure, a PNG file."""

    @abstractmethod
    def end(self, failed: bool) -> None:
        """Ends the run at the service; nothing comes after it."""

    @classmethod
    def library(cls) -> Any:
        """The module of the extra.

        Raises:
            MissingExtra: it is not installed.
        """
        try:
            return importlib.import_module(cls.module)
        except ImportError as error:
            raise MissingExtra(f"--log-to {cls.extra}", cls.extra) from error


def trackers(names: Sequence[str]) -> dict[str, type[Tracker]]:
    """The trackers of these names, each ready to be used; several names may stand in one with commas.

    Raises:
        UnknownName: there is no such tracker.
        MissingExtra: its extra is not installed.
    """
    wanted = dict.fromkeys(part.strip() for each in names for part in each.split(",") if part.strip())
    found: dict[str, type[Tracker]] = {name: TRACKERS.load(name) for name in wanted}
    for tracker in found.values():
        tracker.library()
    return found


def log_run(found: Found, chosen: Mapping[str, type[Tracker]]) -> Iterator[str]:
    """Hands a run to trackers, one after the other; yields a sentence for each that failed."""
    for name, tracker in chosen.items():
        try:
            # Services greet on stdout, which belongs to the tables.
            with redirect_stdout(StringIO()):
                _hand_over(found, tracker)
        except Exception as error:
            yield f"{name} did not get everything: {one_sentence(error)}; the run itself is complete in {found.path}"


def _hand_over(found: Found, tracker: type[Tracker]) -> None:
    told = Tracked(found.path.name, str(found.provenance.get("run", "")), found.kind.name, found.spec)
    opened, done = tracker(told), False
    try:
        for point in found.kind.points(found):
            finite = {name: value for name, value in point.values.items() if math.isfinite(value)}
            if finite:
                opened.log(point._replace(values=finite))
        for path in sorted((found.path / "figures").glob("*.png")):
            opened.figure(path)
        done = True
    finally:
        opened.end(not done)
