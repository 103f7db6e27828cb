"""`lpe-eval show`: what a run measured, with what, and what to cite."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import READ, app
from lpe_eval.cli.running import show_as
from lpe_eval.cli.sentences import sentence_for_errors
from lpe_eval.errors import SpecError

_STORED = ("csv", "json")


@app.command(rich_help_panel=READ)
def show(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run of any kind, or of a baseline; or its address, s3://bucket/run.",
            autocompletion=completion.runs,
        ),
    ],
    cite: Annotated[
        bool, typer.Option("--cite", help="Only BibTeX of the methods, text and protocols used, and of this program.")
    ] = False,
    spec: Annotated[bool, typer.Option("--spec", help="Only the spec, as `lpe-eval run` takes it.")] = False,
    over_seeds: Annotated[
        bool,
        typer.Option("--over-seeds", help="Only the values, trainings of one recipe as one line: mean, deviation."),
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            "--as",
            help="Only the values: table for the screen, markdown or latex for a page or a paper; csv or json are the "
            "stored rows, with every digit.",
            autocompletion=completion.all_forms,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Only the stored rows, with these columns in this order: model,length,value. `list columns` says what "
            "each means.",
            autocompletion=completion.columns,
        ),
    ] = None,
    error_digits: Annotated[
        int | None,
        typer.Option(help="Write errors in brackets, in the last digits: 1 writes 1.234(5), 2 writes 1.2340(53)."),
    ] = None,
    transpose: Annotated[
        bool, typer.Option("--transpose", help="Lines become columns: of perplexity, a line a length.")
    ] = False,
) -> None:
    """Say what a run measured, with what, where and how long, and its values; or what to cite for it."""
    with sentence_for_errors():
        from lpe_eval import console
        from lpe_eval.commands import show as command
        from lpe_eval.fetched import here

        run = here(run)
        of_tables = over_seeds or transpose or error_digits is not None
        alone = of_tables or form is not None or columns is not None
        if cite + spec + alone > 1:
            raise SpecError("--cite, --spec and values (--format, --columns, --over-seeds) print one thing; choose one")
        names = [name.strip() for name in (columns or "").split(",") if name.strip()]
        if form in _STORED:
            if of_tables:
                raise SpecError(f"{form} has the stored rows; --over-seeds, --transpose, --error-digits are for tables")
            console.lines(command.stored_text(run, form, names), as_it_is=True)
        elif alone:
            for table in command.values(run, over_seeds, names, error_digits, transpose):
                show_as(table, form, _STORED)
        elif spec:
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
