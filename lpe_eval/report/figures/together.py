"""The figures of a run, and of several runs of one kind together."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lpe_eval import table
from lpe_eval.errors import SpecError
from lpe_eval.report.figures.ppl import perplexity_figure, position_figure, save
from lpe_eval.report.folders.reading import Run, read_csv, read_run
from lpe_eval.report.folders.speed import draw_speed
from lpe_eval.report.tables.che import draw_scores

_CHE, _SPEED = "che.csv", "speed.csv"


def draw_folders(folders: Sequence[Path], out: Path) -> list[Path]:
    """Draws several runs together, and the figures of a single run as when it was made.

    Args:
        folders: of perplexity runs, or of runs on algorithmic problems, or the one of a speed measurement.
        out: where the figures go.

    Raises:
        SpecError: the runs cannot be drawn together.
        OutputError: a folder holds no run, or a damaged one, or a figure cannot be written.
    """
    holds = [next((name for name in (_CHE, _SPEED) if (folder / name).exists()), None) for folder in folders]
    if len(set(holds)) > 1:
        other = next(folder for folder, name in zip(folders, holds, strict=True) if name != holds[0])
        raise SpecError(f"{folders[0]} and {other} hold runs of different kinds; draw each kind by itself")
    if holds[0] == _CHE:
        written = draw_scores(pd.concat([read_csv(folder / _CHE, table.CHE) for folder in folders]), out)
        if not written:
            raise SpecError(f"{', '.join(map(str, folders))}: no problem has a score yet, so there is nothing to draw")
        return written
    if holds[0] == _SPEED:
        if len(folders) > 1:
            raise SpecError(
                "each speed measurement has a unit of its own, so they are drawn one by one; name one folder"
            )
        rows = read_csv(folders[0] / _SPEED, table.SPEED).astype(object)
        return draw_speed(rows.where(rows.notna(), None).to_dict("records"), out)
    return draw_perplexity([read_run(folder) for folder in folders], out)


def draw_perplexity(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Draws perplexity by length, and of a single run the loss by context where it was kept.

    Where models have different tokenizers, bits per byte are drawn too.
    """
    rows = pd.concat([run.rows for run in runs])
    metrics = ["perplexity"] if n_tokenizers(runs) < 2 else ["perplexity", "bits_per_byte"]
    written = [path for each in metrics for path in save(perplexity_figure(rows, each), folder, each)]
    if len(runs) == 1 and len(runs[0].by_position):
        written += save(position_figure(runs[0].by_position, runs[0].rows), folder, "loss_by_context")
    return written


def n_tokenizers(runs: Sequence[Run]) -> int:
    """How many ways of cutting text into tokens the runs' models have."""
    models = [model for run in runs for model in run.provenance.get("models", {}).values()]
    # What decides is the ids of the text: one vocabulary may come in two formats.
    return len({model.get("ids_fingerprint", model.get("tokenizer_fingerprint")) for model in models})
