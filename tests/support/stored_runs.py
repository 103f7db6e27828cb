"""Files put at an address, and commands that are told of them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from lpe_eval.cli import app

SAME = ("rows.csv", "by_document.parquet", "by_position.parquet")
"""Files of a run that hold no place."""


class Counted(MemoryFileSystem):
    """The same, which counts what is fetched and may fail."""

    protocol = "counted"
    fetched: list[str] = []
    failures: list[Exception] = []

    def _raised(self) -> None:
        if Counted.failures:
            raise Counted.failures.pop(0)

    def get_file(self, rpath: str, lpath: str, **more: Any) -> None:
        self._raised()
        Counted.fetched.append(rpath)
        return super().get_file(rpath, lpath, **more)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        self._raised()
        Counted.fetched.append(path)
        return super().cat_file(path, start, end, **more)


def small(out: str, model: str, data: str, *more: str) -> list[str]:
    fixed = ["--lengths", "32", "--max-tokens", "300", "--protocol", "nonoverlap", "-q", "--out", out]
    return ["ppl", "-m", model, "--data", data, *fixed, *more]


def told(arguments: Sequence[str], code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "400"})
    assert result.exit_code == code, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return result.output


def put(folder: Path, address: str) -> None:
    """Every file below a folder, each as one object."""
    files, root = fsspec.url_to_fs(address)
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        files.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@contextmanager
def server_of_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """A server on this machine with an empty bucket called `bucket`, and its file system."""
    for package in ("moto", "s3fs", "flask"):
        pytest.importorskip(package)
    port = 40000 + os.getpid() % 20000
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        files, end = fsspec.filesystem("s3", endpoint_url=f"http://127.0.0.1:{port}"), time.monotonic() + 60
        while True:
            try:
                files.mkdir("bucket")
                break
            except Exception:
                assert time.monotonic() < end, "the server does not answer"
                time.sleep(0.5)
        yield server, files
    finally:
        server.kill()
        server.wait()
