"""`lpe-eval list`: what can be named."""

from typing import Annotated

import typer

from lpe_eval.cli.app import READ, app
from lpe_eval.cli.sentences import sentence_for_errors


@app.command("list", rich_help_panel=READ)
def list_(
    what: Annotated[
        str,
        typer.Argument(help="encodings, tasks, checkpoints, corpora, formats, attentions, kinds or columns."),
    ],
) -> None:
    """List what can be named: encodings, tasks, released checkpoints, corpora, formats, attention paths, columns."""
    with sentence_for_errors():
        from lpe_eval.commands.list import catalogue
        from lpe_eval.console import show

        show(catalogue(what))
