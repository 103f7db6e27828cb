"""`lpe-eval report`: a page of runs."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import READ, app
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=READ)
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs of any kinds; those of one kind share figures.", autocompletion=completion.runs
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file, or its address; one that is there is replaced.")
    ] = Path("report.html"),
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Show verdicts against this baseline, or against the run at ./PATH; repeat it for several.",
            autocompletion=completion.baselines,
        ),
    ] = None,
) -> None:
    """Make one page of runs: figures, tables, verdicts, cost, provenance and citations.

    It is a single file that opens in a browser without a network or a server. A report of a regression is made like
    any other and ends in 0; `compare` is what a job ends by.
    """
    with sentence_for_errors():
        from lpe_eval.commands.report import report
        from lpe_eval.console import lines, note
        from lpe_eval.fetched import here
        from lpe_eval.storage import sent, typed_as

        with sent(out) as file:
            made = report([here(each) for each in runs], file, baseline or ())
        for sentence in made.notes:
            note(sentence)
        lines(typed_as(out, file, made.file))
