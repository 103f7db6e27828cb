"""`lpe-eval export`: a run for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import READ, app
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=READ)
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a baseline.", autocompletion=completion.runs)],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="every-eval-ever: JSON of evalevalai.com; eval-results: YAML for a model on the Hugging Face Hub.",
            autocompletion=completion.exports,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder that the files lie below.")] = Path("export"),
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the format, NAME=VALUE. every-eval-ever: organization, relationship, developer; eval-results: "
            "dataset, task-id, metric, source. Repeat it."
        ),
    ] = None,
) -> None:
    """Write the values of a run in a format that other programs read."""
    with sentence_for_errors():
        from lpe_eval.commands.export import export as write
        from lpe_eval.console import lines
        from lpe_eval.fetched import here
        from lpe_eval.storage import sent, typed_as

        with sent(out) as folder:
            written = write(here(run), form, folder, option or [])
        for path in written:
            lines(typed_as(out, folder, path))
