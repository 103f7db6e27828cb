"""The commands: flags become a spec, the spec is run, the outcome becomes an exit code.

One file a command; importing it adds it to the application, in the order of the help page. Nothing
heavy is imported before a command needs it, so that `lpe-eval --help` answers at once.
Exit codes: 0 fine, 1 failure, 2 usage or config, 3 regression, 4 some cells failed, 5 inconclusive, 130 interrupted.
"""

import os
import sys

from lpe_eval.cli import init, doctor, ppl, che, recall, merge, slurm, watch, compare, speed, run, train  # isort: skip
from lpe_eval.cli import convert, plot, report, inspect, bias, list, show, diff, export  # isort: skip
from lpe_eval.cli.app import app

__all__ = [
    "app", "bias", "che", "compare", "convert", "diff", "doctor", "export", "init", "inspect", "list", "main", "merge",
    "plot", "ppl", "recall", "report", "run", "show", "slurm", "speed", "train", "watch",
]  # fmt: skip


def main() -> None:
    """Entry point of `lpe-eval`."""
    # A name of a backend that does not exist stops matplotlib from being imported, and no figure here needs any.
    os.environ.pop("MPLBACKEND", None)
    # Where a stream was closed, the next file that is opened would take its place and get what is printed there.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    try:
        app()
    except OSError as error:
        # Help and usage are printed by typer itself.
        from lpe_eval.console import error as show

        show(f"cannot write to the terminal or to where it is sent: {error.strerror or error}")
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        sys.exit(1)
