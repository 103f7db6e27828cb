"""What a run on algorithmic problems says in short: `summary.csv`, from the rows of `che.csv`.

Of several runs the highest and the mean are told, because the highest of many rises by chance alone.
"""

from collections.abc import Sequence

import pandas as pd

from lpe_eval.records import CheRow
from lpe_eval.report.frames import typed_frame
from lpe_eval.report.numbers.che_scores import task_scores
from lpe_eval.table import CHE

SUMMARY_COLUMNS = (
    *("task", "level", "encoding", "metric", "in_range", "n_runs", "max", "max_stderr", "mean", "mean_stderr"),
    *("chance", "floor", "n_lengths", "complete"),
)
"""Of `summary.csv`. `floor` is what needs no skill: the mean trivial ceiling, or the chance where it is not known."""


def che_frame(rows: Sequence[CheRow]) -> pd.DataFrame:
    """Rows as a frame with the declared types."""
    return typed_frame(CHE, rows)


def summary_records(rows: Sequence[CheRow]) -> list[list[str | int | float]]:
    """The lines of `summary.csv`."""
    frame = che_frame(rows)
    records = []
    for metric in dict.fromkeys(row.metric for row in rows):
        for in_range in (False, True):
            best, mean = (task_scores(frame, runs, metric, in_range) for runs in ("max", "mean"))
            for high, middle in zip(best, mean, strict=True):
                records.append(
                    [
                        *(
                            high.task,
                            high.level,
                            high.line,
                            metric,
                            int(in_range),
                            high.n_runs,
                            high.value,
                            high.stderr,
                        ),
                        *(middle.value, middle.stderr, high.chance, high.floor, len(high.lengths), int(high.complete)),
                    ]
                )
    return records
