"""What is said on the terminal: listings, sentences, progress, and names that nobody obeys."""

import io
import os
import pty
import subprocess
import sys
import threading
import time

import pytest

from lpe_eval import console, progress_lines, screen
from tests.support.hostile_names import HOSTILE, SHOWN


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "CI"):
        monkeypatch.delenv(name, raising=False)


def test_a_listing_shows_text_as_it_is(capsys):
    console.show(screen.listing("encodings", ["name", "paper"], [["alibi", "Press [bold] 2022"], ["none", None]]))
    out = capsys.readouterr().out
    assert out.splitlines()[0].strip() == "encodings"
    assert "alibi   Press [bold] 2022" in out
    assert "none    -" in out


def test_messages_go_to_stderr_as_they_are_and_on_one_line(capsys):
    long = "cannot write /tmp/[red]x[/red]: " + "why " * 39 + "why"
    console.error(long)
    console.note("three cells are there already")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {long}\nnote: three cells are there already\n"


def test_progress_off_a_terminal_is_a_line_for_each_tenth(capsys, monkeypatch):
    monkeypatch.setattr(progress_lines.time, "monotonic", lambda: 7.0)
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


def test_what_takes_longer_than_a_second_is_told_in_seconds(capsys, monkeypatch):
    times = iter([0.0, *[25.0] * 8])
    monkeypatch.setattr(progress_lines.time, "monotonic", lambda: next(times))
    with console.progress(20, unit="steps") as advance:
        advance(10)
    assert capsys.readouterr().err == "50 % (10 of 20 steps, 0:25 elapsed, 0:25 left, 2.5 s/step)\n"


@pytest.mark.parametrize(("total", "quiet"), [(100, True), (0, False)])
def test_progress_is_silent_when_asked_or_when_there_is_nothing_to_do(capsys, total, quiet):
    with console.progress(total, quiet=quiet) as advance:
        advance(50, "x")
    assert capsys.readouterr() == ("", "")


def on_a_terminal(program: str, **variables: str) -> str:
    """What a program writes to stderr, where that is a terminal."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **variables}
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
    assert child.returncode == 0
    assert out == b""
    return seen.getvalue().decode()


HALF = """
from lpe_eval import console
with console.progress(1000) as advance:
    advance(500, "alibi at 512")
"""


def test_progress_on_a_terminal_is_a_bar_with_times_and_speed():
    text = on_a_terminal(HALF)
    assert "alibi at 512" in text
    assert "50%" in text
    assert "tokens/s" in text


@pytest.mark.parametrize("variables", [{"CI": "true"}, {"TERM": "dumb"}])
def test_a_terminal_whose_picture_is_kept_or_that_cannot_draw_gets_lines(variables: dict[str, str]):
    """A bar fills the log of a job whose output passes for a terminal, and is nothing on a dumb one."""
    text = on_a_terminal(HALF, **variables)
    assert text.startswith("alibi at 512: 50 % (500 of 1k tokens, 0:00 elapsed, ")
    assert "\x1b" not in text and len(text.splitlines()) == 1


def test_a_long_batch_is_not_silent(capsys, monkeypatch):
    monkeypatch.setattr(progress_lines, "_FIRST", 0.05)
    monkeypatch.setattr(progress_lines, "_SHORTEST", 0.1)
    with console.progress(100, unit="steps") as advance:
        advance(1, "alibi at 8192, cell 3 of 76")
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 6
    assert all(line.startswith("alibi at 8192, cell 3 of 76: 1 % (1 of 100 steps, ") for line in lines)
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_what_is_left_shrinks_and_is_not_promised_when_it_has_run_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress_lines.time, "monotonic", lambda: now[0])
    pace = progress_lines.Pace(100)
    assert pace.left() == ""
    now[0] = 10.0
    pace.add(10, 60.0)
    assert pace.left() == "1:00 left, "
    now[0] = 40.0
    assert pace.left() == "0:30 left, "
    now[0] = 80.0
    assert pace.left() == ""
    pace.add(10, None)
    assert pace.left() == "5:20 left, "


@pytest.mark.parametrize(("hours", "fewest", "most"), [(0.05, 10, 14), (1, 30, 80), (10, 120, 220)])
def test_a_job_of_any_length_is_told_and_floods_nothing(capsys, monkeypatch, hours: float, fewest: int, most: int):
    now, steps = [0.0], 20_000
    monkeypatch.setattr(progress_lines.time, "monotonic", lambda: now[0])
    spoke, silent = 0.0, 0.0
    with console.progress(steps, unit="steps") as advance:
        for _ in range(steps):
            now[0] += 3600 * hours / steps
            advance(1)
            if capsys.readouterr().err:
                spoke, silent = now[0], max(silent, now[0] - spoke)
                most, fewest = most - 1, fewest - 1
    assert fewest <= 0 <= most
    # Jobs that say nothing for ten minutes are ended by some machines.
    assert silent <= 310


def test_importing_the_console_imports_neither_rich_nor_the_rest_of_the_package():
    program = "import sys, lpe_eval.console; print({'rich', 'torch', 'pandas', 'lpe_eval.table'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program]) == b"set()\n"


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
