"""TensorBoard: `pip install 'lpe-eval[tensorboard]'`. Its files lie in `runs/<name>-<id>` of the current folder."""

from pathlib import Path

import yaml

from lpe_eval.records import Point
from lpe_eval.report.tracker import Tracked, Tracker


class Tensorboard(Tracker):
    """A folder of events; the step is the length, or the step of a training."""

    module = extra = "tensorboard"

    def __init__(self, run: Tracked) -> None:
        self.library()
        from torch.utils.tensorboard import SummaryWriter

        name = f"{run.name}-{run.run[:8]}" if run.run else run.name
        self._writer = SummaryWriter(log_dir=str(Path("runs") / name))
        self._writer.add_text("spec", f"```yaml\n{yaml.safe_dump(dict(run.spec), sort_keys=False)}```")

    def log(self, point: Point) -> None:
        for name, value in point.values.items():
            self._writer.add_scalar(name, value, point.at, new_style=True, double_precision=True)

    def figure(self, path: Path) -> None:
        from matplotlib.image import imread

        self._writer.add_image(f"figures/{path.stem}", imread(path), dataformats="HWC")

    def end(self, failed: bool) -> None:
        self._writer.close()
