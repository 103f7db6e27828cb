"""Real processes of `lpe-eval` without the seconds that imports take: one helper imports everything and forks.

The helper computes nothing itself, so it has one thread when it forks. A process made this way has its own
memory, descriptors, signals and exit status; it can be killed like any other.
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval.measure import parts

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    """How a process ended: its exit code, or the negative number of the signal that killed it."""

    code: int
    stdout: str
    stderr: str


class Started(NamedTuple):
    """A process that runs."""

    pid: int
    stdout: Path
    stderr: Path


class Warm:
    """A helper process; made by `warm`.

    Args:
        folder: where the output of processes is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        self._helper = subprocess.Popen(
            [sys.executable, "-c", "from tests.support.warm import serve; serve()"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **offline},
        )  # fmt: skip

    def start(self, argv: Sequence[str], cwd: Path, stdout: str | None = None, **how: Any) -> Started:
        """Starts `lpe-eval` with these arguments.

        Args:
            argv: the arguments.
            cwd: its current folder.
            stdout: where its standard output goes; None is a file.
            how: `largest_file` in bytes; `encoding` of its terminal; `closed`: whether it has no standard error;
                `part_work`: of a part, in place of its own.
        """
        self._count += 1
        streams = [self._folder / f"{self._count}.{name}" for name in ("out", "err")]
        if stdout is not None:
            streams[0] = Path(stdout)
        order = {"argv": list(argv), "cwd": str(cwd), "streams": [str(each) for each in streams], **how}
        return Started(self._ask(order), *streams)

    def wait(self, started: Started, kill_after: float | None = None) -> Ended:
        """Waits until a process has ended; it is killed if it has not after so many seconds."""
        code = self._ask({"wait": started.pid, "after": kill_after})
        texts = [each.read_text(errors="replace") if each.is_file() else "" for each in started[1:]]
        return Ended(code, *texts)

    def run(self, argv: Sequence[str], cwd: Path, **how: Any) -> Ended:
        """Runs `lpe-eval` to its end."""
        return self.wait(self.start(argv, cwd, **how))

    def close(self) -> None:
        """Ends the helper."""
        assert self._helper.stdin is not None and self._helper.stdout is not None
        self._helper.stdin.close()
        self._helper.wait()
        self._helper.stdout.close()

    def _ask(self, order: Mapping[str, Any]) -> int:
        assert self._helper.stdin is not None and self._helper.stdout is not None
        self._helper.stdin.write(json.dumps(order) + "\n")
        self._helper.stdin.flush()
        return int(self._helper.stdout.readline())


@contextlib.contextmanager
def warm(folder: Path) -> Iterator[Warm]:
    """A helper for as long as the context lasts."""
    helper = Warm(folder)
    try:
        yield helper
    finally:
        helper.close()


def serve() -> None:
    """The helper: forks a process for each order that comes in, and says how it ended when it is asked."""
    for name in ("lpe_eval.commands.ppl", "lpe_eval.commands.train", "lpe_eval.report.figures.ppl"):
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = _ended(order["wait"], order["after"])
        else:
            answer = os.fork()
            if answer == 0:
                _become(order)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _ended(pid: int, after: float | None) -> int:
    end = None if after is None else time.monotonic() + after
    while end is not None and time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    if end is not None:
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _become(order: Mapping[str, Any]) -> None:
    code = 1
    # Whoever started the tests in the background may have left Ctrl-C ignored, as nohup does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        os.chdir(order["cwd"])
        for number, path in enumerate(["/dev/null", *order["streams"]]):
            opened = os.open(path, os.O_RDWR | os.O_CREAT)
            os.dup2(opened, number)
            os.close(opened)
        encoding = order.get("encoding", "utf-8")
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding=encoding, closefd=False) for number in (1, 2))
        if order.get("closed"):
            sys.stderr = None
        if "part_work" in order:
            parts.PART_WORK = order["part_work"]
        if "largest_file" in order:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"], order["largest_file"]))
        sys.argv = ["lpe-eval", *order["argv"]]
        from lpe_eval.cli import main

        main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
