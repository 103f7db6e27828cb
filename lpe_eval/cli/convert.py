"""`lpe-eval convert`: the native form of a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import MAKE, AsPublished, TokenizerName, app
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=MAKE)
def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A checkpoint, as `ppl -m` takes it.", autocompletion=completion.models)
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Folder of the native form; new or empty.")],
    dtype: Annotated[str, typer.Option(help="Of the stored weights: float32 or bfloat16.")] = "float32",
    tokenizer: TokenizerName = None,
    as_published: AsPublished = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a native checkpoint in DST.")] = False,
) -> None:
    """Write the native form of a checkpoint: config.yaml and model.safetensors."""
    with sentence_for_errors():
        from lpe_eval.commands.convert import convert_checkpoint
        from lpe_eval.console import note

        for sentence in convert_checkpoint(source, destination, dtype, tokenizer, as_published, overwrite):
            note(sentence)
