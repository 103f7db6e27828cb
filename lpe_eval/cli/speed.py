"""`lpe-eval speed`: what an encoding costs."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import MEASURE, Attention, Device, DryRun, Dtype, Overwrite, Quiet, app
from lpe_eval.cli.running import foresee, run_spec
from lpe_eval.cli.sentences import sentence_for_errors

_COSTLY = ["sinusoidal", "rope", "alibi", "t5", "kerple_log", "fire", "dape(kerple_log)"]
"""Encodings whose papers say something of their cost."""


@app.command(rich_help_panel=MEASURE)
def speed(
    encoding: Annotated[
        list[str] | None,
        typer.Option(
            help="From `list encodings`, several with commas, or repeat it. Default: "
            "sinusoidal,rope,alibi,t5,kerple_log,fire,dape(kerple_log).",
            autocompletion=completion.encodings,
        ),
    ] = None,
    lengths: Annotated[str, typer.Option(help="Tokens per window: 512,8192 or 1024:16384:x2.")] = "512,1024,2048",
    mode: Annotated[
        str,
        typer.Option(
            help="forward: scoring without gradients; train: a loss and its gradient.", autocompletion=completion.modes
        ),
    ] = "forward,train",
    width: Annotated[int, typer.Option(help="Model width.")] = 128,
    layers: Annotated[int, typer.Option(help="Number of layers.")] = 4,
    heads: Annotated[int, typer.Option(help="Attention heads per layer.")] = 4,
    batch_tokens: Annotated[int, typer.Option(help="Tokens per pass; a longer window goes alone.")] = 2048,
    rounds: Annotated[int, typer.Option(help="Rounds that the medians are over, at least 5.")] = 5,
    device: Device = "auto",
    dtype: Dtype = "auto",
    attention: Attention = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the results, used exactly. Default: results/runs/speed-<id>."),
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Measure tokens per second and memory of encodings, with plain causal attention as the unit.

    The encodings take turns in one process; the unit is the same model without an encoding. Memory is
    that of one pass beyond holding the model, each number from a process of its own.
    """
    with sentence_for_errors():
        from lpe_eval.spec.ppl_spec import parse_lengths
        from lpe_eval.spec.speed_spec import SpeedSpec, parse_encodings, parse_modes
        from lpe_eval.spec.tasks import parse_spec

        fields = {
            "encodings": parse_encodings(_COSTLY if encoding is None else encoding),
            "lengths": parse_lengths(lengths),
            "modes": parse_modes(mode),
            "width": width,
            "layers": layers,
            "heads": heads,
            "batch_tokens": batch_tokens,
            "rounds": rounds,
            "device": device,
            "dtype": dtype,
            "attention": attention,
        }
        spec = parse_spec(fields, SpeedSpec, "speed")
        if dry_run:
            foresee(spec, quiet)
        else:
            run_spec(spec, out, overwrite, quiet)
