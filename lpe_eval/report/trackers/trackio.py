"""Trackio: `pip install 'lpe-eval[trackio]'`. It keeps runs on this machine, in the folder of `TRACKIO_DIR`."""

from pathlib import Path
from typing import Any

from lpe_eval.records import Point
from lpe_eval.report.tracker import PROJECT, Tracked, Tracker


class Trackio(Tracker):
    """A run of Trackio, whose step is the length, or the step of a training."""

    module = extra = "trackio"

    def __init__(self, run: Tracked) -> None:
        self._trackio = self.library()
        # Two runs of one name would be one there.
        name = f"{run.name}-{run.run[:8]}" if run.run else run.name
        settings: dict[str, Any] = {"config": {"kind": run.kind, **run.spec}, "embed": False}
        self._run = self._trackio.init(project=PROJECT, name=name, **settings)

    def log(self, point: Point) -> None:
        self._run.log({point.axis: point.at, **point.values}, step=point.at)

    def figure(self, path: Path) -> None:
        self._run.log({f"figures/{path.stem}": self._trackio.Image(str(path))})

    def end(self, failed: bool) -> None:
        self._run.finish()
