"""The commands: flags become a spec, the spec is run, the outcome becomes an exit code.

One file a command; importing it adds it to the application, in the order of the help page. Nothing
heavy is imported before a command needs it, so that `lpe-eval --help` answers at once.
Exit codes: 0 fine, 1 failure, 2 usage or config, 3 regression, 4 some cells failed, 130 interrupted.
"""

from lpe_eval.cli import ppl, che, compare, speed, run, train, convert, plot, inspect, list, show  # isort: skip
from lpe_eval.cli.app import app

__all__ = [
    "app", "che", "compare", "convert", "inspect", "list", "main", "plot", "ppl", "run", "show", "speed", "train",
]  # fmt: skip


def main() -> None:
    """Entry point of `lpe-eval`."""
    app()
