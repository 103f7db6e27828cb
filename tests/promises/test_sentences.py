"""Faults that end in a sentence: hostile names, too little memory, streams that are closed, damaged tables."""

import csv
import errno
import shlex
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from lpe_eval import progress_lines
from lpe_eval.cli.sentences import sentence_for_errors
from lpe_eval.commands import ppl as perplexity
from lpe_eval.measure import batches, estimate, provenance, speed
from lpe_eval.measure.provenance import publishable_name
from lpe_eval.out_of_memory import SENTENCE, out_of_memory
from tests.support.native_checkpoints import checkpoint
from tests.support.small_ppl import TEXT, ppl, told

HOSTILE = "a\x1b]0;pwned\x07b\x9b31mc\x08\u202ed[red]e[bold]:smile:"


def obeyed(text: str) -> set[str]:
    """The characters of a text that a terminal would obey."""
    return {each for each in text if (not each.isprintable() and each not in "\n ") or "\x7f" <= each <= "\x9f"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the checkpoint `tiny` and the text `text.txt`, as the current directory."""
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("tiny"))
    Path("text.txt").write_text(TEXT)
    return tmp_path


@pytest.mark.parametrize("letter", ["\r", "\n", "\x1b", "\x07", "\x9b", "\u202e", "\x00"])
def test_an_alias_holds_printable_characters_only(letter: str, here: Path):
    said = told(*ppl(m=f"a{letter}b=tiny"), code=2)
    assert "has characters that cannot be printed" in said
    assert obeyed(said) == set()


def test_a_name_in_a_config_is_made_printable(here: Path):
    config = Path("tiny/config.yaml")
    config.write_text(config.read_text().replace("name: tiny", 'name: "ti\\rny\\e[1m"'))
    assert r"ti\x0dny\x1b[1m" in told(*ppl(), code=0).replace("\n", "")
    assert r"ti\x0dny\x1b[1m" in told("show", "out", code=0)


def test_document_names_and_errors_reach_the_terminal_as_text(here: Path):
    Path(f"{HOSTILE}.txt").write_text(TEXT)
    said = told(*ppl(data=f"{HOSTILE}.txt"), code=0) + told("show", "out", code=0)
    said += told("compare", "out", "--baseline", "./out", code=0)
    said += told(*ppl(m=HOSTILE, out="other"), code=2)
    said += told("show", HOSTILE, code=2) + told(HOSTILE, code=2) + told("show", f"--{HOSTILE}", code=2)
    assert obeyed(said) - set("╭─╮│╰╯") == set()
    assert r"\x1b]0;pwned\x07" in said


def test_a_spec_is_printed_as_it_is_where_no_terminal_obeys_it(here: Path):
    told(*ppl(), code=0)
    spec = Path("out/spec.yaml")
    spec.write_text(f"{spec.read_text()}# a\u202eb\tc\n")
    assert told("show", "out", "--spec", code=0) == spec.read_text()


@pytest.mark.parametrize("name", ["a\rb", "a\x1b[2Jb"])
def test_a_training_has_a_printable_name(name: str, here: Path):
    said = told("train", "--encoding", "alibi", "--name", name, code=2)
    assert "has characters that cannot be printed" in said
    assert obeyed(said) == set()


def test_rows_and_provenance_name_text_without_the_machines_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, home = tmp_path / "here", tmp_path / "home"
    (here / "sub").mkdir(parents=True)
    home.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    assert publishable_name(f"{here}/sub/a.txt") == "sub/a.txt"
    assert publishable_name(f"{home}/a.txt") == "~/a.txt"
    assert publishable_name("/srv/books/english/test.txt") == ".../english/test.txt"
    assert publishable_name("../books/test.txt") == "../books/test.txt"
    assert publishable_name("hub:org/name@main") == "hub:org/name@main"
    assert publishable_name("python-stdlib") == "python-stdlib"


def test_a_row_has_no_absolute_path(here: Path):
    away = here / "away"
    away.mkdir()
    (away / "books.txt").write_text(TEXT)
    told(*ppl(data=str(here / "text.txt")), code=0)
    rows = Path("out/rows.csv").read_text()
    assert "text.txt" in rows
    assert str(here) not in rows


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("can't start new thread"),
        RuntimeError("unable to mmap 19576 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
        RuntimeError("Resource temporarily unavailable"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_every_way_in_which_memory_runs_out_is_one_sentence(error: Exception, capfd: pytest.CaptureFixture[str]):
    assert out_of_memory(error)
    with pytest.raises(typer.Exit) as ended, sentence_for_errors():
        raise error
    assert ended.value.exit_code == 1
    assert capfd.readouterr().err == f"error: {SENTENCE}\n"


def test_a_clock_that_is_set_back_gives_no_negative_seconds(here: Path, monkeypatch: pytest.MonkeyPatch):
    # One clock for all that measures seconds, and it runs backwards.
    ticks = count(1e6, -7.0)
    for module in (batches, estimate, provenance, perplexity, progress_lines):
        clocks = SimpleNamespace(
            **{**vars(time), "perf_counter": lambda: next(ticks), "monotonic": lambda: next(ticks)}
        )
        monkeypatch.setattr(module, "time", clocks)
    command = ppl()
    command.remove("-q")
    said = told(*command, code=0)
    assert ":-" not in said
    assert "-0:" not in said
    costs = list(csv.DictReader(Path("out/cost.csv").read_text().splitlines()))
    assert all(float(row["seconds"]) >= 0 for row in costs)
    told(*command, "--dry-run", code=0)
    turns = speed.seconds_in_turn({"plain": lambda: None}, 5, lambda name: None, lambda: next(ticks))
    assert min(turns["plain"]) > 0
    assert speed.timing(turns["plain"], turns["plain"]).ratio == 1


@pytest.mark.parametrize(
    ("stream", "code"),
    [("2>&-", 0), ("2>/dev/full", 0), (">&-", 0), (">/dev/full", 1), (">&- 2>&-", 0), ("MPLBACKEND=bogus", 0)],
)
def test_streams_that_take_nothing_cost_no_result(stream: str, code: int, here: Path):
    command = f"{shlex.quote(sys.executable)} -m lpe_eval {shlex.join(ppl()[:-3])} --out out"
    shell = f"{stream} {command}" if stream.startswith("MPL") else f"{command} {stream}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "nll_nats" in Path("out/rows.csv").read_text()
    assert Path("out/figures/perplexity.png").exists()


def test_a_reader_that_has_enough_ends_the_command_in_silence(here: Path):
    told(*ppl(), code=0)
    shell = f"set -o pipefail; {shlex.quote(sys.executable)} -m lpe_eval show out | head -c 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1)
    assert done.stderr == ""


def test_a_damaged_log_is_shown_as_damaged(here: Path):
    Path("run").mkdir()
    Path("run/spec.yaml").write_text("kind: train\n")
    Path("run/training.csv").write_text("step,train_nll_nats,valid_nll_nats,seconds\n20,5.1,5.\x002,x\n40,5.1,what,1\n")
    assert "run/training.csv is damaged" in told("show", "run", code=1)


@pytest.mark.parametrize("length", [0, -128, 2**62])
def test_a_table_with_impossible_lengths_is_not_drawn(length: int, here: Path):
    told(*ppl(lengths="16,32"), code=0)
    rows = Path("out/rows.csv")
    rows.write_text(rows.read_text().replace(",16,", f",{length},"))
    said = told("plot", "out", "--out", "figures", code=0 if length > 0 else 1)
    assert length > 0 or "holds numbers that this program did not write" in said
