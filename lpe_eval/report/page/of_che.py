"""The heat map and the curves of algorithmic problems."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lpe_eval.report.figures.che import heading, readable_task
from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.numbers.che_scores import ERRORS, TaskScore, by_run, is_known, records_of, task_scores
from lpe_eval.report.page.lines import lines_of
from lpe_eval.report.page.of_items import BANDS, Seen, points_of
from lpe_eval.report.page.parts import Chart, HeatCell, HeatMap, View
from lpe_eval.screen import counted
from lpe_eval.table import LEVELS

_FLOOR, _CHANCE = "no skill needed", "chance"


def che_charts(rows: pd.DataFrame) -> list[Chart | HeatMap]:
    """Both; nothing where no problem has a score.

    Args:
        rows: of one or several `che.csv`.
    """
    scores = task_scores(rows)
    return [_heat(rows, scores), *_curves(rows, scores)] if scores else []


def _heat(rows: pd.DataFrame, scores: Sequence[TaskScore]) -> HeatMap:
    names = list(dict.fromkeys(str(record["line"]) for record in records_of(rows, "accuracy")))
    found = {(score.task, score.line): score for score in scores}
    floors = {score.task: score.floor for score in reversed(scores)}
    tasks = list(dict.fromkeys((score.task, score.level) for score in scores))
    lines = [
        (
            readable_task(task),
            [HeatCell(f"{100 * floors[task]:.1f}", None, f"the highest score without skill: {floors[task]!r}"),
             *(_cell(found.get((task, name))) for name in names)],
        )
        for task, _ in tasks
    ]  # fmt: skip
    told = [
        f"hatched is not above what needs no skill by {ERRORS:g} standard errors; the colour is how far a score is "
        "from that (none) to all right (full)"
    ]
    if not all(score.complete for score in scores):
        told.append("* not at all lengths")
    groups = [LEVELS.get(level, level) for _, level in tasks]
    return HeatMap(heading(list(scores), "max", "accuracy"), told, "problem", ["no skill", *names], lines, groups)


def _cell(score: TaskScore | None) -> HeatCell:
    if score is None:
        return HeatCell("–")
    share = min(max((score.value - score.floor) / max(1 - score.floor, 1e-9), 0.0), 1.0)
    text = f"{100 * score.value:.1f}{'' if score.complete else '*'}"
    return HeatCell(text, share, f"{score.value!r} ± {score.stderr!r}, {counted(score.n_runs, 'run')}", not score.above)


def _curves(rows: pd.DataFrame, scores: Sequence[TaskScore]) -> list[Chart]:
    records = records_of(rows, "accuracy")
    seen: list[Seen] = []
    marks: dict[str, list[int]] = {}
    for score in scores:
        panel = readable_task(score.task)
        runs = by_run(record for record in records if (record["task"], record["line"]) == (score.task, score.line))
        own = runs.get(score.run or (), next(iter(runs.values()), []))
        seen += [_seen(record, score.line, panel) for record in own]
        if panel not in marks:
            for name, column in ((_FLOOR, "ceiling"), (_CHANCE, "chance")):
                seen += [Seen(name, panel, 0, record["length"], 100 * float(record[column])) for record in own
                         if is_known(record[column])]  # fmt: skip
            known = [int(record["train_max_length"]) for record in own if is_known(record["train_max_length"])]
            marks[panel] = known[:1]
    names = [*dict.fromkeys(score.line for score in scores), _FLOOR, _CHANCE]
    lines = [line for line in lines_of(names, grey=(_FLOOR, _CHANCE)) if any(each.line == line.name for each in seen)]
    panels = list(marks)
    points = points_of(seen, [line.name for line in lines], panels)
    view = View("accuracy", LABELS["accuracy"])
    told = ["of several runs, the one whose mean beyond training is the highest", BANDS]
    chart = Chart("Accuracy against the length of the input", told, "encoding", "problem", panels, [view], lines,
                  LABELS["input_length"], None, points, marks, "longest in training")  # fmt: skip
    return [chart] if points else []


def _seen(record: Any, line: str, panel: str) -> Seen:
    value = 100 * float(record["value"]) if is_known(record["value"]) else None
    error = 100 * float(record["stderr"]) if is_known(record["stderr"]) else None
    over = counted(int(record["n_samples"]), "string") if is_known(record["n_samples"]) else ""
    return Seen(line, panel, 0, record["length"], value, error, over=over)
