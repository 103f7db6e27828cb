"""`lpe-eval init`: a spec and a workflow for a repository of your own."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import BEGIN, app
from lpe_eval.cli.models import language_models
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=BEGIN)
def init(
    folder: Annotated[Path, typer.Argument(help="Top of the repository; made if it is not there.")] = Path(),
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="What is measured, as `ppl -m` takes it; mine=checkpoints/mine gives it a name. Repeat it for "
            "several. Default: alibi and rope, which ship.",
            autocompletion=completion.models,
        ),
    ] = None,
    data: Annotated[
        str, typer.Option("--data", "-d", help="Text, as `ppl --data` takes it.", autocompletion=completion.corpora)
    ] = "python-stdlib",
    lengths: Annotated[str, typer.Option(help="Tokens per window: 512,2048 or 512:8192:x2.")] = "512,2048",
    baseline: Annotated[
        str,
        typer.Option(help="Name of the baseline that the workflow compares with.", autocompletion=completion.baselines),
    ] = "mine",
) -> None:
    """Write a commented spec, ppl.yaml, and a workflow for GitHub that measures it and compares it with a baseline.

    What is there already is never overwritten.
    """
    with sentence_for_errors():
        from lpe_eval.commands.init import begin
        from lpe_eval.console import lines, note
        from lpe_eval.spec.ppl_spec import parse_lengths

        begun = begin(folder, language_models(model or ["alibi", "rope"]), data, parse_lengths(lengths), baseline)
        for path in begun.written:
            lines(str(path))
        for sentence in begun.notes:
            note(sentence)
