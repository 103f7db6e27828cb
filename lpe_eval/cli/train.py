"""`lpe-eval train`: a small language model."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import MAKE, Deterministic, Device, DryRun, LogTo, Overwrite, Quiet, app
from lpe_eval.cli.running import foresee, run_spec
from lpe_eval.cli.sentences import sentence_for_errors
from lpe_eval.errors import SpecError

if TYPE_CHECKING:
    from pydantic import BaseModel


@app.command(rich_help_panel=MAKE)
def train(
    encoding: Annotated[
        str,
        typer.Option(
            help="From `list encodings`: alibi, dape(kerple_log), or a schedule of layers such as "
            "'rope[window=512]*3,none', which is repeated to the depth of the model.",
            autocompletion=completion.encodings,
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name in tables. Default: the encoding.")] = None,
    train_length: Annotated[int, typer.Option(help="Tokens per training window.")] = 512,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 2000,
    batch_tokens: Annotated[int, typer.Option(help="Tokens per step.")] = 4096,
    learning_rate: Annotated[float, typer.Option(help="Peak of the schedule.")] = 2e-3,
    warmup_steps: Annotated[
        int | None, typer.Option(help="Steps in which the rate rises. Default: a tenth of the steps, at most 100.")
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            "--corpus",
            help="Text with a train and a valid split, as `ppl --data` takes it.",
            autocompletion=completion.corpora,
        ),
    ] = "python-stdlib",
    tokenizer: Annotated[
        str,
        typer.Option(
            help="bytes, char:FILE, hf:PATH, bpe:tokenizer.json; kept inside the checkpoint.",
            autocompletion=completion.tokenizers,
        ),
    ] = "bytes",
    width: Annotated[int, typer.Option(help="Model width.")] = 128,
    layers: Annotated[int, typer.Option(help="Number of layers.")] = 4,
    heads: Annotated[int, typer.Option(help="Attention heads per layer.")] = 4,
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE option of the (outer) encoding, such as hidden=8. Repeat it.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and of the order of the text. Default: 1.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Several seeds, 1,2,3: a training of each, in folders NAME, NAME-seed2, ... of one study."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Of --seeds: trainings at once.")] = None,
    device: Device = "auto",
    deterministic: Deterministic = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the checkpoint and its log.")] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    log_to: LogTo = None,
) -> None:
    """Train a small language model; the same command goes on where it was stopped."""
    with sentence_for_errors():
        from lpe_eval.spec.encoding_spec import EncodingSpec
        from lpe_eval.spec.study_spec import StudySpec
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
            "corpus": data,
            "tokenizer": tokenizer,
            "steps": steps,
            "batch_tokens": batch_tokens,
            "learning_rate": learning_rate,
            "warmup_steps": min(100, steps // 10) if warmup_steps is None else warmup_steps,
            "validate_every": max(50, steps // 20),
            "seed": 1 if seed is None else seed,
            "deterministic": deterministic,
        }
        spec: BaseModel = parse_spec(fields, TrainSpec, "train")
        if seeds is not None:
            if seed is not None:
                raise SpecError("--seed is one seed and --seeds are several; give one of the two")
            if overwrite:
                raise SpecError("--seeds makes a study, which keeps what is trained; give another --out")
            spec = parse_spec(_study(fields, _seeds(seeds)), StudySpec, "train --seeds")
        if dry_run:
            foresee(spec, quiet, device=device, jobs=jobs)
        else:
            run_spec(spec, out, overwrite, quiet, device=device, jobs=jobs, log_to=log_to or ())


def _study(fields: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    """The trainings of one recipe with several seeds, as a study."""
    # Names of a study are folders.
    name, model = re.sub(r"[^\w.-]+", "-", fields["name"]).strip("-"), dict(fields["model"])
    encoding = model.pop("encoding")
    recipe = {key: value for key, value in fields.items() if key not in ("name", "seed", "model")}
    return {
        "name": name,
        "recipe": {**recipe, "model": model},
        "encodings": {name: encoding},
        "seed": seeds[0],
        "further_seeds": {name: seeds[1:]} if seeds[1:] else {},
    }


def _seeds(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise SpecError(f"--seeds: {text!r} are no whole numbers; write 1,2,3") from None
    if not found:
        raise SpecError("--seeds names none; write 1,2,3")
    return found


def _key_value(text: str) -> tuple[str, Any]:
    from lpe_eval.plain import Unreadable, yaml_of

    key, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"--option: {text!r} is not KEY=VALUE")
    try:
        return key.strip().replace("-", "_"), yaml_of(value)
    except Unreadable as error:
        raise SpecError(f"--option: the value of {key.strip()} {error}") from error
