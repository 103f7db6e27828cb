"""Figures of the algorithmic problems: the numbers in the cells and on the lines, and what is marked."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text

from lpe_eval import table
from lpe_eval.records import CheRow
from lpe_eval.report.figures.che import heat_map, length_curves
from lpe_eval.report.figures.files import save
from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.style import styles_of
from lpe_eval.report.frames import typed_frame
from lpe_eval.report.numbers.che_scores import task_scores

LENGTHS = (20, 40, 60, 100)
LEVELS = {"even_pairs": "regular", "reverse_string": "dcf", "solve_equation": "dcf", "bucket_sort": "cs"}


def row(task: str, encoding: str, length: int, value: float | None, **facts: Any) -> CheRow:
    given: dict[str, Any] = {
        "run": "r", "task": task, "task_version": 1, "level": LEVELS[task], "model": encoding, "encoding": encoding,
        "run_index": 0, "seed": 0, "learning_rate": 1e-3, "steps": 10, "protocol": "quick", "length": length,
        "metric": "accuracy", "value": value, "stderr": 0.01, "n_samples": 512, "n_tokens": 512, "chance": 0.5,
        "ceiling": 0.55, "train_max_length": 40, "in_range": int(length <= 40),
    }  # fmt: skip
    return CheRow(**{**given, **facts})


def frame(rows: list[CheRow]) -> pd.DataFrame:
    return typed_frame(table.CHE, rows)


def curve(task: str, encoding: str, values: list[float], **facts: Any) -> list[CheRow]:
    return [row(task, encoding, length, value, **facts) for length, value in zip(LENGTHS, values, strict=True)]


ROWS = frame(
    [
        *curve("bucket_sort", "rope", [0.99, 0.98, 0.8, 0.7], ceiling=0.24, chance=0.2),
        *curve("bucket_sort", "alibi", [0.99, 0.97, 0.3, 0.2], ceiling=0.24, chance=0.2),
        *curve("even_pairs", "rope", [1.0, 0.9, 0.56, 0.56], ceiling=0.55),
        *curve("even_pairs", "alibi", [1.0, 1.0, 1.0, 0.98], ceiling=0.55),
        *curve("even_pairs", "alibi", [1.0, 0.9, 0.9, 0.6], ceiling=0.55, run_index=1, seed=1),
        *curve("reverse_string", "rope", [0.7, 0.6, 0.6, 0.6], ceiling=0.52),
    ]
)


def numbers(axes: Axes) -> list[Text]:
    return [text for text in axes.texts if not isinstance(text, Annotation)]


def cells(figure: Figure) -> dict[tuple[int, int], str]:
    """The text of every cell by its column and its place from the top; column -1 is the ceiling's."""
    texts = numbers(figure.axes[0])
    columns, rows = (sorted({text.get_position()[axis] for text in texts}) for axis in (0, 1))
    places = [text.get_position() for text in texts]
    return {(columns.index(x) - 1, rows.index(y)): text.get_text() for text, (x, y) in zip(texts, places, strict=True)}


def hatched(figure: Figure) -> set[tuple[int, int]]:
    [axes] = figure.axes
    heights = sorted({text.get_position()[1] for text in numbers(axes)})
    found = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    return {(round(patch.get_x() + 0.5), heights.index(patch.get_y() + 0.5)) for patch in found}


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def lines(axes: Axes) -> list[tuple[str, list[float], list[float]]]:
    return [(str(line.get_color()), list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_a_score_is_the_mean_over_the_lengths_beyond_training():
    scores = {(score.task, score.line): score for score in task_scores(ROWS)}
    score = scores["bucket_sort", "rope"]
    assert (score.value, score.lengths, score.n_runs, score.complete) == (pytest.approx(0.75), (60, 100), 1, True)
    assert score.stderr == pytest.approx(math.sqrt(2 * 0.01**2) / 2)
    assert (score.floor, score.chance, score.level) == (pytest.approx(0.24), pytest.approx(0.2), "cs")
    inside = {(score.task, score.line): score for score in task_scores(ROWS, in_range=True)}
    assert inside["bucket_sort", "rope"].value == pytest.approx((0.99 + 0.98) / 2)
    assert inside["bucket_sort", "rope"].lengths == (20, 40)


def test_scores_come_in_the_order_of_the_hierarchy():
    assert [score.level for score in task_scores(ROWS)] == ["regular", "regular", "dcf", "cs", "cs"]


def test_the_best_run_and_the_mean_over_runs_are_both_to_be_had():
    [best] = [score for score in task_scores(ROWS, "max") if (score.task, score.line) == ("even_pairs", "alibi")]
    [mean] = [score for score in task_scores(ROWS, "mean") if (score.task, score.line) == ("even_pairs", "alibi")]
    assert (best.value, best.run, best.n_runs) == (pytest.approx(0.99), ("r", 0, 0, 1e-3), 2)
    assert (mean.value, mean.run, mean.n_runs) == (pytest.approx((0.99 + 0.75) / 2), None, 2)
    between = np.std([0.99, 0.75], ddof=1) / math.sqrt(2)
    assert mean.stderr == pytest.approx(math.hypot(between, best.stderr))


def test_a_score_within_two_standard_errors_of_the_ceiling_is_not_above_it():
    error = 0.01 / math.sqrt(2)
    for value, above in ((0.55 + 1.9 * error, False), (0.55 + 2.1 * error, True), (0.3, False)):
        [score] = task_scores(frame(curve("even_pairs", "rope", [value] * 4)))
        assert score.above == above
    [certain] = task_scores(frame(curve("even_pairs", "rope", [0.56] * 4, stderr=0.0)))
    assert certain.above


def test_without_a_known_ceiling_the_chance_takes_its_place():
    [score] = task_scores(frame(curve("even_pairs", "rope", [0.53] * 4, ceiling=None)))
    assert (score.floor, score.above) == (0.5, True)


def test_a_model_of_unknown_seed_and_learning_rate_is_one_run():
    rows = curve("even_pairs", "rope", [1.0, 1.0, 0.9, 0.8], seed=None, learning_rate=None, run_index=None)
    [score] = task_scores(frame(rows))
    assert (score.value, score.n_runs, score.run) == (pytest.approx(0.85), 1, ("r", None, None, None))


def test_a_length_without_a_value_is_left_out_and_said():
    rows = [
        *curve("even_pairs", "alibi", [1.0, 1.0, 0.9, 0.8]),
        row("even_pairs", "learned", 60, 0.7),
        row("even_pairs", "learned", 100, None, status="n/a", note="no position 101"),
        row("bucket_sort", "learned", 60, None, status="failed", note="out of memory"),
    ]
    scores = {(score.task, score.line): score for score in task_scores(frame(rows))}
    assert scores.keys() == {("even_pairs", "alibi"), ("even_pairs", "learned")}
    assert (scores["even_pairs", "learned"].value, scores["even_pairs", "learned"].complete) == (0.7, False)
    figure = heat_map(frame(rows))
    assert cells(figure)[1, 0] == "70.0*"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["not at all lengths"]


def test_models_of_one_encoding_are_told_apart_by_what_differs():
    rows = [
        *curve("even_pairs", "rope", [1.0] * 4, model="mine"),
        *curve("even_pairs", "rope", [0.9] * 4, model="theirs"),
        *curve("even_pairs", "alibi", [0.8] * 4, protocol="quick"),
        *curve("even_pairs", "alibi", [0.7] * 4, protocol="dape"),
        *curve("bucket_sort", "none", [0.7] * 4, model="none of this task"),
        *curve("even_pairs", "none", [0.7] * 4, model="none of that task"),
    ]
    found = [score.line for score in task_scores(frame(rows))]
    assert found == ["rope · mine", "rope · theirs", "alibi · quick", "alibi · dape", "none", "none"]


def test_the_heat_map_writes_each_score_into_its_cell_and_the_ceiling_beside():
    figure = heat_map(ROWS)
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["even pairs", "reverse string", "bucket sort"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["no skill", "rope", "alibi"]
    assert cells(figure) == {
        (-1, 0): "55.0", (0, 0): "56.0", (1, 0): "99.0",
        (-1, 1): "52.0", (0, 1): "60.0", (1, 1): "–",
        (-1, 2): "24.0", (0, 2): "75.0", (1, 2): "25.0",
    }  # fmt: skip
    levels = [text.get_text() for text in axes.texts if isinstance(text, Annotation)]
    assert levels == ["regular", "context-free", "context-sensitive"]
    assert axes.get_title(loc="left") == "accuracy (%), mean over lengths 60 to 100, best of 1 to 2 runs"


def test_the_mean_over_runs_is_drawn_where_it_is_asked_for():
    assert cells(heat_map(ROWS, "mean"))[1, 0] == "87.0"
    assert heat_map(ROWS, "mean").axes[0].get_title(loc="left").endswith("mean of 1 to 2 runs")


def test_cells_that_are_not_above_the_ceiling_by_more_than_their_error_are_hatched_and_explained():
    figure = heat_map(ROWS)
    assert hatched(figure) == {(0, 0), (1, 2)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "not above what needs no skill by 2 standard errors"
    ]
    good = frame(curve("even_pairs", "rope", [1.0, 1.0, 1.0, 1.0]))
    assert hatched(heat_map(good)) == set()
    assert not heat_map(good).legends


def test_the_colour_says_how_far_a_score_is_from_no_skill_to_all_right():
    def colour(value: float, ceiling: float) -> tuple[float, float, float]:
        [axes] = heat_map(frame(curve("even_pairs", "rope", [value] * 4, ceiling=ceiling))).axes
        [cell] = [patch for patch in axes.patches if patch.get_x() == -0.5 and not patch.get_hatch()]
        return to_rgb(cell.get_facecolor())

    # Both are half of the way; a map of 256 colours rounds.
    assert colour(0.75, 0.5) == pytest.approx(colour(0.6, 0.2), abs=0.01)
    assert sum(colour(0.6, 0.5)) > sum(colour(0.75, 0.5)) > sum(colour(1.0, 0.5))
    assert colour(0.4, 0.5) == (1.0, 1.0, 1.0)


def test_curves_have_a_panel_a_task_and_a_line_an_encoding_with_the_values_in_per_cent():
    figure = length_curves(ROWS)
    found = panels(figure)
    assert list(found) == ["even pairs", "reverse string", "bucket sort"]
    looks = styles_of(["rope", "alibi"])
    for title, values in (("bucket sort", [99, 98, 80, 70]), ("reverse string", [70, 60, 60, 60])):
        [rope] = [line for line in lines(found[title]) if line[0] == looks["rope"].color]
        assert (rope[1], rope[2]) == (list(LENGTHS), pytest.approx(values))
    labels = [axes.get_ylabel() for axes in found.values()]
    assert labels == ["regular\naccuracy (%)", "context-free\naccuracy (%)", "context-sensitive\naccuracy (%)"]


def test_curves_show_the_training_range_the_ceiling_and_the_chance():
    axes = panels(length_curves(ROWS))["bucket sort"]
    shade = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (shade.x0, shade.x1) == (pytest.approx(0), pytest.approx(40))
    ceiling, chance = lines(axes)[:2]
    assert (ceiling[1], ceiling[2]) == (list(LENGTHS), pytest.approx([24] * 4))
    assert (chance[1], chance[2]) == (list(LENGTHS), pytest.approx([20] * 4))
    names = [text.get_text() for text in length_curves(ROWS).legends[0].get_texts()]
    assert names == ["rope", "alibi", "no skill needed", "chance", LABELS["train_range"]]


def test_the_curve_of_the_best_run_is_one_run_and_that_of_the_mean_has_a_band_of_runs():
    colour = styles_of(["rope", "alibi"])["alibi"].color

    def alibi(runs: Any) -> tuple[list[float], list[float], list[float]]:
        axes = panels(length_curves(ROWS, runs))["even pairs"]
        [line] = [line for line in axes.lines if same_color(line.get_color(), colour)]
        [band] = [each for each in axes.collections if same_color(each.get_facecolor()[0][:3], colour)]
        heights = band.get_paths()[0].vertices[:, 1]
        places = band.get_paths()[0].vertices[:, 0]
        at_end = heights[places == 100]
        return list(line.get_ydata()), float(at_end.min()), float(at_end.max())

    assert alibi("max") == (pytest.approx([100, 100, 100, 98]), pytest.approx(96), pytest.approx(100))
    assert alibi("mean") == (pytest.approx([100, 95, 95, 79]), pytest.approx(60), pytest.approx(98))


def test_each_level_starts_a_row_of_panels_and_long_ones_take_several():
    many = [f"task_{number}" for number in range(6)]
    LEVELS.update(dict.fromkeys(many, "regular"))
    rows = frame([each for task in (*many, "bucket_sort") for each in curve(task, "rope", [1, 0.9, 0.8, 0.7])])
    found = panels(length_curves(rows))
    rows_of = {title: axes.get_subplotspec().rowspan.start for title, axes in found.items() if axes.get_subplotspec()}
    assert [rows_of[f"task {number}"] for number in range(6)] == [0, 0, 0, 0, 1, 1]
    assert rows_of["bucket sort"] == 2


def test_scores_within_training_alone_are_drawn_as_curves_and_leave_the_heat_map_empty():
    inside = frame([row("even_pairs", "rope", length, 0.9) for length in (10, 20)])
    assert len(lines(panels(length_curves(inside))["even pairs"])) == 3
    [axes] = heat_map(inside).axes
    assert axes.get_title(loc="left") == "no scores beyond the lengths of training"


def test_another_metric_is_drawn_alone():
    rows = frame(
        [
            *curve("even_pairs", "rope", [1.0, 0.9, 0.8, 0.7]),
            *curve("even_pairs", "rope", [0.5, 0.4, 0.3, 0.1], metric="exact_match", ceiling=None, chance=0.0),
        ]
    )
    assert cells(heat_map(rows, metric="exact_match"))[0, 0] == "20.0"
    axes = panels(length_curves(rows, metric="exact_match"))["even pairs"]
    assert axes.get_ylabel() == f"regular\n{LABELS['exact_match']}"
    assert lines(axes)[-1][2] == pytest.approx([50, 40, 30, 10])


@pytest.mark.parametrize("draw", [heat_map, length_curves])
def test_no_rows_give_an_empty_figure_and_no_warning(draw: Any, tmp_path: Path):
    assert all(path.exists() for path in save(draw(frame([])), tmp_path, "empty"))


@pytest.mark.parametrize("draw", [heat_map, length_curves])
def test_the_same_rows_give_the_same_files(draw: Any, tmp_path: Path):
    first, again = (save(draw(ROWS), tmp_path / name, "figure") for name in ("first", "again"))
    assert [path.suffix for path in first] == [".png", ".svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_drawing_scores_needs_no_torch():
    code = "import sys; import lpe_eval.report.figures.che; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
