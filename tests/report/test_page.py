"""The page of a report: complete, equal to what is stored, and nothing in a name obeyed. No browser is needed here."""

import base64
import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lpe_eval.commands import report as reporting
from lpe_eval.report.kind import open_folder
from lpe_eval.report.page.document import page
from lpe_eval.report.page.html_tables import stored_html, table_html
from lpe_eval.report.page.lines import lines_of, swatch
from lpe_eval.report.page.of_items import Seen, item_charts, points_of
from lpe_eval.report.page.of_recall import recall_charts
from lpe_eval.report.page.parts import Chart, HeatMap, KindPart
from lpe_eval.report.page.safe import escaped, json_inside
from lpe_eval.report.page.vega import specification
from lpe_eval.report.stored_rows import Stored
from lpe_eval.screen import Cell, Column, Table, visible, with_error
from lpe_eval.table import MODEL, VALUE
from tests.support.hostile_names import HOSTILE, SHOWN
from tests.support.hostile_runs import NAMES, hostile_run
from tests.support.page_reader import PageReader

ROOT = Path(__file__).parents[2]
RELEASED, PROBLEMS = ROOT / "results/baselines/released", ROOT / "results/baselines/released-che"
LIBRARY = "window.vegaEmbed = null;"


def parts_of(*folders: Path, baselines: tuple[str, ...] = ()) -> list[KindPart]:
    opened = reporting.comparing.open_baselines(baselines)
    found: dict[str, list[Any]] = {}
    for folder in folders:
        each = open_folder(folder)
        found.setdefault(each.kind.name, []).append(each)
    return [reporting.kind_part(own, opened, []) for own in found.values()]


def read(*folders: Path, baselines: tuple[str, ...] = ()) -> PageReader:
    return PageReader(page(parts_of(*folders, baselines=baselines), LIBRARY).decode())


@pytest.fixture(scope="module")
def of_text() -> list[KindPart]:
    return parts_of(RELEASED)


@pytest.fixture(scope="module")
def of_problems() -> list[KindPart]:
    return parts_of(PROBLEMS)


@pytest.fixture(scope="module")
def released(of_text: list[KindPart]) -> PageReader:
    return PageReader(page(of_text, LIBRARY).decode())


@pytest.fixture(scope="module")
def problems(of_problems: list[KindPart]) -> PageReader:
    return PageReader(page(of_problems, LIBRARY).decode())


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def captioned(found: PageReader, heads: set[str]) -> list[list[tuple[str, dict[str, str | None]]]]:
    """The table that has these heads."""
    (table,) = [table for table in found.tables if any(heads <= {text for text, _ in row} for row in table[:2])]
    return table


def points_in(chart: dict[str, Any]) -> list[dict[str, Any]]:
    found = [dict(zip(chart["fields"], values, strict=True)) for values in chart["points"]]
    return [{**point, "name": chart["lines"][point["line"]]["name"]} for point in found]


def test_the_stored_rows_of_the_page_are_the_file_cell_by_cell(released: PageReader, problems: PageReader):
    for reader, path in ((released, RELEASED / "rows.csv"), (problems, PROBLEMS / "che.csv")):
        stored = rows_of(path)
        head, *lines = captioned(reader, {"metric", "value", "stderr", "model"})
        names = [text for text, _ in head]
        (every,) = [text for text in reader.texts if text.startswith("in every row: ") and "schema" in text]
        assert len(lines) == len(stored)
        for line, row in zip(lines, stored, strict=True):
            assert [text for text, _ in line] == [row[name] for name in names]
        for name in set(stored[0]) - set(names):
            (value,) = {row[name] for row in stored}
            assert value == "" or f"{name}: {value}" in every


def test_a_rounded_number_has_the_stored_one_behind_it(released: PageReader):
    stored = {
        (row["model"], row["length"]): row for row in rows_of(RELEASED / "rows.csv") if row["metric"] == "perplexity"
    }
    table = captioned(released, {"512", "2048"})
    heads = [text for text, _ in next(row for row in table if ("512" in {text for text, _ in row}))]
    seen = 0
    for line in table[2:]:
        for head, (text, attributes) in zip(heads, line, strict=True):
            row = stored.get((line[0][0], head))
            if row is None or row["status"] != "ok":
                continue
            assert float(str(attributes["data-value"])) == float(row["value"])
            assert attributes["title"] == f"{float(row['value'])!r} ± {float(row['stderr'])!r}"
            assert text == with_error(float(row["value"]), float(row["stderr"]))
            seen += 1
    assert seen == len([row for row in stored.values() if row["status"] == "ok"]) > 30


def test_every_point_of_the_figure_is_a_stored_row(released: PageReader):
    (chart,) = [data for data in released.data if any(view["label"] == "perplexity" for view in data["views"])]
    labels = [view["label"] for view in chart["views"]]
    assert labels == ["perplexity", "loss (nats per token)", "change of the loss (nats per token)", "bits per byte"]
    stored: dict[tuple[str, str, str], dict[str, str]] = {
        (row["model"], row["length"], row["metric"]): row for row in rows_of(RELEASED / "rows.csv")
    }
    metrics = ["perplexity", "nll_nats", None, "bits_per_byte"]
    counts = dict.fromkeys(metrics, 0)
    for point in points_in(chart):
        metric = metrics[point["view"]]
        counts[metric] += 1
        key = point["name"], f"{point['x']:.0f}"
        if metric is None:
            # All lengths of this run scored the same targets, so the paired change is that of the mean.
            now, before = (float(stored[point["name"], each, "nll_nats"]["value"]) for each in (key[1], "512"))
            assert point["y"] == pytest.approx(now - before, abs=1e-9)
            continue
        row = stored[*key, metric]
        assert point["y"] == float(row["value"])
        assert (point["low"], point["high"]) == (float(row["ci_low"]), float(row["ci_high"]))
        assert point["stored"] == f"{float(row['value'])!r} ± {float(row['stderr'])!r}"
        assert point["over"] == f"{int(row['n_tokens']):,} tokens in {row['n_documents']} documents"
    finite = [row for row in stored.values() if row["value"] and math.isfinite(float(row["value"]))]
    assert sum(counts.values()) - counts[None] == len(finite)


def test_the_heat_map_has_the_scores_of_the_summary_formula(of_problems: list[KindPart]):
    """A score is the plain mean over the lengths beyond training, reckoned here from the file."""
    (heat,) = [part for part in of_problems[0].figures if isinstance(part, HeatMap)]
    sums: dict[tuple[str, str], list[float]] = {}
    for row in rows_of(PROBLEMS / "che.csv"):
        if row["metric"] == "accuracy" and row["in_range"] == "0" and row["value"]:
            sums.setdefault((row["task"].replace("_", " "), row["encoding"]), []).append(float(row["value"]))
    for name, cells in heat.lines:
        for line, cell in zip(heat.heads[1:], cells[1:], strict=True):
            values = sums[name, line]
            assert cell.text == f"{100 * sum(values) / len(values):.1f}"
            assert cell.share is not None and 0 <= cell.share <= 1
    assert len(heat.lines) == len(heat.groups) > 2


def test_the_page_asks_for_nothing_and_allows_its_own_scripts_alone(released: PageReader):
    for tag, attributes in released.tags:
        assert tag not in ("img", "link", "iframe", "object", "embed", "base", "audio", "video", "source")
        assert not {"src", "srcset", "action", "background"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        if "href" in attributes:
            assert str(attributes["href"]).startswith("#")
    (policy,) = [at["content"] for tag, at in released.tags if at.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; ")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    scripts = [content for attributes, content in released.scripts if not attributes]
    assert {base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts} == allowed
    assert len(scripts) == 2 and scripts[0] == LIBRARY
    assert all(name == "application/json" for at, _ in released.scripts if (name := at.get("type")))
    anchors = {attributes["id"] for _, attributes in released.tags if "id" in attributes}
    linked = {str(attributes["href"])[1:] for tag, attributes in released.tags if tag == "a"}
    assert linked <= anchors and len(linked) > 4
    style = (ROOT / "lpe_eval/report/page/page.css").read_text()
    assert "url(" not in style and "@import" not in style and "http" not in style


def test_the_same_runs_give_the_same_bytes(of_problems: list[KindPart]):
    assert page(parts_of(PROBLEMS), LIBRARY) == page(of_problems, LIBRARY)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    return hostile_run(RELEASED, tmp_path / "<b>run", ("alibi", "rope", "nope", "t5"))


def test_names_are_text_wherever_they_stand(hostile: Path):
    found = read(hostile, baselines=(str(RELEASED),))
    scripts = [at for at, _ in found.scripts if "type" not in at]
    assert len(scripts) == 2 and not any(tag in ("img", "b") and at for tag, at in found.tags)
    text = "".join(found.texts)
    for name in NAMES:
        assert visible(name) in text
    raw = page(parts_of(hostile), LIBRARY).decode()
    assert "\u202e" not in raw and "\u2028" not in raw and "\x1b" not in raw
    names = {point["name"] for data in found.data for point in points_in(data)}
    assert names == {visible(name) for name in NAMES}
    for content in (content for at, content in found.scripts if at.get("type")):
        assert not set("<>&") & set(content)


@pytest.mark.parametrize("text", [*NAMES, HOSTILE, "a\nb", "]]>", "\\u003c/script>", "\ud800"])
def test_a_text_comes_back_as_it_is_read(text: str):
    found = PageReader(f'<p title="{escaped(text)}">{escaped(text)}</p>')
    assert "".join(found.texts) == visible(text) == found.tags[0][1]["title"]
    inside = json_inside({"a": [text]})
    assert json.loads(inside) == {"a": [visible(text)]} and not set("<>&") & set(inside) and inside.isascii()
    assert visible(HOSTILE) == SHOWN


def test_verdicts_stand_at_the_top_and_in_a_table_with_a_mark_for_each(tmp_path: Path):
    same = read(PROBLEMS, baselines=("released-che",))
    assert any("passes" in str(at.get("class")) for _, at in same.tags)
    texts = [text for row in captioned(same, {"verdict", "allowed"})[1:] for text, _ in row[-1:]]
    assert set(texts) == {"✓ same"} and len(texts) > 9
    worse = read(hostile_run(RELEASED, tmp_path / "run", ("alibi", "rope", "nope", "t5")), baselines=(str(RELEASED),))
    assert any("fails" in str(at.get("class")) for _, at in worse.tags)
    marks = {text for row in captioned(worse, {"verdict", "allowed"})[1:] for text, _ in row[-1:]}
    assert {"✗ missing", "+ new"} <= marks


def test_several_runs_and_kinds_make_one_page_with_every_run_in_it(of_text, of_problems):
    found = PageReader(page([*of_text, *of_problems], LIBRARY).decode())
    text = "".join(found.texts)
    for part in ("Perplexity", "Algorithmic problems", "released-che", "Provenance", "Citations", "@misc{lpe_eval,"):
        assert part in text, part
    ids = [at["id"] for _, at in found.tags if "id" in at]
    assert len(ids) == len(set(ids))


def test_two_runs_of_the_same_models_have_whole_lines_with_their_names(tmp_path: Path):
    models = ("alibi", "rope", "nope", "t5")
    first, second = (hostile_run(RELEASED, tmp_path / name, models) for name in ("first", "second"))
    for name in ("rows.csv", "provenance.json", "run.json"):
        text = (second / name).read_text(encoding="utf-8")
        (second / name).write_text(text.replace("7607b5438b02", "0123456789ab"), encoding="utf-8")
    chart = next(part for part in parts_of(first, second)[0].figures if isinstance(part, Chart))
    assert [line.name for line in chart.lines] == [
        f"{name} · {run}" for run in ("first", "second") for name in (NAMES[0], NAMES[2], NAMES[1], NAMES[3])
    ]
    lengths = {line: {point.x for point in chart.points if point.line == line and point.view == 0} for line in range(8)}
    assert all(found == {512, 2048} for found in lengths.values())


def test_what_cannot_be_drawn_is_left_out_and_the_rest_is_drawn():
    seen = [Seen("a", "p", 0, 1, math.inf), Seen("a", "p", 0, 2, None), Seen("a", "p", 0, 3, 1.5, math.nan),
            Seen("a", "p", 0, 4, 2.0, 0.25), Seen("a", "p", 0, 5, 2.0, 0.1, (math.nan, 3.0))]  # fmt: skip
    found = points_of(seen, ["a"], ["p"])
    assert [(point.x, point.low, point.high) for point in found] == [(3, None, None), (4, 1.5, 2.5), (5, None, None)]
    assert item_charts([], "nothing") == [] and recall_charts([]) == []


def test_lines_keep_their_colours_and_no_two_of_the_first_32_are_alike():
    lines = lines_of([f"m{place}" for place in range(32)] + ["m0", "best", "floor"], ["best"], ["floor"])
    assert len({(line.colour, line.shape, line.dash) for line in lines}) == len(lines) == 34
    assert lines[0] == lines_of(["m0"])[0] and all("<svg" in swatch(line) for line in lines)


def test_a_chart_tells_the_library_nothing_of_its_names():
    chart = Chart("t", [], "model", "protocol", ["p"], [], lines_of([NAMES[0]]), "x", [1.0], [], {})
    assert "pwned" not in json.dumps(specification(chart)) and "$schema" not in specification(chart)


def cells(html: str) -> Iterator[tuple[str, str | None]]:
    (table,) = PageReader(html).tables
    return ((text, at.get("data-value")) for row in table[1:] for text, at in row)


def test_cells_are_sorted_by_what_is_stored_infinity_too():
    shown = Table("t", [Column("a"), Column("b", number=True)], [["x", Cell(with_error(1.23456, 0.01), True)],
                  ["y", with_error(math.inf, None)], ["z", "n/a"]], kept=1)  # fmt: skip
    assert [*cells(table_html(shown))] == [
        ("x", None), ("1.235 ± 0.010", "1.23456"), ("y", None), ("inf", "Infinity"), ("z", None), ("n/a", None),
    ]  # fmt: skip
    rows = [{"model": "a", "value": -math.inf}, {"model": "b", "value": 0.1 + 0.2}, {"model": "c", "value": None}]
    assert [*cells(stored_html(Stored("t", (MODEL, VALUE), rows)))] == [
        ("a", None), ("-inf", "-Infinity"), ("b", None), ("0.30000000000000004", None), ("c", None), ("", None),
    ]  # fmt: skip
