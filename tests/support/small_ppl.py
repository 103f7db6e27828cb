"""A small perplexity run as it is typed, and what a command says."""

from typer.testing import CliRunner

from lpe_eval.cli import app

TEXT = " ".join(f"word{number * number % 91}" for number in range(300))


def ppl(*more: str, m: str = "tiny", data: str = "text.txt", lengths: str = "32", out: str = "out") -> list[str]:
    return ["ppl", "-m", m, "--data", data, "--lengths", lengths, "--max-tokens", "300", "-q", "--out", out, *more]


def told(*arguments: str, code: int) -> str:
    """What a command says on both streams."""
    result = CliRunner().invoke(app, list(arguments))
    output = result.output
    assert result.exit_code == code, output
    assert "Traceback" not in output
    assert not isinstance(result.exception, Exception), result.exception
    return output
