"""Loss against context, drawn from sums by context."""

import math

import pandas as pd
import pytest
from matplotlib.colors import same_color

from lpe_eval.report.figures.context import position_figure
from tests.support.figure_rows import curves_of, legend_of, panels_of, positions_of, rows_of


def test_positions_are_shown_at_the_longest_length_of_each_protocol():
    rows = rows_of({"alibi": [6.0] * 4}, ("anchored", "disjoint"))
    by_position = pd.concat([positions_of(["alibi"]), positions_of(["alibi"], (512,), ("disjoint",))])
    figure = position_figure(by_position, rows)
    assert [axes.get_title() for axes in panels_of(figure)] == ["anchored, length 2k", "disjoint, length 512"]
    x, y = curves_of(panels_of(figure)[0])[0]
    starts = [1, 2, 4, 256, 1024]
    assert x == pytest.approx([math.sqrt(start * (2 * start - 1)) for start in starts])
    assert y == pytest.approx([3.0 + 1 / start for start in starts])
    assert panels_of(figure)[0].get_xscale() == "log"
    assert [text.get_text() for text in panels_of(figure)[1].texts] == ["train length 512"]


def test_a_point_of_loss_by_context_has_at_least_a_thousand_targets():
    # Five buckets of 400: three make a point, and the two that are left join it.
    by_position = positions_of(["alibi"], (2048,), count=400)
    assert curves_of(panels_of(position_figure(by_position, rows_of({"alibi": [6.0] * 4})))[0]) == [
        ([pytest.approx(math.sqrt(1 * 2047))], [pytest.approx(3 + (1 + 1 / 2 + 1 / 4 + 1 / 256 + 1 / 1024) / 5)])
    ]
    by_position = positions_of(["alibi"], (2048,), count=500)
    x, y = curves_of(panels_of(position_figure(by_position, rows_of({"alibi": [6.0] * 4})))[0])[0]
    assert x == pytest.approx([math.sqrt(1 * 3), math.sqrt(4 * 2047)])
    assert y == pytest.approx([3.75, 3 + (1 / 4 + 1 / 256 + 1 / 1024) / 3])


def test_of_nineteen_models_the_eight_of_lowest_loss_have_names_and_the_others_are_grey():
    names = [f"model {number:02}" for number in range(19)]
    figure = position_figure(positions_of(names), rows_of({name: [6.0] * 4 for name in names}))
    # `_positions` gives each model a nat more than the one before.
    assert legend_of(figure)[:9] == [*reversed(names[:8]), "11 other models"]
    grey = [line for line in panels_of(figure)[0].lines if same_color(line.get_color(), "#C8C8C8")]
    assert len(grey) >= 11 and all(line.get_marker() in ("", "^") for line in grey)
    assert not any("other" in each for each in legend_of(position_figure(positions_of(names[:8]), rows_of({}))))
