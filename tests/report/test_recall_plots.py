"""The figures and tables of recall from rows that are written by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpe_eval.report.figures.recall import draw_recall, needle_figure, recall_figure
from lpe_eval.report.folders.recall_scores import Recalled
from lpe_eval.report.numbers.recall_length import Effective, Rule, Scores
from lpe_eval.report.tables.recall import recall_tables
from lpe_eval.screen import Cell

LENGTHS = (128, 256, 2048)


def row(model: str, task: str, length: int, value: float | None, **more: Any) -> dict[str, Any]:
    return {
        "model": model, "encoding": model, "train_length": 512, "task": task, "length": length, "distance": None,
        "depth": None, "metric": "gain_nats", "value": value, "stderr": 0.1, "chance": 0.0, "status": "ok", "note": "",
        **more,
    }  # fmt: skip


def rows(*models: str) -> list[dict[str, Any]]:
    found = []
    for number, model in enumerate(models):
        for at, length in enumerate(LENGTHS):
            found.append(row(model, "repeat", length, 1.0 - 0.3 * at - 0.1 * number, distance=length // 2))
            for depth in (0, 100):
                value = (0.5 if depth else -0.02) - 0.1 * number
                found.append(row(model, "needle", length, value, depth=depth, distance=length - depth))
            found.append(row(model, "needle", length, 0.25))
    return found


def test_lines_are_the_rows_against_distance_and_length():
    figure = recall_figure(rows("alibi", "rope"))
    repeat, needle = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["repeat", "needle"]
    assert repeat.get_xlabel() == "distance (tokens)" and needle.get_xlabel() == "length (tokens)"
    lines = {line.get_label(): line for line in repeat.get_lines()}
    drawn = [container[0] for container in repeat.containers]
    assert [line.get_xdata().tolist() for line in drawn] == [[64, 128, 1024]] * 2  # pyright: ignore
    assert drawn[0].get_ydata() == pytest.approx([1.0, 0.7, 0.4])  # pyright: ignore
    assert needle.containers[1][0].get_ydata() == pytest.approx([0.25] * 3)  # pyright: ignore
    assert lines and repeat.get_ylabel() == "gained by the far context (nats)"


def test_a_heat_map_has_a_panel_a_model_and_one_scale_of_colours():
    figure = needle_figure([each for each in rows(*"abcdefg") if each["depth"] is not None])
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [*"abcdefg"]
    images = [axes.get_images()[0] for axes in panels]
    assert {image.get_clim() for image in images} == {(0.0, 0.5)}
    assert np.asarray(images[1].get_array()).tolist() == [pytest.approx([-0.12] * 3), pytest.approx([0.4] * 3)]
    texts = [text.get_text() for text in panels[0].texts]
    assert texts == ["0.0"] * 3 + ["0.5"] * 3, "what is rounded to nothing has no sign"
    # Of each column of panels the last one has the numbers of the lengths.
    figure.canvas.draw()
    named = [any(label.get_text() for label in axes.get_xticklabels() if label.get_visible()) for axes in panels]
    assert named == [False, False, True, True, True, True, True]


def test_rows_without_a_value_have_no_point_and_nothing_is_drawn_of_none(tmp_path: Path):
    found = rows("alibi")
    assert [path.name for path in draw_recall(found, tmp_path)] == [
        "recall.png",
        "recall.svg",
        "needle.png",
        "needle.svg",
    ]
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    draw_recall(found, tmp_path)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before
    for each in found:
        each["value"] = None if each["task"] == "needle" else each["value"]
    assert [path.name for path in draw_recall(found, tmp_path / "fewer")] == ["recall.png", "recall.svg"]
    assert draw_recall([{**each, "value": float("nan")} for each in found], tmp_path / "none") == []


def recalled(model: str, value: int, status: str = "ok", low: float = 64.0, high: float = 128.0) -> Recalled:
    scores = Scores(np.ones((4, 3)), np.ones((4, 3)), (64, 128, 1024))
    first = row(model, "repeat", 128, 1.0, distance=64)
    return Recalled(first, scores, [*"abcd"], [["x"] * 3] * 4, Effective(value, low, high), Rule(), status, "why")


def test_tables_tell_lengths_with_intervals_and_why_values_are_missing():
    found = [*rows("alibi", "rope"), row("gone", "repeat", 128, None, distance=64, status="failed", note="it fell")]
    lengths, repeat, needle = recall_tables(
        found, [recalled("alibi", 64), recalled("rope", 1024), recalled("gone", 0, "failed")]
    )
    assert [column.text for column in lengths.columns] == [
        "model",
        "encoding",
        "train length",
        "repeat (distance)",
        "needle",
    ]
    assert [line[3] for line in lengths.rows] == ["64 [64, 128]", "≥ 1024 [64, 128]", "failed"]
    assert [column.text for column in repeat.columns] == ["model", "64", "128", "1024"]
    written = [[cell.text if isinstance(cell, Cell) else cell for cell in line] for line in repeat.rows]
    assert written[0] == ["alibi", "1.00 ± 0.10", "0.70 ± 0.10", "0.40 ± 0.10"]
    assert written[2] == ["gone", "failed", "", ""] and "failed: gone at 128: it fell" in repeat.below
    assert [column.text for column in needle.columns] == ["model", "128", "256", "2048"]
    (alone,) = recall_tables([row("one", "needle", 128, 0.5)], [recalled("one", 64, low=float("nan"))])[:1]
    assert alone.rows[0][-1] == ""
