"""A chart on a page: its switches, its data, and the place where it is drawn.

Switches are the browser's own boxes and buttons, so they work by keyboard; the boxes of the lines are the legend too.
"""

from collections.abc import Sequence
from typing import Any

from lpe_eval.report.page.lines import swatch
from lpe_eval.report.page.parts import Chart
from lpe_eval.report.page.safe import escaped, json_inside
from lpe_eval.report.page.vega import specification
from lpe_eval.screen import number

_FIELDS = ("line", "panel", "view", "x", "y", "low", "high", "told", "interval", "stored", "over")


def chart_html(chart: Chart, place: str) -> str:
    """The figure.

    Args:
        chart: what is drawn.
        place: a name that no other chart of the page has.
    """
    lines = "".join(
        f'<label class="line"><input type="checkbox" name="line" value="{place}" checked>{swatch(line)}'
        f"<span>{escaped(line.name)}</span></label>"
        for place, line in enumerate(chart.lines)
    )
    both = '<button type="button" data-all="1">all</button> <button type="button" data-all="">none</button>'
    many = f'<span class="both">{both}</span>' if len(chart.lines) > 2 else ""
    switches = [
        _choice("shown", "view", [view.name for view in chart.views], place),
        _choice(chart.panel_noun, "panel", chart.panels, place),
        _scale(chart, place),
        f'<fieldset class="lines"><legend>{escaped(chart.noun)}s {many}</legend>{lines}</fieldset>',
    ]
    told = "".join(f"<p>{escaped(sentence)}</p>" for sentence in chart.told)
    return (
        f'<figure class="chart" id="{place}"><figcaption>{escaped(chart.title)}</figcaption>'
        f'<form class="controls" autocomplete="off">{"".join(switches)}</form>'
        f'<div class="plot"></div><noscript><p>The figure needs JavaScript; the tables have every value.</p></noscript>'
        f'<div class="told">{told}</div>'
        f'<script type="application/json">{json_inside(_data(chart))}</script></figure>'
    )


def _choice(legend: str, name: str, choices: Sequence[str], place: str) -> str:
    """One of several; nothing to choose of one."""
    boxes = "".join(
        f'<label><input type="radio" name="{name}" value="{number}"{" checked" if number == 0 else ""}>'
        f"<span>{escaped(choice)}</span></label>"
        for number, choice in enumerate(choices)
    )
    hidden = " hidden" if len(choices) < 2 else ""
    return f'<fieldset{hidden}><legend id="{place}-{name}">{escaped(legend)}</legend>{boxes}</fieldset>'


def _scale(chart: Chart, place: str) -> str:
    first = chart.views[0]
    boxes = "".join(
        f'<label><input type="radio" name="scale" value="{value}"{" checked" if begins else ""}><span>{told}</span>'
        "</label>"
        for value, told, begins in (("log", "logarithmic", bool(first.log)), ("linear", "linear", not first.log))
    )
    hidden = " hidden" if all(view.log is None for view in chart.views) else ""
    cut = ""
    if any(view.top is not None for view in chart.views):
        cut = '<label class="cut"><input type="checkbox" name="cut" checked><span>cut off what explodes</span></label>'
    return f'<fieldset{hidden}><legend id="{place}-scale">scale</legend>{boxes}{cut}</fieldset>'


def _data(chart: Chart) -> dict[str, Any]:
    # A list without the names of its fields, which would be half of the page.
    points = [
        [
            *(point.line, point.panel, point.view, point.x, point.y, point.low, point.high, str(point.told)),
            "-" if point.low is None else f"{number(point.low)} to {number(point.high)}",
            *(point.stored, point.over or "-"),
        ]
        for point in chart.points
    ]
    marks = [
        {"panel": panel, "x": length, "text": f"{chart.mark_label} {length:,}"}
        for panel, name in enumerate(chart.panels)
        for length in chart.marks.get(name, ())
    ]
    views = [{"label": view.label, "log": view.log, "top": view.top} for view in chart.views]
    lines = [{"name": line.name, "marked": bool(line.shape)} for line in chart.lines]
    return {
        "spec": specification(chart), "lines": lines, "fields": _FIELDS, "points": points, "marks": marks,
        "views": views,
    }  # fmt: skip
