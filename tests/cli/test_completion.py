"""Completion as a shell asks for it: a process of its own, with the variables that bash, zsh and fish set."""

import os
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lpe_eval.cli import completion
from lpe_eval.commands.list import _LISTINGS
from lpe_eval.data.tokenizer import _SHORT_NAMES
from lpe_eval.model.checkpoint import SHORT_NAMES
from lpe_eval.registry import CHECKPOINTS, ENCODINGS, TOKENIZERS
from lpe_eval.spec.released import released_names
from tests.support.native_checkpoints import checkpoint

PROGRAM = """#!/bin/sh
exec {python} -c "
import atexit, os, sys
sys.argv[0] = 'lpe-eval'
heavy = ('torch', 'pandas', 'numpy', 'matplotlib', 'pydantic', 'yaml', 'datasets')
path = os.environ.get('HEAVY')
if path:
    atexit.register(lambda: open(path, 'w').write(' '.join(each for each in heavy if each in sys.modules)))
from lpe_eval.cli import main
main()
" "$@"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program, a checkpoint, a run and a baseline."""
    folder = tmp_path_factory.mktemp("home")
    program = folder / "bin" / "lpe-eval"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=shlex.quote(sys.executable)))
    program.chmod(0o755)
    checkpoint(folder / "steps" / "step1")
    for run in ("first", "results/runs/abc123", "results/baselines/good"):
        (folder / run).mkdir(parents=True)
        (folder / run / "run.json").write_text('{"kind": "ppl", "run": "abc123", "schema": 1}')
    (folder / "empty").mkdir()
    return folder


def asked(home: Path, **variables: str) -> str:
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    given = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    done = subprocess.run(["lpe-eval"], env=given, cwd=home, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.stdout


def offered(home: Path, typed: str, **more: str) -> list[str]:
    """What fish would show; its answer is one name a line, with help behind a tab."""
    said = asked(
        home, _LPE_EVAL_COMPLETE="complete_fish", _TYPER_COMPLETE_FISH_ACTION="get-args", _TYPER_COMPLETE_ARGS=typed,
        **more,
    )  # fmt: skip
    return [line.partition("\t")[0] for line in said.splitlines() if line]


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("lpe-eval ppl -m al", ["all", "alibi"]),
        ("lpe-eval ppl -m steps/", ["steps/step1"]),
        ("lpe-eval ppl -m h", ["hf:"]),
        ("lpe-eval ppl -m alibi --model xp", ["xpos"]),
        ("lpe-eval ppl --task wikitext-103-", ["wikitext-103-alibi"]),
        ("lpe-eval ppl --protocol nonoverlap,sl", ["nonoverlap,sliding"]),
        ("lpe-eval ppl --data python", ["python-stdlib"]),
        ("lpe-eval ppl --baseline ", ["good", "released", "released-che"]),
        ("lpe-eval ppl --baseline ./fi", ["./first"]),
        ("lpe-eval ppl --tokenizer b", ["bytes", "bpe:"]),
        ("lpe-eval train --encoding kerple-l", ["kerple-log"]),
        ("lpe-eval train --encoding dape(kerple_l", ["dape(kerple_log"]),
        ("lpe-eval train --corpus wiki", ["wikitext"]),
        ("lpe-eval speed --encoding alibi,rop", ["alibi,rope"]),
        ("lpe-eval speed --mode forward,", ["forward,train"]),
        ("lpe-eval che --tasks parity_check,rev", ["parity_check,reverse_string"]),
        ("lpe-eval che --train --protocol d", ["dape", "deepmind"]),
        ("lpe-eval che -m ro", ["rope"]),
        ("lpe-eval show ", ["first", "results/runs/abc123"]),
        ("lpe-eval compare first --baseline g", ["good"]),
        ("lpe-eval inspect six", []),
        ("lpe-eval list enc", ["encodings", "encoders"]),
        ("lpe-eval list encodings ran", ["randomized"]),
        ("lpe-eval list baselines go", ["good"]),
        ("lpe-eval ins", ["inspect"]),
        ("lpe-eval ppl --max-", ["--max-tokens"]),
        ("lpe-eval ppl --lengths 51", []),
    ],
)
def test_what_is_offered(home: Path, typed: str, wanted: list[str]):
    assert offered(home, typed) == wanted


def test_every_released_model_is_offered(home: Path):
    assert set(offered(home, "lpe-eval ppl -m ")) >= set(released_names())
    assert set(offered(home, "lpe-eval speed --encoding ")) == set(ENCODINGS.names())


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["ppl", "-m", "xp"], ["xpos"]),
        (["speed", "--encoding", "alibi,rop"], ["alibi,rope"]),
        # bash keeps the quote in which a parenthesis has to be typed.
        (["train", "--encoding", "'dape(kerple_l"], ["dape(kerple_log"]),
        (["show", "results/"], ["results/runs/abc123"]),
    ],
)
def test_bash_itself_gets_it(home: Path, words: list[str], wanted: list[str]):
    script = asked(home, _LPE_EVAL_COMPLETE="source_bash")
    (function,) = re.findall(r"^(\w+)\(\) \{$", script, re.MULTILINE)
    assert f"-F {function} lpe-eval" in script
    typed = " ".join(shlex.quote(word) for word in ["lpe-eval", *words])
    asks = f"{script}\nCOMP_WORDS=({typed})\nCOMP_CWORD={len(words)}\n{function} lpe-eval\n"
    asks += 'printf "%s\\n" "${COMPREPLY[@]}"'
    given = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["bash", "-c", asks], env=given, cwd=home, capture_output=True, text=True, check=True)
    assert done.stdout.split() == wanted and not done.stderr


def test_zsh_gets_names_in_its_own_words_and_files_where_there_are_none(home: Path):
    def said(typed: str) -> str:
        return asked(home, _LPE_EVAL_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=typed).strip()

    assert said("lpe-eval ppl -m xp") == "_arguments '*: :((\"xpos\"))'"
    assert said("lpe-eval ppl --data nothing") == "_files"


def seconds(once: Callable[[], object]) -> float:
    """Of a processor, in the processes that something starts: what else the machine does is no fault of ours."""
    took = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        once()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(took)


@pytest.fixture(scope="module")
def bare() -> float:
    """What it takes to import typer, which no answer can do without: 0.1 to 0.2 seconds, by its version."""
    return seconds(lambda: subprocess.run([sys.executable, "-c", "import typer"], check=True))


@pytest.mark.parametrize(
    "typed", ["lpe-eval ppl -m a", "lpe-eval speed --encoding alibi,r", "lpe-eval show ", "lpe-eval ppl --m"]
)
def test_nothing_heavy_is_loaded_and_an_answer_takes_little_more_than_typer(home: Path, typed: str, bare: float):
    took = seconds(lambda: offered(home, typed, HEAVY=str(home / "heavy")))
    assert (home / "heavy").read_text() == ""
    # A busy machine makes all of it slower.
    assert took < 1.5 * bare + 0.15


def test_what_is_offered_is_what_there_is():
    assert list(completion._WHAT) and set(completion._WHAT) == set(_LISTINGS)
    tokenizers = {_SHORT_NAMES.get(each.rstrip(":"), each.rstrip(":")) for each in completion._TOKENIZERS}
    assert tokenizers == set(TOKENIZERS.names()) - {"ids"}
    formats = {SHORT_NAMES.get(each.rstrip(":"), each.rstrip(":")) for each in completion._PREFIXES}
    assert formats == set(CHECKPOINTS.names())
