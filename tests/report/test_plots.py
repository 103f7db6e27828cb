import math
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color

from lpe_eval.errors import OutputError
from lpe_eval.report.figures.context import position_figure
from lpe_eval.report.figures.files import save
from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.panels import OFF_SCALE
from lpe_eval.report.figures.ppl import perplexity_figure
from lpe_eval.report.figures.style import styles_of
from lpe_eval.report.figures.ticks import readable, readable_ticks, short_length, thinned
from tests.support.figure_rows import LENGTHS, curves_of, legend_of, panels_of, positions_of, rows_of, triangles_of


def test_each_protocol_is_a_panel_and_each_model_a_line_with_the_stored_values():
    curves = {"alibi": [6.0, 5.5, 5.2, 5.1], "rope": [6.1, 5.4, 9.0, 30.0]}
    figure = perplexity_figure(rows_of(curves, ("anchored", "disjoint")))
    assert [axes.get_title() for axes in panels_of(figure)] == ["anchored", "disjoint"]
    for axes in panels_of(figure):
        assert curves_of(axes) == [(list(map(float, LENGTHS)), values) for values in curves.values()]
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert axes.get_xlabel() == LABELS["length"]
    assert [axes.get_ylabel() for axes in panels_of(figure)] == [LABELS["perplexity"], ""]
    assert tuple(figure.get_size_inches()) == pytest.approx((7.0, 3.2))


def test_the_measured_lengths_stand_below_the_axis_as_people_write_them():
    axes = panels_of(perplexity_figure(rows_of({"alibi": [6.0, 5.5, 5.2, 5.1]})))[0]
    assert axes.xaxis.get_major_locator().tick_values(1, 1e6).tolist() == list(LENGTHS)
    written = axes.xaxis.get_major_formatter()
    assert [written(length, 0) for length in LENGTHS] == ["128", "512", "2k", "16k"]


def test_the_interval_is_a_band_around_the_line():
    axes = panels_of(perplexity_figure(rows_of({"alibi": [6.0, 5.5, 5.2, 5.1]})))[0]
    corners = axes.collections[0].get_paths()[0].vertices
    at_512 = sorted({float(y) for x, y in corners if x == 512})
    assert at_512 == pytest.approx([5.5 * 0.95, 5.5 * 1.05])


def test_each_train_length_is_a_dashed_vertical_line_with_its_number():
    figure = perplexity_figure(rows_of({"a": [6.0] * 4, "b": [5.0] * 4}, train=(512, 2048)))
    axes = panels_of(figure)[0]
    lines = [line for line in axes.lines if list(line.get_ydata()) == [0, 1]]
    assert [line.get_xdata()[0] for line in lines] == [512, 2048]
    assert [text.get_text() for text in axes.texts] == ["train length 512", "2k"]


def test_no_train_length_is_no_line():
    axes = panels_of(perplexity_figure(rows_of({"a": [6.0] * 4}, train=(None,))))[0]
    assert not axes.texts


def test_good_models_stay_apart_when_others_explode_and_the_exploded_are_marked():
    curves = {
        "fine": [6, 5.5, 5.2, 5.0],
        "worse": [6, 5.5, 6.2, 7.0],
        "rope": [6, 5.5, 300, 30000],
        "nan": [6, 5, math.nan, math.nan],
    }
    figure = perplexity_figure(rows_of(curves | {"inf": [6.0, 5.5, 7.0, math.inf]}))
    axes = panels_of(figure)[0]
    low, high = axes.get_ylim()
    assert high == OFF_SCALE * 5.0
    apart = math.log(7.0 / 5.0) / math.log(high / low)
    assert apart > 0.08
    assert triangles_of(axes) == [(2048.0, high), (16384.0, high)]
    assert curves_of(axes)[2][1] == [6, 5.5, 300, 30000]
    assert curves_of(axes)[4][1][:3] == [6.0, 5.5, 7.0]
    assert math.isnan(curves_of(axes)[4][1][3])
    assert legend_of(figure) == ["inf", "rope", "worse", "fine", "nan", "above 100, or infinite"]


def test_triangles_at_one_length_stand_side_by_side():
    axes = panels_of(
        perplexity_figure(rows_of({"good": [5.0] * 4, "a": [5, 5, 5, 900], "b": [5, 5, 5, 901], "c": [5.0] * 4}))
    )[0]
    (first, _), (second, _) = triangles_of(axes)
    assert first < 16384 < second
    assert math.sqrt(first * second) == pytest.approx(16384)


def test_without_an_explosion_nothing_is_marked():
    figure = perplexity_figure(rows_of({"a": [6.0, 5.5, 5.2, 5.0], "b": [6.0, 5.5, 8.2, 50.0]}))
    assert not triangles_of(panels_of(figure)[0])
    assert legend_of(figure) == ["b", "a"]


def test_the_legend_is_in_the_order_of_the_lines_at_the_longest_length():
    values = {"middle": 7.0, "lowest": 5.0, "highest": 9.0, "none": math.nan}
    figure = perplexity_figure(rows_of({name: [math.nan] * 3 + [value] for name, value in values.items()}))
    assert legend_of(figure) == ["highest", "middle", "lowest", "none (no value)"]


def test_values_that_are_all_missing_make_a_figure_all_the_same(tmp_path):
    save(perplexity_figure(rows_of({"a": [math.nan] * 4, "b": [math.inf] * 4})), tmp_path, "missing")
    save(perplexity_figure(rows_of({})), tmp_path, "empty")
    save(position_figure(positions_of([]), rows_of({})), tmp_path, "empty-positions")


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
    rows = rows_of(curves, ("anchored", "disjoint"))
    panels = panels_of(perplexity_figure(rows)) + panels_of(position_figure(positions_of(["alibi", "rope"]), rows))
    for axes in panels:
        alibi = next(line for line in axes.lines if same_color(line.get_color(), "#D55E00"))
        assert alibi.get_marker() == ("s" if axes in panels[:2] else "")


def test_two_runs_of_one_model_are_two_lines_with_names_that_tell_them_apart():
    rows = pd.concat([rows_of({"alibi": [6.0] * 4}, dtype="float32"), rows_of({"alibi": [7.0] * 4}, dtype="bfloat16")])
    assert legend_of(perplexity_figure(rows)) == ["alibi · bfloat16", "alibi · float32"]


def test_runs_on_different_texts_are_lines_that_name_their_text():
    rows = pd.concat([rows_of({"alibi": [6.0] * 4}, corpus=name) for name in ("books", "code")])
    assert legend_of(perplexity_figure(rows)) == ["alibi · books", "alibi · code"]
    rows = pd.concat([rows_of({"alibi": [6.0] * 4}, corpus="books"), rows_of({"rope": [7.0] * 4}, corpus="code")])
    assert legend_of(perplexity_figure(rows)) == ["rope · code", "alibi · books"]


@pytest.mark.slow
@pytest.mark.parametrize("models", [1, 5, 19])
@pytest.mark.parametrize("protocols", [("anchored",), ("anchored", "disjoint"), ("a", "b", "c", "d")])
def test_every_number_of_models_and_protocols_renders_to_both_formats(tmp_path, models, protocols):
    rows = rows_of(
        {f"model {number}": [6.0 + number, 5.5, 5.0, 5.0 * 3**number] for number in range(models)}, protocols
    )
    for path in save(perplexity_figure(rows), tmp_path / "new", "figure"):
        assert path.stat().st_size > 10000
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["figure.png", "figure.svg"]


def test_one_length_alone_is_still_a_figure(tmp_path):
    rows = rows_of({"alibi": [5.0], "rope": [7.0]}, lengths=(512,))
    figure = perplexity_figure(rows)
    save(figure, tmp_path, "one")
    left, right = panels_of(figure)[0].get_xlim()
    assert left < 512 < right


def test_the_same_table_gives_the_same_bytes(tmp_path):
    rows = rows_of({"alibi": [6.0, 5.5, 5.2, 5.1], "rope": [6.1, 5.4, 9.0, 30.0]})
    first, again = (save(perplexity_figure(rows), tmp_path / name, "figure") for name in ("first", "again"))
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "axes.grid": False}):
        elsewhere = save(perplexity_figure(rows), tmp_path / "elsewhere", "figure")
    for one, two, three in zip(first, again, elsewhere, strict=True):
        assert one.read_bytes() == two.read_bytes() == three.read_bytes()
    assert b"date" not in first[1].read_bytes().lower()


def test_a_figure_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*figure\.png"):
        save(perplexity_figure(rows_of({"alibi": [5.0] * 4})), tmp_path / "file", "figure")


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
