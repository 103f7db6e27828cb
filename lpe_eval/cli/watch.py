"""`lpe-eval watch`: checkpoints of a training, measured as they appear."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli.app import MEASURE, Quiet, app
from lpe_eval.cli.sentences import sentence_for_errors
from lpe_eval.errors import SomeCellsFailed, SpecError

_OWN = ("-m", "--model", "--out", "-o", "--dry-run", "--shard", "--engine", "--baseline")
"""Flags of `ppl` that watching gives itself, or that do not go with it."""


@app.command(rich_help_panel=MEASURE, context_settings={"ignore_unknown_options": True})
def watch(
    directory: Annotated[Path, typer.Argument(help="The folder in which checkpoints appear, or its address.")],
    flags: Annotated[
        list[str] | None, typer.Argument(metavar="FLAGS ...", help="Flags of ppl: --lengths 512,8192 --data books.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the results: a run for each checkpoint, and steps.csv.")
    ] = Path("results/runs/steps"),
    every: Annotated[float, typer.Option(min=0.01, help="Seconds between two looks.")] = 30.0,
    once: Annotated[bool, typer.Option("--once", help="Measure what is there, and end.")] = False,
    last_step: Annotated[int | None, typer.Option(help="End after the checkpoint of this step.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measure the checkpoints of a training as they appear, each once.

    A checkpoint is measured when its files have not changed between two looks. Its step is the last number in its name.
    steps.csv has the rows of all, and a figure shows loss against step, a line a length. Ctrl-C ends it; the same
    command goes on.
    """
    with sentence_for_errors():
        import typer.main

        from lpe_eval import console
        from lpe_eval.addresses import address_of, as_path
        from lpe_eval.commands import watch as watching
        from lpe_eval.storage import staged, typed_as

        if wrong := [each for each in flags or () if each.partition("=")[0] in _OWN]:
            raise SpecError(f"watch: {wrong[0]} is not given to it; it takes lengths, text, protocols and the like")
        address, folder = address_of(directory), as_path(directory)
        if address is None and not folder.is_dir():
            raise SpecError(f"there is no folder {directory}; name the one in which checkpoints appear")

        def measure(name: str, checkpoint: str, folder: Path) -> int:
            typed = [
                "ppl",
                "-m",
                f"{name}={checkpoint}",
                "--out",
                str(folder),
                *(["-q"] if quiet else []),
                *(flags or ()),
            ]
            ended = typer.main.get_command(app).main(typed, prog_name="lpe-eval", standalone_mode=False)
            return ended if isinstance(ended, int) else 0

        tell = (lambda sentence: None) if quiet else console.note
        with staged(out) as stored:
            here = stored or out
            failed = watching.watch(address or folder, here, measure, tell, every=every, once=once, last=last_step)
        names = [typed_as(out, here, here / name) for name in (watching.TABLE, "figures/steps.png")]
        tell(f"rows: {names[0]}   figure: {names[1]}")
        if failed:
            raise SomeCellsFailed(f"{failed} checkpoints could not be measured in full; their runs say why")
