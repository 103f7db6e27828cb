"""Windows, as far as it can be had elsewhere: POSIX modules, names and habits are taken away in a real process.

| case | what | before | now |
|---|---|---|---|
| packaging 2, reports 26 | every command | AttributeError or ModuleNotFoundError | works |
| packaging 2 | two processes, one folder | no lock at all | the second is refused |
| packaging 2 | a run, a baseline, a checkpoint written again | PermissionError | replaced |
| packaging 2 | a reader has the table open | PermissionError ended the run | tried again for a moment |
| packaging 2 | the home directory in a provenance | written out, for its backslashes | `~` |
| packaging 2 | `results\\runs\\x` as a baseline | no such name | the run at that path |
"""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lpe_eval import lock
from lpe_eval.measure import memory
from lpe_eval.measure.provenance import cost, publishable, publishable_name
from lpe_eval.report.gate import baseline

ROOT = Path(__file__).parents[2]
POOR = {
    "PYTHONPATH": os.pathsep.join([str(ROOT / "tests/support/like_windows"), str(ROOT)]),
    "PYTHONWARNDEFAULTENCODING": "1",
}
SHAPE = "--width 16 --layers 1 --heads 2"
TRAIN = f"train --encoding alibi --steps 2 --train-length 32 --batch-tokens 64 {SHAPE} -q --out mine"
COMMANDS = [
    "list encodings",
    "list tasks",
    "list checkpoints",
    TRAIN,
    f"{TRAIN} --seed 1 --overwrite",
    "inspect mine",
    "convert mine other",
    "ppl -m mine -m second=other --data text --lengths 16,32 --max-tokens 500 --out run -q",
    "ppl -m mine -m second=other --data text --lengths 16,32 --max-tokens 500 --out run -q --overwrite",
    "show run",
    "show run --cite",
    "compare run --bless first",
    "compare run --bless first --overwrite",
    "compare run --baseline first --json report.json --junit report.xml --markdown report.md",
    "compare run --baseline ./run",
    "plot run --out figures",
    f"speed --encoding alibi --lengths 16 --mode forward {SHAPE} --out speed -q",
]
SCRIPT = """
import json, shlex, sys
from typer.testing import CliRunner
from lpe_eval.cli import app
for line in sys.argv[1:]:
    ended = CliRunner().invoke(app, shlex.split(line))
    sys.stdout.write(json.dumps([line, ended.exit_code, ended.output, repr(ended.exception)]) + "\\n")
"""


def poor(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, **POOR}
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("windows")
    (found / "text").mkdir()
    for name in ("a", "b", "c"):
        words = " ".join(f"{name}{(each * each) % 91}" for each in range(200))
        (found / "text" / f"{name}.txt").write_text(words, encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def ended(folder: Path) -> dict[str, list[Any]]:
    """Exit code, output and exception of each command, all of one process."""
    told = poor("-c", SCRIPT, *COMMANDS, folder=folder).stdout.splitlines()
    return {line: rest for line, *rest in map(json.loads, told)}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_works(ended: dict[str, list[Any]], command: str):
    code, output, exception = ended[command]
    assert code == 0, (output, exception)


def test_what_was_written_is_whole_and_nothing_else_is_left(ended: dict[str, list[Any]], folder: Path):
    assert ended
    assert {path.name for path in folder.iterdir()} >= {"run", "mine", "other", "figures", "report.json"}
    assert [path for path in folder.rglob("*") if path.name.startswith(".")] == []
    assert sorted(path.name for path in (folder / "results/baselines").iterdir()) == ["first"]
    assert json.loads((folder / "report.json").read_text())["exit_code"] == 0
    assert json.loads((folder / "run/provenance.json").read_text())["cost"]["peak_memory_mib"] > 50


def test_the_line_ends_of_a_checkpoint_are_the_same_everywhere(ended: dict[str, list[Any]], folder: Path):
    assert ended
    # A text file would get others there, and the digest is that of the bytes.
    assert b"\r" not in (folder / "mine/config.yaml").read_bytes()


HOLD = """
import sys, time
from pathlib import Path
from lpe_eval.errors import OutputError
from lpe_eval.lock import hold, release
try:
    held = hold(Path("."))
except OutputError as error:
    print(error)
    sys.exit()
print("held", flush=True)
sys.stdin.read()
release(held, Path("."))
"""


def test_two_processes_never_write_to_one_folder(tmp_path: Path):
    environment = {**os.environ, **POOR}
    command = [sys.executable, "-c", HOLD]
    first = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    assert first.stdin is not None and first.stdout is not None
    assert first.stdout.readline() == "held\n"
    assert poor("-c", HOLD, folder=tmp_path).stdout.startswith("another process is writing to")
    first.communicate("")
    assert list(tmp_path.iterdir()) == []
    again = subprocess.run(command, input="", capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert again.stdout == "held\n"


def test_a_lock_goes_with_a_process_that_is_killed(tmp_path: Path):
    environment = {**os.environ, **POOR}
    command = [sys.executable, "-c", HOLD]
    first = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    with first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        first.kill()
    assert (tmp_path / ".lock").exists()
    again = subprocess.run(command, input="", capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert again.stdout == "held\n" and list(tmp_path.iterdir()) == []


WRITE = """
import sys
from pathlib import Path
from lpe_eval.report.folders.atomic import write_atomically
write_atomically(Path("rows.csv"), b"new")
"""


def test_a_file_that_somebody_reads_is_replaced_as_soon_as_it_is_closed(tmp_path: Path):
    (tmp_path / "rows.csv").write_bytes(b"old")
    reader = [sys.executable, "-c", "import time; f = open('rows.csv'); print(f.read(), flush=True); time.sleep(0.3)"]
    with subprocess.Popen(reader, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as opened:
        assert opened.stdout is not None and opened.stdout.readline() == "old\n"
        poor("-c", WRITE, folder=tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("rows.csv", b"new")]


FOLDERS = """
from pathlib import Path
from lpe_eval.report.folders.atomic import write_folder
def fill(words):
    return lambda partial: (partial / "words").write_text(words, encoding="utf-8")
target = Path("one")
target.mkdir()
write_folder(target, fill("first"), False)
try:
    write_folder(target, fill("second"), False)
except FileExistsError:
    print("there already")
write_folder(target, fill("third"), True)
print((target / "words").read_text(encoding="utf-8"), sorted(path.name for path in Path().iterdir()))
"""


def test_a_folder_is_made_refused_and_replaced(tmp_path: Path):
    assert poor("-c", FOLDERS, folder=tmp_path).stdout == "there already\nthird ['one']\n"


def test_a_system_without_any_lock_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_fcntl", None)
    held = lock.hold(tmp_path)
    lock.release(held, tmp_path)
    with lock.waited_for(tmp_path / "other"):
        assert (tmp_path / "other").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_another_has_is_waited_for(tmp_path: Path):
    script = HOLD.replace("sys.stdin.read()", "time.sleep(0.5)")
    command, environment = [sys.executable, "-c", script], {**os.environ, **POOR}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        began = time.monotonic()
        wait = "from pathlib import Path; from lpe_eval.lock import waited_for\n"
        wait += "with waited_for(Path('.lock')): print('mine')"
        assert poor("-c", wait, folder=tmp_path).stdout == "mine\n"
        assert time.monotonic() - began > 0.2
    assert list(tmp_path.iterdir()) == []


def test_memory_that_no_system_tells_has_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "resource", None)
    found = memory.peak_memory_mib(torch.device("cpu"))
    assert math.isnan(found) and cost(10, 2.0, found)["peak_memory_mib"] is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (r"C:\Users\al\text\a.txt", r"~\text\a.txt"),
        ("C:/Users/al/text/a.txt", "~/text/a.txt"),
        (r"c:\users\AL", "~"),
        (r"--data=C:\Users\al\text", r"--data=~\text"),
        (r"{'path': 'C:\\Users\\al\\text'}", r"{'path': '~\\text'}"),
        (r"C:\Users\alice\text", r"C:\Users\alice\text"),
        (r"D:\C:\Users\al", r"D:\C:\Users\al"),
        (r"C:\Users\al\eval\mine", "mine"),
        (r"hf:C:\Users\al\eval\mine", "hf:mine"),
        (r"C:\Users\al\eval", "."),
        (r"D:\books\x.txt", r"D:\books\x.txt"),
    ],
)
def test_a_home_with_backslashes_is_not_published(given: str, told: str):
    assert publishable([given], ["C:\\Users\\al\\"], r"C:\Users\al\eval", "\\") == [told]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (r"D:\srv\books\english\test.txt", ".../english/test.txt"),
        (r"\\machine\share\english\test.txt", ".../english/test.txt"),
        (r"books\test.txt", r"books\test.txt"),
        ("python-stdlib", "python-stdlib"),
        ("hub:org/name", "hub:org/name"),
    ],
)
def test_a_text_elsewhere_is_named_by_its_last_two_parts(given: str, told: str):
    assert publishable_name(given, "\\") == told


def test_a_path_with_backslashes_is_a_run_and_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(baseline.os, "sep", "\\")
    with pytest.raises(Exception, match="there is no folder"):
        baseline.find_baseline(r"results\runs\x")
