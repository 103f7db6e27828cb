"""The table of perplexities in terminals of every width."""

import math
import os
import subprocess
import sys

import pandas as pd
import pytest

from lpe_eval import screen, table
from lpe_eval.report.frames import typed_frame
from tests.support.perplexity_rows import row_of, rows_of, show_perplexity


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_the_table_has_a_line_a_model_and_a_column_a_length(capsys):
    show_perplexity(rows_of())
    out = capsys.readouterr().out.splitlines()
    assert [line.split() for line in out[1:3]] == [
        ["anchored", "anchored"],
        ["model", "encoding", "train", "length", "128", "2048"],
    ]
    assert "alibi   alibi encoding   512            5.189 ± 0.052   6.172 ± 0.062" in out[4]
    assert out[5].split()[0] == "rope"


def test_the_caption_says_what_was_measured_and_what_the_sign_means(capsys):
    show_perplexity(rows_of())
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "perplexity; corpus novels, test split; 262,144 scored tokens in 32 documents for each value; "
        "protocol anchored; ± is one standard error (bootstrap-documents-1000); bold is the lowest of its column"
    )


def test_only_the_lowest_value_of_a_column_is_bold(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    rows = [*rows_of(), row_of("broken", 128, 1.0, status="error", note="3 targets"), row_of("broken", 2048, 5.0)]
    show_perplexity(rows)
    out = capsys.readouterr().out
    bold = [part.split("\x1b[0m")[0].strip() for part in out.split("\x1b[1m")[1:]]
    assert [part for part in bold if "±" in part] == ["5.189 ± 0.052", "5.000 ± 0.050"]


def test_missing_values_show_their_status_and_reasons_stand_below(capsys):
    rows = [
        *rows_of((128, 2048, 4096)),
        row_of("learned", 128, 5.0),
        row_of("learned", 2048, math.nan, status="n/a") | {"note": "512 positions"},
        row_of("learned", 4096, math.nan, status="n/a") | {"note": "512 positions"},
        row_of("big", 128, math.inf, status="error") | {"note": "2 of 9 targets", "stderr": math.nan},
        row_of("big", 2048, math.nan, status="failed") | {"note": "out of memory"},
    ]
    show_perplexity(rows)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "error (inf)" in out
    assert "n/a: learned at anchored 2048, 4096: 512 positions" in lines
    assert "error: big at anchored 128: 2 of 9 targets" in lines
    assert "failed: big at anchored 2048: out of memory" in lines


def test_a_table_too_wide_for_eighty_columns_folds_and_loses_nothing(capsys):
    rows = rows_of((128, 256, 512, 1024, 2048, 4096, 8192, 16384), ("anchored", "disjoint"))
    show_perplexity(rows)
    out = capsys.readouterr().out
    body = [line for line in out.splitlines() if ";" not in line]
    assert max(map(len, body)) <= 80
    assert "…" not in out
    for row in rows:
        assert screen.with_error(row["value"], row["stderr"]) in out
    headers = [set(line.split()) for line in body if "anchored" in line or "disjoint" in line]
    assert all(len(header) == 1 for header in headers)


def test_a_wide_terminal_has_one_table(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    show_perplexity(rows_of((128, 256, 512, 1024, 2048), ("anchored", "disjoint")))
    out = capsys.readouterr().out
    assert sum("alibi" in line for line in out.splitlines()) == 1
    assert "…" not in out


def test_a_terminal_too_narrow_for_anything_still_gets_every_model(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    show_perplexity(rows_of())
    assert "5.189 ± 0.052" in capsys.readouterr().out


def test_rows_read_from_disk_are_shown_as_they_are(capsys):
    row = row_of("alibi", 128, 5.0) | {"train_length": None, "stderr": math.nan}
    frame = typed_frame(table.ROWS, [[row[column.name] for column in table.ROWS]])
    assert frame["train_length"][0] is pd.NA
    show_perplexity(frame.to_dict("records"))
    line = next(line for line in capsys.readouterr().out.splitlines() if "alibi" in line)
    assert line.split() == ["alibi", "alibi", "encoding", "-", "5.000"]


def test_two_runs_of_one_model_are_two_lines(capsys):
    show_perplexity([*rows_of(), *({**row, "run": "s"} for row in rows_of())])
    out = capsys.readouterr().out
    assert "alibi (r)" in out
    assert "alibi (s)" in out


def test_another_metric_and_one_that_is_not_there(capsys):
    show_perplexity([row | {"metric": "bits_per_byte"} for row in rows_of()], "bits_per_byte")
    assert "bits_per_byte; corpus" in capsys.readouterr().out
    show_perplexity(rows_of(), "bits_per_byte")
    assert capsys.readouterr().out == "there is no row of bits_per_byte\n"


def test_a_terminal_without_unicode_is_served(tmp_path):
    program = """
from tests.support.perplexity_rows import rows_of, show_perplexity
show_perplexity(rows_of())
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert b"5.189 +- 0.052" in found.stdout


NAMES = [
    *("alibi", "dape-kerple-log", "fire", "fox", "kerple-log", "learned", "mep", "nope", "rope", "sinusoidal", "t5"),
    "xpos",
]
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
PROTOCOLS = ("nonoverlap", "sliding", "anchored-256")


def many_rows() -> list[dict]:
    """Twelve models at eight lengths under three protocols, with values of one to four digits before the point."""
    encodings = {"nope": "none", "dape-kerple-log": "dape(kerple_log)"}
    return [
        row_of(name, length, (2.7 + 1.9 * place) * (1 + length / 500) * (1 + at / 50), protocol)
        | {"encoding": encodings.get(name, name.replace("-", "_"))}
        for place, name in enumerate(NAMES)
        for at, protocol in enumerate(PROTOCOLS)
        for length in LENGTHS
    ]


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_a_block_a_protocol_with_lengths_as_columns_and_whole_numbers(columns: int, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = many_rows()
    show_perplexity(rows)
    lines = capsys.readouterr().out.splitlines()
    table = lines[: next(number for number, line in enumerate(lines) if ";" in line)]
    assert max(map(len, table)) <= columns
    found: dict[tuple[str, str, int], str] = {}
    protocol, heads = "", []
    for line in table:
        words = line.split()
        if words and words[0] in PROTOCOLS:
            (protocol,) = words
        elif words[:1] == ["model"]:
            heads = [int(word) for word in words[1:] if word.isdigit()]
        elif words and words[0] in NAMES and "±" in line:
            values = line.removeprefix(f" {words[0]}").replace(" ± ", "±").split()
            assert len(values) == len(heads)
            found |= {(words[0], protocol, head): value for head, value in zip(heads, values, strict=True)}
    wanted = {
        (row["model"], row["protocol"], row["length"]): screen.with_error(row["value"], row["stderr"]).replace(" ", "")
        for row in rows
    }
    assert found == wanted
    # So many blocks of each protocol as its lengths need, of about the same size: a terminal of 160 columns needs one.
    of_each = [sum(line.split() == [protocol] for line in table) for protocol in PROTOCOLS]
    assert of_each == [{80: 2, 100: 2, 160: 1}[columns]] * 3
    assert "train length 512 in every row" in lines
    # What a name does not spell is told once, apart.
    assert [line.split() for line in table if "none" in line] == [["nope", "none"]]
    assert not any("kerple_log" in line for line in table)


def test_a_name_gives_way_before_a_number_does(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    show_perplexity([row_of("a-model-with-a-name-that-goes-on-and-on", length, 5.123) for length in (128, 256)])
    lines = capsys.readouterr().out.splitlines()
    assert sum("5.123 ± 0.051" in line for line in lines) == 2
    monkeypatch.setenv("COLUMNS", "10")
    show_perplexity(rows_of())
    assert capsys.readouterr().out.count("5.189 ± 0.052") == 1
