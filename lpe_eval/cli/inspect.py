"""`lpe-eval inspect`: what a checkpoint is."""

from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import (
    READ,
    AsPublished,
    Remap,
    Revision,
    RopeScaling,
    RopeTheta,
    TokenizerName,
    TrustRemoteCode,
    app,
)
from lpe_eval.cli.models import language_models
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=READ)
def inspect(
    checkpoint: Annotated[
        str, typer.Argument(help="As `ppl -m` takes it; all: every released one.", autocompletion=completion.models)
    ],
    task: Annotated[
        str, typer.Option(help="The task whose windows are counted.", autocompletion=completion.tasks)
    ] = "python-stdlib",
    tokenizer: TokenizerName = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    rope_scaling: RopeScaling = None,
    rope_theta: RopeTheta = None,
    remap: Remap = None,
    as_published: AsPublished = False,
) -> None:
    """Say what a checkpoint is: format, shape, encoding and its parameters, tokenizer, and what `ppl` would measure."""
    with sentence_for_errors():
        from lpe_eval.commands.inspect import inspect_checkpoint
        from lpe_eval.console import note, show
        from lpe_eval.spec.ppl_spec import PerplexitySpec
        from lpe_eval.spec.tasks import parse_spec, read_task

        changes = {
            "tokenizer": tokenizer,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "rope_scaling": rope_scaling,
            "rope_theta": rope_theta,
            "remap": remap,
            "as_published": as_published,
        }
        chosen = read_task(task)
        for each in language_models([checkpoint]):
            fields = PerplexitySpec.of_task(chosen, {**changes, "models": [each]})
            found = inspect_checkpoint(each, parse_spec(fields, PerplexitySpec, "inspect"))
            for table in found.tables:
                show(table)
            for sentence in found.notes:
                note(sentence)
