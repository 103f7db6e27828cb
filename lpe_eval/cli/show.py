"""`lpe-eval show`: what a run measured, with what, and what to cite."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpe_eval.cli.app import LOOK, app, told
from lpe_eval.errors import SpecError

if TYPE_CHECKING:
    from lpe_eval.commands.show import Folder


@app.command(rich_help_panel=LOOK)
def show(
    run: Annotated[Path, typer.Argument(help="Folder of a run: of ppl, train, speed or che.")],
    cite: Annotated[
        bool, typer.Option("--cite", help="Only BibTeX of the methods, text and protocols used, and of this program.")
    ] = False,
    spec: Annotated[bool, typer.Option("--spec", help="Only the spec, as `lpe-eval run` takes it.")] = False,
) -> None:
    """Say what a run measured, with what, where and how long, and its values; or what to cite for it."""
    with told():
        from lpe_eval import console
        from lpe_eval.commands.show import open_folder, spec_text, tables, understood

        if cite and spec:
            raise SpecError("--cite and --spec each print one thing alone; choose one")
        found = open_folder(run)
        if spec:
            typer.echo(spec_text(found), nl=False)
            return
        if cite:
            from lpe_eval.commands.cite import citations

            with understood(run):
                cited = citations(found.spec, found.provenance, found.rows)
            typer.echo("\n\n".join(entry.text for entry in cited.entries))
            for sentence in cited.missing:
                console.note(sentence)
            return
        with understood(run):
            shown = tables(found)
        for title, columns, rows in shown:
            console.listing(title, columns, rows)
        _values(found)


def _values(found: "Folder") -> None:
    from lpe_eval import console
    from lpe_eval.commands.show import losses, metric, summary

    rows = found.rows
    match found.kind:
        case "train":
            title, columns, lines = losses(found.path)
            console.listing(title, columns, lines)
        case _ if not rows:
            console.note("nothing has been finished in this folder yet")
        case "ppl":
            console.result_table(rows, metric(found))
        case "che":
            console.listing(*summary(found.path))
        case "speed":
            from lpe_eval.commands.speed import COLUMNS, notes, shown

            for mode in dict.fromkeys(row["mode"] for row in rows):
                console.listing(mode, COLUMNS, shown(rows, mode))
            for sentence in notes(rows):
                console.note(sentence)
