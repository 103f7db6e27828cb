"""`lpe-eval train`: a small language model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lpe_eval.cli.app import MAKE, Deterministic, Device, Overwrite, Quiet, app
from lpe_eval.cli.running import run_spec
from lpe_eval.cli.sentences import sentence_for_errors
from lpe_eval.errors import SpecError


@app.command(rich_help_panel=MAKE)
def train(
    encoding: Annotated[
        str,
        typer.Option(
            help="From `list encodings`: alibi, dape(kerple_log), or a schedule of layers such as "
            "'rope[window=512]*3,none', which is repeated to the depth of the model."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name in tables. Default: the encoding.")] = None,
    train_length: Annotated[int, typer.Option(help="Tokens per training window.")] = 512,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 2000,
    batch_tokens: Annotated[int, typer.Option(help="Tokens per step.")] = 4096,
    learning_rate: Annotated[float, typer.Option(help="Peak of the schedule.")] = 2e-3,
    corpus: Annotated[
        str, typer.Option("--corpus", "--data", help="Text with a train and a valid split, such as urn?alpha=0.5.")
    ] = "python-stdlib",
    tokenizer: Annotated[
        str, typer.Option(help="bytes, char:FILE, hf:PATH, bpe:tokenizer.json; kept inside the checkpoint.")
    ] = "bytes",
    width: Annotated[int, typer.Option(help="Model width.")] = 128,
    layers: Annotated[int, typer.Option(help="Number of layers.")] = 4,
    heads: Annotated[int, typer.Option(help="Attention heads per layer.")] = 4,
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE option of the (outer) encoding, such as hidden=8. Repeat it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights and of the order of the text.")] = 1,
    device: Device = "auto",
    deterministic: Deterministic = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the checkpoint and its log.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train a small language model; the same command goes on where it was stopped."""
    with sentence_for_errors():
        from lpe_eval.spec.encoding_spec import EncodingSpec
        from lpe_eval.spec.tasks import parse_spec
        from lpe_eval.spec.train_spec import TrainSpec

        what, options = EncodingSpec.parse(encoding), dict(_key_value(each) for each in option or [])
        if what.layers and options:
            raise SpecError(
                "--option belongs to one encoding; in a schedule write it in brackets: rope[theta=1e6]*3,none"
            )
        what = what.model_copy(update={"options": {**what.options, **options}})
        fields = {
            "name": name or encoding,
            "model": {
                "encoding": what.model_dump(),
                "width": width,
                "layers": layers,
                "heads": heads,
                "mlp_width": 4 * width,
                "train_length": train_length,
            },
            "corpus": corpus,
            "tokenizer": tokenizer,
            "steps": steps,
            "batch_tokens": batch_tokens,
            "learning_rate": learning_rate,
            "warmup_steps": min(100, steps // 10),
            "validate_every": max(50, steps // 20),
            "seed": seed,
            "deterministic": deterministic,
        }
        run_spec(parse_spec(fields, TrainSpec, "train"), out, overwrite, quiet, device=device)


def _key_value(text: str) -> tuple[str, Any]:
    from lpe_eval.plain import Unreadable, yaml_of

    key, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"--option: {text!r} is not KEY=VALUE")
    try:
        return key.strip().replace("-", "_"), yaml_of(value)
    except Unreadable as error:
        raise SpecError(f"--option: the value of {key.strip()} {error}") from error
