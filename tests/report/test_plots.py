import math
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.report.figures.context import position_figure
from lpe_eval.report.figures.files import save
from lpe_eval.report.figures.panels import OFF_SCALE
from lpe_eval.report.figures.ppl import perplexity_figure
from lpe_eval.report.figures.style import styles_of
from lpe_eval.report.figures.ticks import readable, readable_ticks, short_length, thinned
from lpe_eval.report.frames import typed_frame

LENGTHS = (128, 512, 2048, 16384)


def _rows(
    curves: dict[str, list[float]], protocols=("anchored",), lengths=LENGTHS, train=(512,), **facts
) -> pd.DataFrame:
    records = []
    for place, (model, values) in enumerate(curves.items()):
        for protocol in protocols:
            for length, value in zip(lengths, values, strict=True):
                row = dict.fromkeys((column.name for column in table.ROWS), None)
                row.update(
                    run="r", model=model, protocol=protocol, length=length, train_length=train[place % len(train)]
                )
                row.update(ci_low=value * 0.95, ci_high=value * 1.05, status="ok", task="custom", seed=1, **facts)
                for metric, number in (("nll_nats", 1.0), ("perplexity", value)):
                    row.update(metric=metric, value=number)
                    records.append(list(row.values()))
    return typed_frame(table.ROWS, records)


def _positions(models: list[str], lengths=(1024, 2048), protocols=("anchored",), count=1000) -> pd.DataFrame:
    records = [
        ["r", model, protocol, length, None, start, 2 * start - 1, (3.0 + place + 1 / start) * count, count]
        for place, model in enumerate(models)
        for protocol in protocols
        for length in lengths
        for start in (1, 2, 4, 256, length // 2)
    ]
    return typed_frame(table.BY_POSITION, records)


def _panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_title()]


def _curves(axes: Axes) -> list[tuple[list[float], list[float]]]:
    found = [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in axes.lines]
    return [
        (x, y) for (x, y), line in zip(found, axes.lines, strict=True) if line.get_linestyle() != "None" and y != [0, 1]
    ]


def _triangles(axes: Axes) -> list[tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_linestyle() == "None"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_each_protocol_is_a_panel_and_each_model_a_line_with_the_stored_values():
    curves = {"alibi": [6.0, 5.5, 5.2, 5.1], "rope": [6.1, 5.4, 9.0, 30.0]}
    figure = perplexity_figure(_rows(curves, ("anchored", "disjoint")))
    assert [axes.get_title() for axes in _panels(figure)] == ["anchored", "disjoint"]
    for axes in _panels(figure):
        assert _curves(axes) == [(list(map(float, LENGTHS)), values) for values in curves.values()]
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert axes.get_xlabel() == table.LABELS["length"]
    assert [axes.get_ylabel() for axes in _panels(figure)] == [table.LABELS["perplexity"], ""]
    assert tuple(figure.get_size_inches()) == pytest.approx((7.0, 3.2))


def test_the_measured_lengths_stand_below_the_axis_as_people_write_them():
    axes = _panels(perplexity_figure(_rows({"alibi": [6.0, 5.5, 5.2, 5.1]})))[0]
    assert axes.xaxis.get_major_locator().tick_values(1, 1e6).tolist() == list(LENGTHS)
    written = axes.xaxis.get_major_formatter()
    assert [written(length, 0) for length in LENGTHS] == ["128", "512", "2k", "16k"]


def test_the_interval_is_a_band_around_the_line():
    axes = _panels(perplexity_figure(_rows({"alibi": [6.0, 5.5, 5.2, 5.1]})))[0]
    corners = axes.collections[0].get_paths()[0].vertices
    at_512 = sorted({float(y) for x, y in corners if x == 512})
    assert at_512 == pytest.approx([5.5 * 0.95, 5.5 * 1.05])


def test_each_train_length_is_a_dashed_vertical_line_with_its_number():
    figure = perplexity_figure(_rows({"a": [6.0] * 4, "b": [5.0] * 4}, train=(512, 2048)))
    axes = _panels(figure)[0]
    lines = [line for line in axes.lines if list(line.get_ydata()) == [0, 1]]
    assert [line.get_xdata()[0] for line in lines] == [512, 2048]
    assert [text.get_text() for text in axes.texts] == ["train length 512", "2k"]


def test_no_train_length_is_no_line():
    axes = _panels(perplexity_figure(_rows({"a": [6.0] * 4}, train=(None,))))[0]
    assert not axes.texts


def test_good_models_stay_apart_when_others_explode_and_the_exploded_are_marked():
    curves = {
        "fine": [6, 5.5, 5.2, 5.0],
        "worse": [6, 5.5, 6.2, 7.0],
        "rope": [6, 5.5, 300, 30000],
        "nan": [6, 5, math.nan, math.nan],
    }
    figure = perplexity_figure(_rows(curves | {"inf": [6.0, 5.5, 7.0, math.inf]}))
    axes = _panels(figure)[0]
    low, high = axes.get_ylim()
    assert high == OFF_SCALE * 5.0
    apart = math.log(7.0 / 5.0) / math.log(high / low)
    assert apart > 0.08
    assert _triangles(axes) == [(2048.0, high), (16384.0, high)]
    assert _curves(axes)[2][1] == [6, 5.5, 300, 30000]
    assert _curves(axes)[4][1][:3] == [6.0, 5.5, 7.0]
    assert math.isnan(_curves(axes)[4][1][3])
    assert _legend(figure) == ["inf", "rope", "worse", "fine", "nan", "above 100, or infinite"]


def test_triangles_at_one_length_stand_side_by_side():
    axes = _panels(
        perplexity_figure(_rows({"good": [5.0] * 4, "a": [5, 5, 5, 900], "b": [5, 5, 5, 901], "c": [5.0] * 4}))
    )[0]
    (first, _), (second, _) = _triangles(axes)
    assert first < 16384 < second
    assert math.sqrt(first * second) == pytest.approx(16384)


def test_without_an_explosion_nothing_is_marked():
    figure = perplexity_figure(_rows({"a": [6.0, 5.5, 5.2, 5.0], "b": [6.0, 5.5, 8.2, 50.0]}))
    assert not _triangles(_panels(figure)[0])
    assert _legend(figure) == ["b", "a"]


def test_the_legend_is_in_the_order_of_the_lines_at_the_longest_length():
    values = {"middle": 7.0, "lowest": 5.0, "highest": 9.0, "none": math.nan}
    figure = perplexity_figure(_rows({name: [math.nan] * 3 + [value] for name, value in values.items()}))
    assert _legend(figure) == ["highest", "middle", "lowest", "none (no value)"]


def test_values_that_are_all_missing_make_a_figure_all_the_same(tmp_path):
    save(perplexity_figure(_rows({"a": [math.nan] * 4, "b": [math.inf] * 4})), tmp_path, "missing")
    save(perplexity_figure(_rows({})), tmp_path, "empty")
    save(position_figure(_positions([]), _rows({})), tmp_path, "empty-positions")


def test_thirty_models_all_look_different():
    looks = styles_of(f"m{number}" for number in range(30))
    assert len({(look.color, look.linestyle) for look in looks.values()}) == 30
    assert len({(look.color, look.marker) for look in looks.values()}) == 30


def test_the_colours_are_told_apart_by_the_colour_blind():
    # Brettel/Vienot-style matrices for full protanopia and deuteranopia (Machado et al. 2009).
    protan = np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    )
    deutan = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    )
    colours = [matplotlib.colors.to_rgb(look.color) for look in styles_of(map(str, range(8))).values()]
    linear = np.array([[((c + 0.055) / 1.055) ** 2.4 if c > 0.04 else c / 12.92 for c in colour] for colour in colours])
    for matrix in (np.eye(3), protan, deutan):
        seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
        distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + np.eye(8)
        assert distance.min() > 0.18


def test_a_model_looks_the_same_in_both_panels_and_in_both_figures():
    curves = {"lost": [6, 5.5, math.nan, math.nan], "alibi": [6.0, 5.5, 5.2, 5.1], "rope": [6.1, 5.4, 9.0, 30.0]}
    rows = _rows(curves, ("anchored", "disjoint"))
    panels = _panels(perplexity_figure(rows)) + _panels(position_figure(_positions(["alibi", "rope"]), rows))
    for axes in panels:
        alibi = next(line for line in axes.lines if same_color(line.get_color(), "#D55E00"))
        assert alibi.get_marker() == ("s" if axes in panels[:2] else "")


def test_two_runs_of_one_model_are_two_lines_with_names_that_tell_them_apart():
    rows = pd.concat([_rows({"alibi": [6.0] * 4}, dtype="float32"), _rows({"alibi": [7.0] * 4}, dtype="bfloat16")])
    assert _legend(perplexity_figure(rows)) == ["alibi · bfloat16", "alibi · float32"]


def test_positions_are_shown_at_the_longest_length_of_each_protocol():
    rows = _rows({"alibi": [6.0] * 4}, ("anchored", "disjoint"))
    by_position = pd.concat([_positions(["alibi"]), _positions(["alibi"], (512,), ("disjoint",))])
    figure = position_figure(by_position, rows)
    assert [axes.get_title() for axes in _panels(figure)] == ["anchored, length 2k", "disjoint, length 512"]
    x, y = _curves(_panels(figure)[0])[0]
    starts = [1, 2, 4, 256, 1024]
    assert x == pytest.approx([math.sqrt(start * (2 * start - 1)) for start in starts])
    assert y == pytest.approx([3.0 + 1 / start for start in starts])
    assert _panels(figure)[0].get_xscale() == "log"
    assert [text.get_text() for text in _panels(figure)[1].texts] == ["train length 512"]


def test_runs_on_different_texts_are_lines_that_name_their_text():
    rows = pd.concat([_rows({"alibi": [6.0] * 4}, corpus=name) for name in ("books", "code")])
    assert _legend(perplexity_figure(rows)) == ["alibi · books", "alibi · code"]
    rows = pd.concat([_rows({"alibi": [6.0] * 4}, corpus="books"), _rows({"rope": [7.0] * 4}, corpus="code")])
    assert _legend(perplexity_figure(rows)) == ["rope · code", "alibi · books"]


def test_a_point_of_loss_by_context_has_at_least_a_thousand_targets():
    # Five buckets of 400: three make a point, and the two that are left join it.
    by_position = _positions(["alibi"], (2048,), count=400)
    assert _curves(_panels(position_figure(by_position, _rows({"alibi": [6.0] * 4})))[0]) == [
        ([pytest.approx(math.sqrt(1 * 2047))], [pytest.approx(3 + (1 + 1 / 2 + 1 / 4 + 1 / 256 + 1 / 1024) / 5)])
    ]
    by_position = _positions(["alibi"], (2048,), count=500)
    x, y = _curves(_panels(position_figure(by_position, _rows({"alibi": [6.0] * 4})))[0])[0]
    assert x == pytest.approx([math.sqrt(1 * 3), math.sqrt(4 * 2047)])
    assert y == pytest.approx([3.75, 3 + (1 / 4 + 1 / 256 + 1 / 1024) / 3])


def test_of_nineteen_models_the_eight_of_lowest_loss_have_names_and_the_others_are_grey():
    names = [f"model {number:02}" for number in range(19)]
    figure = position_figure(_positions(names), _rows({name: [6.0] * 4 for name in names}))
    # `_positions` gives each model a nat more than the one before.
    assert _legend(figure)[:9] == [*reversed(names[:8]), "11 other models"]
    grey = [line for line in _panels(figure)[0].lines if same_color(line.get_color(), "#C8C8C8")]
    assert len(grey) >= 11 and all(line.get_marker() in ("", "^") for line in grey)
    assert not any("other" in each for each in _legend(position_figure(_positions(names[:8]), _rows({}))))


@pytest.mark.parametrize("models", [1, 5, 19])
@pytest.mark.parametrize("protocols", [("anchored",), ("anchored", "disjoint"), ("a", "b", "c", "d")])
def test_every_number_of_models_and_protocols_renders_to_both_formats(tmp_path, models, protocols):
    rows = _rows({f"model {number}": [6.0 + number, 5.5, 5.0, 5.0 * 3**number] for number in range(models)}, protocols)
    for path in save(perplexity_figure(rows), tmp_path / "new", "figure"):
        assert path.stat().st_size > 10000
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["figure.png", "figure.svg"]


def test_one_length_alone_is_still_a_figure(tmp_path):
    rows = _rows({"alibi": [5.0], "rope": [7.0]}, lengths=(512,))
    figure = perplexity_figure(rows)
    save(figure, tmp_path, "one")
    left, right = _panels(figure)[0].get_xlim()
    assert left < 512 < right


def test_the_same_table_gives_the_same_bytes(tmp_path):
    rows = _rows({"alibi": [6.0, 5.5, 5.2, 5.1], "rope": [6.1, 5.4, 9.0, 30.0]})
    first, again = (save(perplexity_figure(rows), tmp_path / name, "figure") for name in ("first", "again"))
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "axes.grid": False}):
        elsewhere = save(perplexity_figure(rows), tmp_path / "elsewhere", "figure")
    for one, two, three in zip(first, again, elsewhere, strict=True):
        assert one.read_bytes() == two.read_bytes() == three.read_bytes()
    assert b"date" not in first[1].read_bytes().lower()


def test_a_figure_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*figure\.png"):
        save(perplexity_figure(_rows({"alibi": [5.0] * 4})), tmp_path / "file", "figure")


def test_plotting_leaves_pyplot_and_torch_alone():
    program = (
        "import sys, lpe_eval.report.figures.ppl\n"
        "sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("length", "text"), [(1, "1"), (128, "128"), (1000, "1000"), (1024, "1k"), (16384, "16k"), (1536, "1536")]
)
def test_lengths_are_written_short(length, text):
    assert short_length(length) == text


@pytest.mark.parametrize(
    ("value", "text"), [(4.5, "4.5"), (100.0, "100"), (30000.0, "30000"), (1e6, "1e6"), (3e12, "3e12")]
)
def test_ticks_are_written_without_powers_of_ten_where_sensible(value, text):
    assert readable(value) == text


@pytest.mark.parametrize("low", [0.0013, 1.0, 4.7, 97.0])
@pytest.mark.parametrize("ratio", [1.001, 1.05, 1.4, 2, 5, 20, 500, 1e5, 1e9])
def test_every_range_has_a_few_ticks_inside_it(low, ratio):
    ticks = readable_ticks(low, low * ratio)
    assert 2 <= len(ticks) <= 8
    assert low <= ticks[0] < ticks[-1] <= low * ratio
    assert ticks == sorted(ticks)


def test_crowded_lengths_are_thinned_and_the_longest_stays():
    assert thinned([128, 256, 512, 1024, 2048, 4096, 8192, 16384]) == [128, 256, 512, 1024, 2048, 4096, 8192, 16384]
    kept = thinned(list(range(100, 1001, 10)))
    assert kept[-1] == 1000
    assert len(kept) < 12
    assert thinned([]) == []
    assert thinned([512]) == [512]
