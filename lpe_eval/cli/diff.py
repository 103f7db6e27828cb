"""`lpe-eval diff`: by how much do models or lengths of a run differ?"""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import READ, As, app
from lpe_eval.cli.running import show_as
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=READ)
def diff(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a baseline.", autocompletion=completion.runs)],
    against: Annotated[str | None, typer.Option(help="Set every other model of the run beside this one.")] = None,
    against_length: Annotated[
        int | None, typer.Option(help="Set every other length beside this one, of the same model.")
    ] = None,
    form: As = None,
) -> None:
    """Say by how much models or lengths of a run differ, paired on the text that both scored.

    Such a difference is far more certain than either value. Positive is a larger loss than that of what it is set
    beside; of `che` and other kinds, more of what is measured.
    """
    with sentence_for_errors():
        from lpe_eval.commands.diff import differences
        from lpe_eval.fetched import here

        for table in differences(here(run), against, against_length):
            show_as(table, form)
