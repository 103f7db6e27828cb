"""`lpe-eval show`: what a run measured, with what, and what to cite."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import READ, As, app
from lpe_eval.cli.running import show_as
from lpe_eval.cli.sentences import sentence_for_errors
from lpe_eval.errors import SpecError


@app.command(rich_help_panel=READ)
def show(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run of any kind, or of a baseline.", autocompletion=completion.runs)
    ],
    cite: Annotated[
        bool, typer.Option("--cite", help="Only BibTeX of the methods, text and protocols used, and of this program.")
    ] = False,
    spec: Annotated[bool, typer.Option("--spec", help="Only the spec, as `lpe-eval run` takes it.")] = False,
    over_seeds: Annotated[
        bool,
        typer.Option("--over-seeds", help="Only the values, trainings of one recipe as one line: mean, deviation."),
    ] = False,
    form: As = None,
) -> None:
    """Say what a run measured, with what, where and how long, and its values; or what to cite for it."""
    with sentence_for_errors():
        from lpe_eval import console
        from lpe_eval.commands import show as command

        if cite + spec + (over_seeds or form is not None) > 1:
            raise SpecError("--cite, --spec and tables (--over-seeds, --as) each print one thing alone; choose one")
        if over_seeds or form is not None:
            for table in command.values(run, over_seeds):
                show_as(table, form)
            return
        if spec:
            console.lines(command.spec_of(run), as_it_is=True)
        elif cite:
            cited = command.cite(run)
            console.lines("\n\n".join(entry.text for entry in cited.entries))
            for sentence in cited.missing:
                console.note(sentence)
        else:
            shown = command.show(run)
            for table in shown.tables:
                console.show(table)
            for sentence in shown.notes:
                console.note(sentence)
