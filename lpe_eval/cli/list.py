"""`lpe-eval list`: what can be named."""

from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import READ, app
from lpe_eval.cli.sentences import sentence_for_errors


@app.command("list", rich_help_panel=READ)
def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="encodings, checkpoints, encoders, tasks, problems, protocols, corpora, tokenizers, formats, "
            "attentions, baselines, kinds, fields or columns. Without it: what each of these is.",
            autocompletion=completion.listings,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(help="One of them: what is known of it, options included.", autocompletion=completion.members),
    ] = None,
) -> None:
    """List what can be named: encodings, checkpoints, tasks, problems, fields of specs, columns and more."""
    with sentence_for_errors():
        from lpe_eval.commands.list import catalogue, details, overview
        from lpe_eval.console import show

        tables = [overview()] if what is None else [catalogue(what)] if name is None else details(what, name)
        for table in tables:
            show(table)
