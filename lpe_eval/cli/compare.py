"""`lpe-eval compare`: is a run worse than its baseline?"""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import MEASURE, app
from lpe_eval.cli.running import end_with
from lpe_eval.cli.sentences import sentence_for_errors
from lpe_eval.errors import SpecError


@app.command(rich_help_panel=MEASURE)
def compare(
    run: Annotated[Path, typer.Argument(help="Folder of the run to judge.", autocompletion=completion.runs)],
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="A baseline's name, ./PATH of a run, or its address; a name without a slash is no folder. Repeat it "
            "for several trainings of one recipe, which then say how much a training varies.",
            autocompletion=completion.baselines,
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Part of the baseline's loss in nats by which a row may be worse.")
    ] = 0.0025,
    sigmas: Annotated[
        float, typer.Option(help="Standard errors of the paired difference below which nothing is worse.")
    ] = 3.0,
    detectable: Annotated[
        float | None,
        typer.Option(
            help="Change that a row must be able to see before it is called same: part of the loss, or share of all "
            "answers. Default: four times the tolerance and at least 0.01; a third of the answers."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="What may differ all the same: task, protocol, tokenizer, dtype, seed, missing.",
            autocompletion=completion.allowed,
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="File of the report as JSON.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="File of the report as JUnit XML.")] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="File of the table as Markdown, for the summary of a CI job.")
    ] = None,
    bless: Annotated[
        str | None,
        typer.Option(help="Make the run the baseline of this name; with --baseline, only if it passes."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the baseline that --bless names.")] = False,
) -> None:
    """Judge a run by a baseline, row by row, on the text that both scored; exit code 3 if it is worse.

    Each row is same, better, worse, missing, new, not comparable or inconclusive. A row is worse when its loss grew (of
    `che`: when its accuracy fell) by more than the tolerance and by more than chance explains, or when one of its
    documents got worse beyond what the others explain; it is inconclusive, exit code 5, when it cannot see a change of
    the size of --detectable. Documents that changed since the baseline are left out.
    """
    with sentence_for_errors():
        from contextlib import ExitStack

        from lpe_eval.commands import compare as comparing
        from lpe_eval.console import note
        from lpe_eval.fetched import here
        from lpe_eval.storage import sent

        rules = comparing.parse_rules(tolerance, sigmas, allow or [], detectable)
        if not baseline and bless is None:
            raise SpecError("there is nothing to compare with; give --baseline, or make one of the run with --bless")
        if not baseline and (json or junit or markdown):
            raise SpecError("a report needs a comparison; give --baseline")
        run = here(run)
        if baseline:
            found = comparing.compare(run, comparing.open_baselines(baseline), rules)
            with ExitStack() as places:
                files = [each and places.enter_context(sent(each)) for each in (json, junit, markdown)]
                comparing.write_reports(found, *files)
            end_with(found)
        if bless is not None:
            note(f"baseline: {comparing.bless(run, bless, overwrite)}")
