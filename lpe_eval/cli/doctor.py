"""`lpe-eval doctor`: what is here, what will run fast, and what will not."""

from typing import Annotated

import typer

from lpe_eval.cli.app import BEGIN, app
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=BEGIN)
def doctor(
    json: Annotated[bool, typer.Option("--json", help="The same for other programs, as JSON.")] = False,
) -> None:
    """Say what this installation and this machine are, what will run fast, what will not, and what to do about it.

    One screen for a report of an error: versions, processor, devices, folders; no names and no paths but below ~.
    """
    with sentence_for_errors():
        from lpe_eval.commands.doctor import as_json, examined, table_of
        from lpe_eval.console import lines, show

        found = examined()
        if json:
            lines(as_json(found))
        else:
            show(table_of(found))
