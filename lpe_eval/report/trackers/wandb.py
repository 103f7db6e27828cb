"""Weights & Biases: `pip install 'lpe-eval[wandb]'`. Where it logs to is what its own settings say (`WANDB_MODE`)."""

from pathlib import Path

from lpe_eval.records import Point
from lpe_eval.report.tracker import PROJECT, Tracked, Tracker


class Wandb(Tracker):
    """A run of W&B; lengths and steps are axes of its charts."""

    module = extra = "wandb"

    def __init__(self, run: Tracked) -> None:
        self._wandb = self.library()
        self._run = self._wandb.init(
            project=PROJECT,
            name=run.name,
            job_type=run.kind,
            config=dict(run.spec),
            settings=self._wandb.Settings(silent=True, console="off"),
        )
        self._axes: set[str] = set()

    def log(self, point: Point) -> None:
        if point.axis not in self._axes:
            self._axes.add(point.axis)
            self._run.define_metric(point.axis)
        for name in point.values:
            self._run.define_metric(name, step_metric=point.axis)
        self._run.log({point.axis: point.at, **point.values})

    def figure(self, path: Path) -> None:
        self._run.log({f"figures/{path.stem}": self._wandb.Image(str(path))})

    def end(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
