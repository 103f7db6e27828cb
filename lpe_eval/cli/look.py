"""`lpe-eval plot`, `inspect` and `list`: looking at runs, checkpoints and names."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli.app import (
    LOOK,
    AsPublished,
    Revision,
    RopeScaling,
    RopeTheta,
    TokenizerName,
    TrustRemoteCode,
    app,
    told,
)


@app.command(rich_help_panel=LOOK)
def plot(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; several are drawn together.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the figures. Default: figures/ of the first run.")
    ] = None,
) -> None:
    """Draw the figures of one or several runs again: perplexity, algorithmic problems, or a speed measurement."""
    with told():
        from lpe_eval.report.figures.together import draw_folders

        for path in draw_folders(runs, out or runs[0] / "figures"):
            typer.echo(path)


@app.command(rich_help_panel=LOOK)
def inspect(
    checkpoint: Annotated[str, typer.Argument(help="As `ppl -m` takes it.")],
    task: Annotated[str, typer.Option(help="The task whose windows are counted.")] = "python-stdlib",
    tokenizer: TokenizerName = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    rope_scaling: RopeScaling = None,
    rope_theta: RopeTheta = None,
    as_published: AsPublished = False,
) -> None:
    """Say what a checkpoint is: format, shape, encoding and its parameters, tokenizer, and what `ppl` would measure."""
    with told():
        from lpe_eval.commands.inspect import inspect_checkpoint
        from lpe_eval.console import listing, note
        from lpe_eval.spec.ppl_spec import PerplexitySpec
        from lpe_eval.spec.tasks import parse_spec, read_task

        changes = {
            "models": [checkpoint],
            "tokenizer": tokenizer,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "rope_scaling": rope_scaling,
            "rope_theta": rope_theta,
            "as_published": as_published,
        }
        spec = parse_spec(PerplexitySpec.of_task(read_task(task), changes), PerplexitySpec, "inspect")
        found = inspect_checkpoint(checkpoint, spec)
        for title, columns, rows in found.tables:
            listing(title, columns, rows)
        for sentence in found.notes:
            note(sentence)


@app.command("list", rich_help_panel=LOOK)
def list_(
    what: Annotated[str, typer.Argument(help="encodings, tasks, checkpoints, corpora, formats or attentions.")],
) -> None:
    """List what can be named: encodings, tasks, released checkpoints, corpora, checkpoint formats, attention paths."""
    with told():
        from lpe_eval.commands.list import catalogue
        from lpe_eval.console import listing

        columns, rows = catalogue(what)
        listing(what, columns, rows)
