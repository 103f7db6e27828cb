"""Scores of the algorithmic problems become figures: a heat map of tasks x encodings, and accuracy against length.

Both take rows of `che.csv` and give a matplotlib `Figure`, as the functions of `ppl.py` do; `files.save`
writes them.

Choices:
    * In the heat map a cell's number is the score (see `numbers/che_scores.py`), and its colour is how far the score
      is from what needs no skill (white) to all right (full colour), so that a colour means the same in a task
      with two answers as in one with five. A hatched cell is not above that by more than two standard
      errors. The column on the left is the trivial ceiling itself.
    * Curves of the best run are those of one run, the one whose mean beyond training is the highest; the band
      is two standard errors. Curves of the mean have the lowest and the highest run as their band.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from lpe_eval.report.figures.files import save
from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.style import SHADES, STYLE, LineStyle, styles_of
from lpe_eval.report.numbers.che_scores import (
    ERRORS,
    Runs,
    TaskScore,
    by_run,
    is_known,
    level_order,
    records_of,
    task_scores,
)
from lpe_eval.table import LEVELS

_GREY, _SHADE = "#555555", "#E9E9E9"
_COLOURS = LinearSegmentedColormap.from_list("skill", SHADES)
_PANELS_IN_A_ROW = 4
_ROW, _LETTER = 0.26, 0.066
"""Inches: height of a row, and width of a letter of the levels' names."""
_DARK = 0.55
"""From this share of the colours on, numbers are white."""


def draw_che(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Draws the heat map and the curves, where there is a score to draw.

    Args:
        rows: rows of one or several `che.csv`.
        folder: where the figures go.

    Raises:
        OutputError: a file cannot be written.
    """
    if not task_scores(rows):
        return []
    return [*save(heat_map(rows), folder, "heat_map"), *save(length_curves(rows), folder, "length_curves")]


def heat_map(rows: pd.DataFrame, runs: Runs = "max", metric: str = "accuracy") -> Figure:
    """Tasks by level x encodings: the mean over the lengths beyond training, with its number in the cell.

    Args:
        rows: rows of one or several `che.csv`.
        runs: the highest of all runs of a cell, or their mean.
        metric: `accuracy` or `exact_match`.
    """
    scores = task_scores(rows, runs, metric)
    tasks = list(dict.fromkeys((score.task, score.level) for score in scores))
    lines = list(dict.fromkeys(record["line"] for record in records_of(rows, metric)))
    found = {(score.task, score.line): score for score in scores}
    floors = {score.task: score.floor for score in reversed(scores)}
    with style.context(["default", STYLE]):
        upright = not _fits_turned(tasks)
        names = _LETTER * max((len(LEVELS.get(level, level)) for _, level in tasks), default=0) if upright else 0.0
        width, height = 3.4 + 0.62 * (len(lines) + 1) + names, 2.0 + _ROW * (len(tasks) + len(LEVELS))
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=False)
        places, y = [], 0.0
        for number, (task, level) in enumerate(tasks):
            y += 0.35 if number and tasks[number - 1][1] != level else 0.0
            places.append(y)
            _cell(axes, -1.25, y, floors[task], _SHADE, _GREY)
            for x, line in enumerate(lines):
                _score_cell(axes, float(x), y, found.get((task, line)))
            y += 1.0
        _name_rows(axes, tasks, places, upright)
        _name_columns(axes, lines)
        axes.set(xlim=(-1.85, len(lines) - 0.3), ylim=(max(y, 1.0) - 0.4, -0.6))
        axes.set_title(heading(scores, runs, metric), loc="left")
        _explain(figure, scores)
    return figure


def length_curves(rows: pd.DataFrame, runs: Runs = "max", metric: str = "accuracy") -> Figure:
    """The metric against input length: a panel a task, a row of panels a level, a line an encoding.

    The lengths seen in training are shaded; a dashed line is the trivial ceiling and a dotted one the chance.

    Args:
        rows: rows of one or several `che.csv`.
        runs: the run that is best beyond training, or the mean over runs.
        metric: `accuracy` or `exact_match`.
    """
    records = records_of(rows, metric)
    styles = styles_of(record["line"] for record in records)
    by_level: dict[str, list[str]] = {}
    for record in sorted(records, key=lambda record: level_order(record["level"])):
        tasks = by_level.setdefault(record["level"], [])
        if record["task"] not in tasks:
            tasks.append(record["task"])
    columns = min(_PANELS_IN_A_ROW, max(map(len, by_level.values()), default=1))
    grid = [
        (level, tasks[start : start + columns])
        for level, tasks in by_level.items()
        for start in range(0, len(tasks), columns)
    ]
    # Beyond training where there are such lengths, else within it.
    best = {
        (score.task, score.line): score.run
        for in_range in (True, False)
        for score in task_scores(rows, "max", metric, in_range)
    }
    with style.context(["default", STYLE]):
        size = (2.2 + 1.95 * columns, max(0.5 + 1.75 * max(len(grid), 1), 0.6 + 0.155 * len(styles)))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(max(len(grid), 1), columns, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        longest = max((int(record["length"]) for record in records), default=1)
        for line_of_panels, (level, tasks) in zip(panels, grid, strict=False):
            for place, (task, axes) in enumerate(zip(tasks, line_of_panels, strict=False)):
                own = [record for record in records if record["task"] == task]
                _panel(axes, readable_task(task), own, styles, best, runs)
                axes.set(xlim=(0, longest * 1.02), ylim=(-3, 103))
                if place == 0:
                    axes.set_ylabel(f"{LEVELS.get(level, level)}\n{LABELS[metric]}")
        for column in range(columns):
            shown = [axes for axes in panels[:, column] if axes.axison]
            if shown:
                shown[-1].tick_params(labelbottom=True)
        if records:
            figure.supxlabel(LABELS["input_length"], fontsize=STYLE["axes.labelsize"])
            _legend(figure, styles)
    return figure


def _panel(
    axes: Axes,
    title: str,
    records: list[dict[str, Any]],
    styles: dict[str, LineStyle],
    best: dict[tuple[str, str], tuple | None],
    runs: Runs,
) -> None:
    axes.set_axis_on()
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    longest = max((int(record["train_max_length"]) for record in records if is_known(record["train_max_length"])),
                  default=0)  # fmt: skip
    axes.axvspan(0, longest, color=_SHADE, linewidth=0, zorder=0)
    for column, dashes in (("ceiling", (0, (5, 2))), ("chance", (0, (1, 1.5)))):
        known = {int(record["length"]): 100 * float(record[column]) for record in records if is_known(record[column])}
        if known:
            lengths = sorted(known)
            axes.plot(lengths, [known[length] for length in lengths], color=_GREY, linestyle=dashes, linewidth=0.8)
    for line, line_style in styles.items():
        own = by_run(record for record in records if record["line"] == line)
        if not own:
            continue
        chosen = best.get((records[0]["task"], line))
        of_best = own[chosen] if chosen in own else next(iter(own.values()))
        _curve(axes, [of_best] if runs == "max" else list(own.values()), line_style)


def _curve(axes: Axes, shown: Sequence[Sequence[Any]], line_style: LineStyle) -> None:
    values: dict[int, list[float]] = {}
    errors: dict[int, float] = {}
    for record in (record for run in shown for record in run):
        if is_known(record["value"]):
            length = int(record["length"])
            values.setdefault(length, []).append(100 * float(record["value"]))
            errors[length] = 100 * float(record["stderr"]) if is_known(record["stderr"]) else 0.0
    lengths = sorted(values)
    if len(shown) > 1:
        low, high = [min(values[length]) for length in lengths], [max(values[length]) for length in lengths]
    else:
        low = [values[length][0] - ERRORS * errors[length] for length in lengths]
        high = [values[length][0] + ERRORS * errors[length] for length in lengths]
    means = [sum(values[length]) / len(values[length]) for length in lengths]
    axes.fill_between(lengths, low, high, color=line_style.color, alpha=0.15, linewidth=0)
    axes.plot(lengths, means, **{**line_style._asdict(), "markersize": 3.0})


def _legend(figure: Figure, styles: dict[str, LineStyle]) -> None:
    handles: list[Any] = [Line2D([], [], **line_style._asdict()) for line_style in styles.values()]
    names = list(styles)
    for dashes, name in (((0, (5, 2)), "no skill needed"), ((0, (1, 1.5)), "chance")):
        handles.append(Line2D([], [], color=_GREY, linestyle=dashes, linewidth=0.8))
        names.append(name)
    handles.append(Patch(color=_SHADE))
    names.append(LABELS["train_range"])
    figure.legend(handles, names, loc="outside right upper", frameon=False, handlelength=2.6, labelspacing=0.3)


def _score_cell(axes: Axes, x: float, y: float, score: TaskScore | None) -> None:
    if score is None:
        axes.text(x, y, "–", ha="center", va="center", color=_GREY)
        return
    share = min(max((score.value - score.floor) / max(1 - score.floor, 1e-9), 0.0), 1.0)
    colour = _GREY if not score.above else "white" if share > _DARK else "black"
    _cell(axes, x, y, score.value, _COLOURS(share) if score.above else "white", colour, "" if score.complete else "*")
    if not score.above:
        hatched = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="////", edgecolor="#DDDDDD", linewidth=0)
        axes.add_patch(hatched)


def _cell(axes: Axes, x: float, y: float, value: float, colour: Any, ink: str, mark: str = "") -> None:
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
    axes.text(x, y, f"{100 * value:.1f}{mark}", ha="center", va="center", color=ink, fontsize=7.5, zorder=3)


def _name_rows(axes: Axes, tasks: list[tuple[str, str]], places: list[float], upright: bool) -> None:
    axes.set_yticks(places, [readable_task(task) for task, _ in tasks])
    for level in dict.fromkeys(level for _, level in tasks):
        own = [place for place, (_, of) in zip(places, tasks, strict=True) if of == level]
        axes.annotate(
            LEVELS.get(level, level),
            (1.0, sum(own) / len(own)),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            rotation=0 if upright else 270,
            ha="left",
            va="center",
            color=_GREY,
        )


def _fits_turned(tasks: list[tuple[str, str]]) -> bool:
    """Whether the name of every level, turned by a right angle, is no longer than its rows are high."""
    rows = Counter(level for _, level in tasks)
    return all(_LETTER * len(LEVELS.get(level, level)) <= _ROW * count for level, count in rows.items())


def _name_columns(axes: Axes, lines: list[str]) -> None:
    axes.set_xticks([-1.25, *range(len(lines))], ["no skill", *lines], rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def heading(scores: list[TaskScore], runs: Runs, metric: str) -> str:
    """What the heat map is of."""
    if not scores:
        return "no scores beyond the lengths of training"
    lengths = [length for score in scores for length in score.lengths]
    count = sorted({score.n_runs for score in scores})
    of_runs = f"{count[0]}" if len(count) == 1 else f"{count[0]} to {count[-1]}"
    how = "one run" if count == [1] else f"{'best' if runs == 'max' else 'mean'} of {of_runs} runs"
    return f"{LABELS[metric]}, mean over lengths {min(lengths)} to {max(lengths)}, {how}"


def _explain(figure: Figure, scores: list[TaskScore]) -> None:
    handles, names = [], []
    if any(not score.above for score in scores):
        handles.append(Patch(facecolor="white", edgecolor="#BBBBBB", hatch="////", linewidth=0))
        names.append(f"not above what needs no skill by {ERRORS:.0f} standard errors")
    if any(not score.complete for score in scores):
        handles.append(Line2D([], [], linestyle="none", marker="$*$", color=_GREY))
        names.append("not at all lengths")
    if handles:
        figure.legend(handles, names, loc="outside lower left", frameon=False, ncols=2)


def readable_task(task: str) -> str:
    """A problem as people say it."""
    return task.rpartition("/")[2].replace("_", " ")
