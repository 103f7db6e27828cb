"""`lpe-eval plot`: figures of runs."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import READ, app
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=READ)
def plot(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs of one kind; several are drawn together.", autocompletion=completion.runs),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the figures. Default: figures/ of the first run.")
    ] = None,
    models: Annotated[
        str | None, typer.Option("--models", "-m", help="Draw these models alone, by name: alibi,rope. Default: all.")
    ] = None,
) -> None:
    """Draw the figures of one or several runs again."""
    with sentence_for_errors():
        from lpe_eval.commands.plot import plot
        from lpe_eval.console import lines, note
        from lpe_eval.fetched import here
        from lpe_eval.storage import sent, typed_as

        names = [each.strip() for each in (models or "").split(",") if each.strip()]
        place = out or runs[0] / "figures"
        with sent(place) as folder:
            drawn = plot([here(each) for each in runs], folder, names)
        for path in drawn.files:
            lines(typed_as(place, folder, path))
        for sentence in drawn.notes:
            note(sentence)
