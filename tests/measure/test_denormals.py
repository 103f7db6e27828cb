"""Denormal numbers are zero while a command computes, in every thread, and as before afterwards."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.measure.denormals import denormals_as_zero
from lpe_eval.model.cores import on_cores

SHARED = 1 << 20
"""Numbers of an operation that PyTorch shares among its threads."""


def left() -> int:
    """How many of `SHARED` denormal numbers stay numbers in one operation of all threads."""
    return int(torch.full((SHARED,), 1e-39).mul(1.0).count_nonzero())


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_every_thread_takes_them_as_zero_and_is_put_back():
    assert left() == SHARED, "the workers of this process run now, and keep denormal numbers"
    with denormals_as_zero():
        assert left() == 0
        assert on_cores(lambda piece: left(), [1, 2, 3, 4]) == [0, 0, 0, 0]
        with denormals_as_zero():
            assert left() == 0
        assert left() == 0, "an inner one leaves them to the outer one"
    assert left() == SHARED


@pytest.mark.usefixtures("two_threads")
def test_an_error_puts_them_back_too():
    with pytest.raises(ValueError, match="mine"), denormals_as_zero():
        raise ValueError("mine")
    assert left() == SHARED


@pytest.mark.usefixtures("two_threads")
def test_a_caller_who_takes_them_as_zero_keeps_that():
    torch.set_flush_denormal(True)
    try:
        with denormals_as_zero():
            pass
        assert float(torch.full((1,), 1e-39).mul(1.0)) == 0
    finally:
        torch.set_flush_denormal(False)


MODEL = '''
import torch

class Model(torch.nn.Module):
    """Certain of token 65 where denormal numbers are zero, of token 66 where they are not."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens):
        scores = torch.zeros(*tokens.shape, 256)
        kept = torch.full((1 << 20,), 1e-39).mul(1.0).count_nonzero() > 0
        scores[..., 66 if kept else 65] = 50.0
        return scores
'''


def test_a_command_takes_them_as_zero_and_its_caller_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MODEL, encoding="utf-8")
    Path("text.txt").write_text("A" * 65, encoding="utf-8")
    arguments = ["ppl", "-m", "py:mine.py:Model", "--tokenizer", "bytes", "--data", "text.txt", "--lengths", "16", "-q"]
    result = CliRunner().invoke(app, [*arguments, "--max-tokens", "64", "--out", "out"])
    assert result.exit_code == 0, result.output
    values = [line for line in Path("out/rows.csv").read_text(encoding="utf-8").splitlines() if ",nll_nats," in line]
    assert values
    assert all(",0.0," in line for line in values), values
    assert left() == SHARED
