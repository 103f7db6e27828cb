"""Charts of perplexity: against length in all its forms, and the loss by context."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lpe_eval.report.figures.change import beyond_training, limits_of_change, named_changes
from lpe_eval.report.figures.context import context_points
from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.panels import Point as Drawn
from lpe_eval.report.figures.panels import best_lines, limits, line_names, train_lengths
from lpe_eval.report.folders.derived import change_rows, sweeps_of
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.frames import records
from lpe_eval.report.numbers.tokenizers import n_tokenizers
from lpe_eval.report.page.lines import lines_of
from lpe_eval.report.page.of_items import Seen, length_ticks, points_of
from lpe_eval.report.page.parts import Chart, View
from lpe_eval.screen import counted
from lpe_eval.table import REGRET

_PLACE = ("protocol", "length")
_VIEWS = {"perplexity": "perplexity", "nll_nats": "loss", "bits_per_byte": "bits per byte"}
_POWERS = range(21)
_TOLD = "bands are 95 % intervals; what is infinite or missing is not drawn"


def perplexity_charts(runs: Sequence[Run]) -> list[Chart]:
    """Perplexity, loss and change from the training length against length; of a single run the loss by context too."""
    rows = [row for run in runs for row in records(run.rows)]
    metrics = [*_VIEWS] if n_tokenizers([run.provenance for run in runs]) < 2 else [*reversed(_VIEWS)]
    seen: list[Seen] = []
    views: list[View] = []
    names: list[str] = []
    best: list[str] = []
    for metric in metrics:
        own = [row for row in rows if row["metric"] == metric]
        named = line_names(own, _PLACE)
        names, best = [*names, *named], [*best, *best_lines(own, named)]
        drawn = [_drawn(row, name, "value") for row, name in zip(own, named, strict=True)]
        seen += [_seen(row, name, len(views), "value") for row, name in zip(own, named, strict=True)]
        top = limits(drawn, logarithmic=metric != "nll_nats")[1]
        cut = top if any(point.y > top for point in drawn) else None
        views.append(View(_VIEWS[metric], LABELS[metric], log=metric != "nll_nats", top=cut))
        if metric == "nll_nats":
            _add_change(runs, rows, seen, views, names)
    regrets = [row for row in rows if row["metric"] == REGRET]
    if regrets:
        named = line_names(regrets, _PLACE)
        seen += [_seen(row, name, len(views), "value") for row, name in zip(regrets, named, strict=True)]
        names = [*names, *named]
        views.append(View("regret", LABELS[REGRET]))
    lines = lines_of(names, best)
    panels = list(dict.fromkeys(each.panel for each in seen))
    points = points_of(seen, [line.name for line in lines], panels)
    told = [_TOLD]
    if any(view.name == "paired change" for view in views):
        told.append(
            "paired change is that of the loss from the training length on the text that both lengths scored, whose "
            "error is far smaller than that of a loss"
        )
    if not points:
        return []
    marks = train_lengths(rows)
    chart = Chart("Against the length of the text", told, "model", "protocol", panels, views, lines, LABELS["length"],
                  length_ticks(seen), points, marks)  # fmt: skip
    return [chart, *(_context(runs[0], marks) if len(runs) == 1 else [])]


def _add_change(
    runs: Sequence[Run], rows: Sequence[dict[str, Any]], seen: list[Seen], views: list[View], names: list[str]
) -> None:
    changes = [row for run in runs for row in change_rows(sweeps_of(run))]
    if not changes:
        return
    merged = named_changes(changes, rows)
    named = line_names(merged, _PLACE)
    drawn = [_drawn(row, name, "change") for row, name in zip(merged, named, strict=True)]
    top = limits_of_change(beyond_training(drawn, merged))[1]
    seen += [_seen(row, name, len(views), "change") for row, name in zip(merged, named, strict=True)]
    names += named
    cut = top if any(point.y > top for point in drawn) else None
    views.append(View("paired change", LABELS["change"], top=cut))


def _context(run: Run, marks: Mapping[str, Sequence[int]]) -> list[Chart]:
    if not len(run.by_position):
        return []
    drawn, titles = context_points(run.by_position)
    rows = [row for row in records(run.rows) if row["metric"] == "perplexity"]
    named = line_names(rows, _PLACE)
    lines = [line._replace(shape="") for line in lines_of([*named, *(point.line for point in drawn)],
                                                          best_lines(rows, named))]  # fmt: skip
    seen = [Seen(point.line, point.panel, 0, point.x, point.y) for point in drawn]
    panels = list(dict.fromkeys(each.panel for each in seen))
    points = points_of(seen, [line.name for line in lines], panels)
    ends = [each.x for each in seen] or [1.0]
    ticks = [float(2**power) for power in _POWERS if min(ends) <= 2**power <= max(ends)]
    view = View("loss", LABELS["nll_nats"], log=False)
    told = ["a point is the mean over neighbouring sizes of context that together have 1,000 scored tokens or more"]
    of_title = {titles[protocol]: lengths for protocol, lengths in marks.items() if protocol in titles}
    chart = Chart("By how much context a token has", told, "model", "protocol", panels, [view], lines,
                  LABELS["context"], ticks[:: max(1, len(ticks) // 8)], points, of_title)  # fmt: skip
    return [chart] if points else []


def _seen(row: Mapping[str, Any], name: str, view: int, column: str) -> Seen:
    over = counted(int(row["n_tokens"]), "token") if row["n_tokens"] is not None else ""
    if column == "value" and row["n_documents"] is not None:
        over += f" in {counted(int(row['n_documents']), 'document')}"
    interval = (row["ci_low"], row["ci_high"])
    return Seen(name, str(row["protocol"]), view, row["length"], row[column], row["stderr"], interval, over)


def _drawn(row: Mapping[str, Any], name: str, column: str) -> Drawn:
    numbers = [_or_missing(row[each]) for each in (column, "ci_low", "ci_high")]
    return Drawn(str(row["protocol"]), name, float(row["length"]), *numbers)


def _or_missing(value: Any) -> float:
    return float("nan") if value is None or value is pd.NA else float(value)
