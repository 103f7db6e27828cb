"""Faults that end in a sentence: hostile names, too little memory, numbers out of bounds, streams that are closed."""

import csv
import errno
import json
import shlex
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from lpe_eval import console
from lpe_eval.cli import app
from lpe_eval.cli.sentences import sentence_for_errors
from lpe_eval.errors import CheckpointError, LpeEvalError
from lpe_eval.measure import by_length, estimate, speed
from lpe_eval.measure.provenance import publishable_name
from lpe_eval.model import needed_memory
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from lpe_eval.model.foreign.transformers_config import refuse_larger
from lpe_eval.model.needed_memory import free_memory, shortfall
from lpe_eval.out_of_memory import SENTENCE, out_of_memory
from lpe_eval.spec.tasks import tasks_folder
from tests.support.native_checkpoints import checkpoint

HOSTILE = "a\x1b]0;pwned\x07b\x9b31mc\x08\u202ed[red]e[bold]:smile:"
TEXT = " ".join(f"word{number * number % 91}" for number in range(300))


def obeyed(text: str) -> set[str]:
    """The characters of a text that a terminal would obey."""
    return {each for each in text if (not each.isprintable() and each not in "\n ") or "\x7f" <= each <= "\x9f"}


def ppl(*more: str, m: str = "tiny", data: str = "text.txt", lengths: str = "32", out: str = "out") -> list[str]:
    return ["ppl", "-m", m, "--data", data, "--lengths", lengths, "--max-tokens", "300", "-q", "--out", out, *more]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the checkpoint `tiny` and the text `text.txt`, as the current directory."""
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("tiny"))
    Path("text.txt").write_text(TEXT)
    return tmp_path


def told(*arguments: str, code: int) -> str:
    """What a command says on both streams."""
    result = CliRunner().invoke(app, list(arguments))
    output = result.output
    assert result.exit_code == code, output
    assert "Traceback" not in output
    assert not isinstance(result.exception, Exception), result.exception
    return output


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


def test_memory_is_a_sum(tmp_path: Path):
    free = 4 * 2**30
    assert shortfall(3_300_000_000, 4, 0, free) == "needs 12.3 GiB for 3.3e+09 parameters, and 4.0 GiB are free"
    assert shortfall(0, 0, free + 2**20, free) == "needs 4.0 GiB at least, and 4.0 GiB are free"
    assert shortfall(2**30, 4, 0, free) == ""
    assert shortfall(10**30, 16, 0, None) == ""
    for name, text in {
        "proc/meminfo": "MemTotal: 9999 kB\nMemAvailable: 3000 kB\nSwapFree: 100 kB\n",
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/fs/cgroup/a/memory.max": "2048000\n",
        "sys/fs/cgroup/a/memory.stat": "anon 48000\nfile 2000000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path) == 2_000_000
    (tmp_path / "sys/fs/cgroup/a/memory.max").write_text("max\n")
    assert free_memory(tmp_path) == 3100 * 1024
    assert free_memory(tmp_path / "nowhere") is None


def test_a_model_that_cannot_fit_says_so_before_anything_is_allocated(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(needed_memory, "free_memory", lambda: 10_000)
    small = ("--encoding", "alibi", "--width", "16", "--layers", "1", "--heads", "2")
    assert "needs" in told("train", *small, "--corpus", "text.txt", code=2)
    assert "needs" in told("speed", *small, "--lengths", "32", "-q", code=2)
    assert "and 0 MiB are free" in told("che", "--train", "--encoding", "rope", "--protocol", "smoke", "-q", code=2)
    assert "and 0 MiB are free" in told(*ppl(), code=4)


def test_a_window_that_cannot_fit_costs_its_length_alone(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(by_length, "free_memory", lambda: 10_000)
    said = told(*ppl("--attention", "dense", lengths="16,128"), code=4)
    assert "a window of 128 tokens needs" in said.replace("\n", " ")
    rows = list(csv.DictReader(Path("out/rows.csv").read_text().splitlines()))
    assert {row["length"] for row in rows if row["status"] == "ok"} == {"16"}


@pytest.mark.parametrize("field", ["layers: 2", "width: 16", "mlp_width: 32", "train_length: 32", "vocab_size: 258"])
@pytest.mark.parametrize("size", [10**9, 10**30])
def test_a_native_config_cannot_ask_for_more_than_there_is(field: str, size: int, here: Path):
    config = Path("tiny/config.yaml")
    config.write_text(config.read_text().replace(field, f"{field.partition(':')[0]}: {size}"))
    began = time.monotonic()
    told("inspect", "tiny", code=0 if field.startswith("train") and size < 2**62 else 2)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "argv",
    [
        ppl("--seed", "9" * 30),
        ppl(lengths="9" * 30),
        ppl("--batch-size", "9" * 30),
        ppl("--last-k", "9" * 30, "--protocol", "last"),
        ppl("--device", f"cuda:{'9' * 30}"),
        ["train", "--encoding", "alibi", "--seed", "9" * 30],
        ["train", "--encoding", "alibi", "--steps", "9" * 30],
        ["train", "--encoding", "alibi", "--train-length", "9" * 30],
        ["train", "--encoding", "alibi", "--layers", "9" * 9, "--width", "1", "--heads", "1"],
        ["train", "--encoding", "alibi", "--width", "9" * 12],
        ["train", "--encoding", "learned", "--option", f"length={'9' * 30}"],
        ["speed", "--encoding", "alibi", "--layers", "9" * 30],
        ["speed", "--encoding", "alibi", "--rounds", "9" * 30],
        ["che", "--seed", "9" * 30],
        ["che", "--samples", "9" * 30],
        ["che", "--lengths", "9" * 30],
    ],
    ids=lambda argv: " ".join(each[:12] for each in argv[:3] + argv[-2:]),
)
def test_numbers_without_end_are_one_sentence(argv: list[str], here: Path):
    said = told(*argv, code=2)
    assert len(said.strip().splitlines()) == 1 or "Usage" in said


ENDLESS = ("layers", "width", "mlp_width", "test_seed", "data_seed", "batch", "steps")


@pytest.mark.parametrize(
    ("field", "size"), [*((field, 10**30) for field in ENDLESS), *((field, 10**12) for field in ENDLESS[:3])]
)
def test_a_protocol_cannot_ask_for_more_than_there_is(field: str, size: int, here: Path):
    raw = yaml.safe_load((tasks_folder() / "protocols" / "smoke.yaml").read_text())
    Path("mine.yaml").write_text(yaml.safe_dump({**raw, "name": "mine", "heads": 1, field: size}))
    told("che", "--train", "--encoding", "rope", "--protocol", "mine.yaml", "-q", "--out", "new", code=2)


def test_a_clock_that_is_set_back_gives_no_negative_seconds(here: Path, monkeypatch: pytest.MonkeyPatch):
    # One clock for all that measures seconds, and it runs backwards.
    ticks = count(1e6, -7.0)
    for module in (by_length, estimate, console):
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


LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 256, "max_position_embeddings": 64,
    "dtype": "float32", "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
WRONG = [None, "floa\x00", "", -1, 0, 10**9, 10**30, 1.5, [], {}, [1], {"a": None}, True]


def test_no_value_in_a_foreign_config_ends_in_a_traceback(tmp_path: Path):
    folder = tmp_path / "llama"
    folder.mkdir()
    save_file({"model.norm.weight": torch.ones(16), "left.over": torch.ones(2000)}, folder / "model.safetensors")
    opened = 0
    for key in LLAMA:
        for value in WRONG:
            (folder / "config.json").write_text(json.dumps({**LLAMA, key: value}))
            try:
                HuggingFace.load(folder, LoadOptions(tokenizer="bytes"))
                opened += 1
            except LpeEvalError as error:
                assert str(error).strip()
    assert opened == 0


def test_a_foreign_config_cannot_ask_for_more_than_its_files_hold():
    refuse_larger(LLAMA, 8_192, "here")
    for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"):
        with pytest.raises(CheckpointError, match="weight files of 8192 bytes do not hold"):
            refuse_larger({**LLAMA, key: 10**9}, 8_192, "here")
