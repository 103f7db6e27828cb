"""Charts are drawn by Vega-Lite: its specification of one, and the library's own bundle to put into a page.

Choices:
    * Vega because its bundle (Vega, Vega-Lite and Vega-Embed) has 0.9 MB and comes from the package registry, in
      `vl-convert-python`. Plotly's Python package ships one bundle of 4.5 MB; its smaller ones are on npm alone.
    * Expressions are interpreted (Vega-Embed's `ast`), so a page may forbid `eval`.
    * Colours are variables of the page's style. SVG keeps them, so light, dark and printed pages need no new picture.
"""

import importlib
from typing import Any

from lpe_eval.errors import MissingExtra
from lpe_eval.report.page.parts import Chart

_SHORT = "datum.value >= 1024 && datum.value % 1024 == 0 ? datum.value / 1024 + 'k' : datum.value"
_NUMBER = "abs(datum.value) >= 1e6 ? format(datum.value, '.0e') : format(datum.value, '~r')"
_AXIS = {
    "domainColor": "var(--soft)", "gridColor": "var(--line)", "tickColor": "var(--soft)", "labelColor": "var(--soft)",
    "titleColor": "var(--ink)", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
}  # fmt: skip


def library() -> Any:
    """What makes the bundle.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module("vl_convert")
    except ImportError as error:
        raise MissingExtra("a report with figures", "report") from error


def bundle(maker: Any) -> str:
    """The library as one script that sets `window.vegaEmbed`; `maker` is `library()`."""
    script = str(maker.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    # An end tag inside a string of a script would end the script.
    return "(() => {" + script.replace("</script", "<\\/script").replace("<!--", "<\\!--") + "})();"


def specification(chart: Chart) -> dict[str, Any]:
    """A chart without its points; whoever draws it sets the scale and the title of `y`, and the two data sets."""
    names = list(range(len(chart.lines)))
    colour = {"domain": names, "range": [line.colour for line in chart.lines]}
    dash = {"domain": names, "range": [list(line.dash or (1, 0)) for line in chart.lines]}
    shape = {"domain": names, "range": [line.shape or "circle" for line in chart.lines]}
    logarithmic = chart.x_ticks is not None
    x: dict[str, Any] = {
        "field": "x",
        "type": "quantitative",
        "title": chart.x_label,
        "scale": {"type": "log" if logarithmic else "linear"},
        "axis": {"grid": False, "labelOverlap": "greedy", "labelExpr": _SHORT},
    }
    if logarithmic:
        x["axis"]["values"] = list(chart.x_ticks or ())
    else:
        x["axis"]["tickCount"] = 10
    tooltip = [("name", chart.noun), ("at", chart.x_label), ("told", "value"), ("interval", "95 % interval"),
               ("stored", "stored"), ("over", "over")]  # fmt: skip
    encoding: dict[str, Any] = {
        "x": x,
        "y": {"field": "y", "type": "quantitative", "axis": {"tickCount": 6, "labelExpr": _NUMBER}},
        "color": {"field": "line", "type": "nominal", "scale": colour, "legend": None},
        "detail": {"field": "line", "type": "nominal"},
    }
    band = {"mark": {"type": "area", "opacity": 0.14, "clip": True},
            "transform": [{"filter": "isValid(datum.low)"}],
            "encoding": {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}}  # fmt: skip
    dashes = {"field": "line", "type": "nominal", "scale": dash, "legend": None}
    drawn = {"mark": {"type": "line", "strokeWidth": 2, "clip": True}, "encoding": {"strokeDash": dashes}}
    told = {"tooltip": [{"field": field, "title": title, "type": "nominal"} for field, title in tooltip]}
    points = {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 1, "clip": True},
              "transform": [{"filter": "datum.marked"}],
              "encoding": {"shape": {"field": "line", "type": "nominal", "scale": shape, "legend": None}}}  # fmt: skip
    # What is pointed at is larger than what is seen, for fingers.
    reach = {"mark": {"type": "point", "filled": True, "size": 350, "opacity": 0, "clip": True}, "encoding": told}
    place = {"x": {"field": "x", "type": "quantitative"}}
    rule = {"mark": {"type": "rule", "color": "var(--soft)", "strokeDash": [4, 3]}, "encoding": place}
    # Words stand on the left of a mark, and on the right of one beside the axis.
    words = [
        {
            "transform": [{"filter": f"datum.first === {'true' if first else 'false'}"}],
            "mark": {"type": "text", "angle": 270, "align": "right", "baseline": "top" if first else "bottom",
                     "dx": -4, "dy": 3 if first else -3, "fontSize": 11, "color": "var(--soft)"},
            "encoding": {**place, "y": {"value": 0}, "text": {"field": "text"}},
        }
        for first in (False, True)
    ]  # fmt: skip
    marks = {"data": {"name": "marks"}, "layer": [rule, *words]}
    return {
        "description": f"{chart.title}. The tables of this page have every value.",
        "width": "container",
        "height": 340,
        "autosize": {"type": "fit", "contains": "padding"},
        "background": "transparent",
        "padding": 4,
        "config": {"font": "system-ui, sans-serif", "view": {"stroke": None}, "axis": _AXIS},
        "layer": [{"data": {"name": "points"}, "encoding": encoding, "layer": [band, drawn, points, reach]}, marks],
    }
