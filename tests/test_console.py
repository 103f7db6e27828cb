import io
import math
import os
import pty
import subprocess
import sys

import pandas as pd
import pytest

from lpe_eval import console, screen, table
from lpe_eval.report.frames import typed_frame
from lpe_eval.report.tables.ppl import perplexity_table


def show_perplexity(rows: list[dict], metric: str = "perplexity") -> None:
    console.show(perplexity_table(rows, metric))


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def _row(model: str, length: int, value: float, protocol: str = "anchored", status: str = "ok", **other) -> dict:
    row = dict.fromkeys((column.name for column in table.ROWS), None)
    row.update(model=model, encoding=f"{model} encoding", length=length, value=value, protocol=protocol, status=status)
    row.update(metric="perplexity", stderr=value / 100, ci_method="bootstrap-documents-1000", corpus="novels", note="")
    row.update(split="test", n_tokens=262144, n_documents=32, train_length=512, run="r", **other)
    return row


def _rows(lengths=(128, 2048), protocols=("anchored",)) -> list[dict]:
    return [
        _row(model, length, value * (1 + length / 10000), protocol)
        for model, value in (("alibi", 5.123), ("rope", 6.0))
        for protocol in protocols
        for length in lengths
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.123, "5.123"),
        (5.0, "5.000"),
        (12.3456, "12.35"),
        (999.96, "1000.0"),
        (1234.5, "1234"),
        (30046.0, "30046"),
        (999999.4, "999999"),
        (1.2e9, "1.2e9"),
        (1e300, "1.0e300"),
        (0.05678, "0.05678"),
        (1.5e-7, "1.5e-7"),
        (0.0, "0"),
        (-2.5, "-2.500"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "-"),
        (None, "-"),
        (7, "7.000"),
    ],
)
def test_numbers_keep_four_digits_and_never_lose_one_before_the_point(value, text):
    assert screen.number(value) == text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (5.12345, 0.0213, "5.123 ± 0.021"),
        (5.12345, 0.00004, "5.1235 ± 0.0000"),
        (30046.2, 512.0, "30046 ± 512"),
        (105.61, 1.26, "105.6 ± 1.3"),
        (1.2e9, 3.4e7, "1.2e9 ± 3.4e7"),
        (5.1234, math.nan, "5.123"),
        (5.1234, None, "5.123"),
        (math.inf, math.nan, "inf"),
        (5.1234, math.inf, "5.123"),
    ],
)
def test_a_value_is_written_to_the_second_digit_of_its_error(value, stderr, text):
    assert screen.with_error(value, stderr) == text


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7"), (999, "999"), (1000, "1k"), (12345, "12.3k"), (1.2e6, "1.2M"), (3.45e9, "3.45G")]
)
def test_counts_are_short(count, text):
    assert screen.short_count(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(7.4, "0:07"), (200, "3:20"), (3725, "1:02:05"), (59.7, "1:00")])
def test_durations_look_like_a_clock(seconds, text):
    assert screen.clock(seconds) == text


def test_the_table_has_a_line_a_model_and_a_column_a_length(capsys):
    show_perplexity(_rows())
    out = capsys.readouterr().out.splitlines()
    assert [line.split() for line in out[1:3]] == [
        ["anchored", "anchored"],
        ["model", "encoding", "train", "length", "128", "2048"],
    ]
    assert "alibi   alibi encoding   512            5.189 ± 0.052   6.172 ± 0.062" in out[4]
    assert out[5].split()[0] == "rope"


def test_the_caption_says_what_was_measured_and_what_the_sign_means(capsys):
    show_perplexity(_rows())
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "perplexity; corpus novels, test split; 262,144 scored tokens in 32 documents for each value; "
        "protocol anchored; ± is one standard error (bootstrap-documents-1000); bold is the lowest of its column"
    )


def test_only_the_lowest_value_of_a_column_is_bold(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    rows = [*_rows(), _row("broken", 128, 1.0, status="error", note="3 targets"), _row("broken", 2048, 5.0)]
    show_perplexity(rows)
    out = capsys.readouterr().out
    bold = [part.split("\x1b[0m")[0].strip() for part in out.split("\x1b[1m")[1:]]
    assert [part for part in bold if "±" in part] == ["5.189 ± 0.052", "5.000 ± 0.050"]


def test_missing_values_show_their_status_and_reasons_stand_below(capsys):
    rows = [
        *_rows((128, 2048, 4096)),
        _row("learned", 128, 5.0),
        _row("learned", 2048, math.nan, status="n/a") | {"note": "512 positions"},
        _row("learned", 4096, math.nan, status="n/a") | {"note": "512 positions"},
        _row("big", 128, math.inf, status="error") | {"note": "2 of 9 targets", "stderr": math.nan},
        _row("big", 2048, math.nan, status="failed") | {"note": "out of memory"},
    ]
    show_perplexity(rows)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "error (inf)" in out
    assert "n/a: learned at anchored 2048, 4096: 512 positions" in lines
    assert "error: big at anchored 128: 2 of 9 targets" in lines
    assert "failed: big at anchored 2048: out of memory" in lines


def test_a_table_too_wide_for_eighty_columns_folds_and_loses_nothing(capsys):
    rows = _rows((128, 256, 512, 1024, 2048, 4096, 8192, 16384), ("anchored", "disjoint"))
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
    show_perplexity(_rows((128, 256, 512, 1024, 2048), ("anchored", "disjoint")))
    out = capsys.readouterr().out
    assert sum("alibi" in line for line in out.splitlines()) == 1
    assert "…" not in out


def test_a_terminal_too_narrow_for_anything_still_gets_every_model(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    show_perplexity(_rows())
    assert "5.189 ± 0.052" in capsys.readouterr().out


def test_rows_read_from_disk_are_shown_as_they_are(capsys):
    row = _row("alibi", 128, 5.0) | {"train_length": None, "stderr": math.nan}
    frame = typed_frame(table.ROWS, [[row[column.name] for column in table.ROWS]])
    assert frame["train_length"][0] is pd.NA
    show_perplexity(frame.to_dict("records"))
    line = next(line for line in capsys.readouterr().out.splitlines() if "alibi" in line)
    assert line.split() == ["alibi", "alibi", "encoding", "-", "5.000"]


def test_two_runs_of_one_model_are_two_lines(capsys):
    show_perplexity([*_rows(), *({**row, "run": "s"} for row in _rows())])
    out = capsys.readouterr().out
    assert "alibi (r)" in out
    assert "alibi (s)" in out


def test_another_metric_and_one_that_is_not_there(capsys):
    show_perplexity([row | {"metric": "bits_per_byte"} for row in _rows()], "bits_per_byte")
    assert "bits_per_byte; corpus" in capsys.readouterr().out
    show_perplexity(_rows(), "bits_per_byte")
    assert capsys.readouterr().out == "there is no row of bits_per_byte\n"


def test_a_listing_shows_text_as_it_is(capsys):
    console.show(screen.listing("encodings", ["name", "paper"], [["alibi", "Press [bold] 2022"], ["none", None]]))
    out = capsys.readouterr().out
    assert out.splitlines()[0].strip() == "encodings"
    assert "alibi   Press [bold] 2022" in out
    assert "none    -" in out


def test_messages_go_to_stderr_as_they_are_and_on_one_line(capsys):
    long = "cannot write /tmp/[red]x[/red]: " + "why " * 40
    console.error(long)
    console.note("three cells are there already")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {long}\nnote: three cells are there already\n"


def test_progress_off_a_terminal_is_a_line_for_each_tenth(capsys, monkeypatch):
    monkeypatch.setattr(console.time, "monotonic", lambda: 7.0)
    with console.progress(1000) as advance:
        for _ in range(100):
            advance(10, "alibi at 512")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("alibi at 512: 10 % (100 of 1k tokens, 0:00 elapsed, 0:00 left, ")
    assert lines[-1].startswith("alibi at 512: 100 % (1k of 1k tokens")


def test_progress_may_pass_its_total_and_a_step_may_be_long(capsys):
    with console.progress(10, unit="steps") as advance:
        advance(9)
        advance(9)
    assert [line.split(" (")[0] for line in capsys.readouterr().err.splitlines()] == ["90 %", "180 %"]


@pytest.mark.parametrize(("total", "quiet"), [(100, True), (0, False)])
def test_progress_is_silent_when_asked_or_when_there_is_nothing_to_do(capsys, total, quiet):
    with console.progress(total, quiet=quiet) as advance:
        advance(50, "x")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_is_a_bar_with_times_and_speed():
    program = """
from lpe_eval import console
with console.progress(1000) as advance:
    advance(500, "alibi at 512")
"""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=follower, env=environment
    ) as child:
        os.close(follower)
        out, _ = child.communicate(timeout=60)
        seen = io.BytesIO()
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:
                break
            if not part:
                break
            seen.write(part)
    os.close(leader)
    text = seen.getvalue().decode()
    assert child.returncode == 0
    assert out == b""
    assert "alibi at 512" in text
    assert "50%" in text
    assert "tokens/s" in text


def test_a_terminal_without_unicode_is_served(tmp_path):
    program = """
from tests.test_console import _rows, show_perplexity
show_perplexity(_rows())
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert b"5.189 +- 0.052" in found.stdout


def test_importing_the_console_imports_neither_rich_nor_the_rest_of_the_package():
    program = "import sys, lpe_eval.console; print({'rich', 'torch', 'pandas', 'lpe_eval.table'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program]) == b"set()\n"


HOSTILE = "a\x1b]0;pwned\x07b\x9b31mc\x08\u202ed\r[red]e[/red]:smile:\udcff"
SHOWN = r"a\x1b]0;pwned\x07b\x9b31mc\x08\u202ed\x0d[red]e[/red]:smile:\udcff"


def test_only_what_a_terminal_would_obey_becomes_an_escape():
    assert screen.visible(HOSTILE) == SHOWN
    assert screen.visible("a\nb\tc ü ± 文 👩‍💻 [bold] %s {x} \\") == "a b c ü ± 文 👩‍💻 [bold] %s {x} \\"
    assert screen.visible_lines("a\n\x1bb\n") == "a\n\\x1bb\n"
    every = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
    assert screen.visible(every).isprintable()


def test_no_name_is_obeyed_by_the_terminal_or_read_as_markup(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    columns = [screen.Column(HOSTILE, HOSTILE), screen.Column("b", "b\nc", number=True)]
    console.show(screen.Table(HOSTILE, columns, [[HOSTILE, screen.Cell("x\ny\tz", best=True)]], below=[HOSTILE]))
    console.error(HOSTILE)
    console.note(HOSTILE)
    console.lines(f"{HOSTILE}\nnext")
    with console.progress(10) as advance:
        advance(10, HOSTILE)
    out, err = capsys.readouterr()
    assert out.count(SHOWN) == 6
    assert "x y z" in out
    assert out.endswith("next\n")
    assert err.count(SHOWN) == 3
    assert all(letter.isprintable() or letter == "\n" for letter in out + err)


def test_a_bar_shows_names_as_they_are(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with console.progress(10) as advance:
        advance(5, HOSTILE)
    assert SHOWN in capsys.readouterr().err


def test_lines_are_unchanged_where_asked_and_no_terminal_is(monkeypatch, capsys):
    console.lines("a\x1bb\tc", as_it_is=True)
    assert capsys.readouterr().out == "a\x1bb\tc"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console.lines("a\x1bb\tc", as_it_is=True)
    assert capsys.readouterr().out == "a\\x1bb c\n"
