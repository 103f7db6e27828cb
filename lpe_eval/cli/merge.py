"""`lpe-eval merge`: the shards of a run become its tables."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import MEASURE, Quiet, app
from lpe_eval.cli.running import show_outcome
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=MEASURE)
def merge(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="The --out of the shards: one that they shared, or several.", autocompletion=completion.runs
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where one run is made of several folders. Needed for several.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Make one run of what shards measured.

    Nothing is measured and no model is opened. The tables are those of a run in one process, to the byte. What is
    missing is told, and tables are made of the rest; run the missing shards again, then merge again.
    """
    with sentence_for_errors():
        from contextlib import ExitStack

        from lpe_eval import console
        from lpe_eval.commands import merge as merging
        from lpe_eval.storage import staged

        tell = (lambda sentence: None) if quiet else console.note
        with ExitStack() as stored:
            here = [stored.enter_context(staged(each)) or each for each in folders]
            target = stored.enter_context(staged(out))
            show_outcome(merging.merge(here, target, tell), {}, tell)
