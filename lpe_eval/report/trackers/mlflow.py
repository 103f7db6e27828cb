"""MLflow: `pip install 'lpe-eval[mlflow]'`. Where it logs to is what its own settings say (`MLFLOW_TRACKING_URI`).

The run that a program has opened itself stays as it is: all is done through a client.
"""

import re
from pathlib import Path

from lpe_eval.records import Point
from lpe_eval.report.tracker import PROJECT, Tracked, Tracker

_ALLOWED = re.compile(r"[^\w\-. /:]")
"""Of all names, what MLflow does not take."""


class Mlflow(Tracker):
    """A run of MLflow; the step is the length, or the step of a training."""

    module = extra = "mlflow"

    def __init__(self, run: Tracked) -> None:
        self._client = self.library().MlflowClient()
        known = self._client.get_experiment_by_name(PROJECT)
        place = self._client.create_experiment(PROJECT) if known is None else known.experiment_id
        tags = {"kind": run.kind, "lpe_eval.run": run.run}
        self._run: str = self._client.create_run(place, run_name=run.name, tags=tags).info.run_id
        self._client.log_dict(self._run, dict(run.spec), "spec.json")

    def log(self, point: Point) -> None:
        for name, value in point.values.items():
            self._client.log_metric(self._run, _ALLOWED.sub("_", name), value, step=point.at)

    def figure(self, path: Path) -> None:
        self._client.log_artifact(self._run, str(path), "figures")

    def end(self, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
