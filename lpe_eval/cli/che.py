"""`lpe-eval che`: does a model still compute at lengths it was never trained on?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import (
    MEASURE,
    Baseline,
    Device,
    DryRun,
    EngineName,
    LogTo,
    Overwrite,
    Quiet,
    ShardOf,
    WorkerCpus,
    WorkerGpus,
    Workers,
    app,
)
from lpe_eval.cli.models import encoders
from lpe_eval.cli.running import asked_engine, foresee, run_spec
from lpe_eval.cli.sentences import sentence_for_errors
from lpe_eval.errors import SpecError

_BRIEF_LENGTHS, _BRIEF_SAMPLES = (20, 30, 45, 65, 100), 128
"""What the released encoders are asked unless told otherwise."""


@app.command(rich_help_panel=MEASURE)
def che(
    train: Annotated[bool, typer.Option("--train", help="Train encoders with --encoding, then score them.")] = False,
    encoding: Annotated[
        list[str] | None,
        typer.Option(
            help="What to train, from `list encodings`: rope,dape(kerple_log). Commas, or repeat it.",
            autocompletion=completion.encodings,
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="How to train and test: deepmind, dape, quick, smoke, or a YAML file.",
            autocompletion=completion.trainings,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Score a folder of encoders, all those that a --train left in its folder, or a released one by its "
            "name. Repeat it for several; all: every released one. Default: the released ones.",
            autocompletion=completion.encoders,
        ),
    ] = None,
    tasks: Annotated[
        str, typer.Option(help="Problems with commas, or all.", autocompletion=completion.problems)
    ] = "all",
    lengths: Annotated[
        str | None, typer.Option(help="Input lengths to score: 40,41,100 or 50:500:+50. Default: the protocol's.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Strings of each length. Default: the protocol's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the test strings. Default: the protocol's.")] = None,
    deepmind_compat: Annotated[
        bool,
        typer.Option(
            "--deepmind-compat",
            help="Do what the released code does: dropout stays on in scoring; one more step; accuracy is a mean over "
            "sub-batches; the first length beyond training is left out.",
        ),
    ] = False,
    device: Device = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the results, used exactly. Default: results/runs/che-<id>."),
    ] = None,
    overwrite: Overwrite = False,
    shard: ShardOf = None,
    engine: EngineName = None,
    workers: Workers = None,
    gpus_per_worker: WorkerGpus = 0.0,
    cpus_per_worker: WorkerCpus = 1.0,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    log_to: LogTo = None,
    baseline: Baseline = None,
) -> None:
    """Train and score encoders on fifteen algorithmic problems, at lengths beyond those of training.

    A cell is an encoding on a problem; all its runs (seeds x learning rates) are trained as one. What is finished is
    kept, and the same command goes on from there; more encodings and problems may be added to a folder later. Quirks of
    the released code that are options of encodings, and not of --deepmind-compat: sinusoidal's order: descending,
    alibi's two_sided: che, randomized's one_sided: true.
    """
    with sentence_for_errors():
        from lpe_eval.spec.che_spec import CheSpec, parse_encoding_list, read_protocol
        from lpe_eval.spec.ppl_spec import parse_lengths
        from lpe_eval.spec.tasks import parse_spec

        if train != bool(encoding):
            raise SpecError("--train and --encoding go together: --train --encoding 'rope,dape(kerple_log)'")
        if train and model:
            raise SpecError("--train makes models and -m scores finished ones; give one of the two")
        if protocol is not None and not train:
            raise SpecError("--protocol belongs to --train; a checkpoint brings its own")
        fields: dict[str, Any] = {
            "tasks": "all" if tasks.strip() == "all" else [each.strip() for each in tasks.split(",") if each.strip()],
            "lengths": None if lengths is None else parse_lengths(lengths),
            "samples": samples,
            "seed": seed,
            "deepmind_compat": deepmind_compat,
            "device": device,
        }
        if train:
            fields["encodings"] = [each.model_dump() for each in parse_encoding_list(encoding or [])]
            fields["protocol"] = read_protocol(protocol or "quick").model_dump(mode="json")
        else:
            fields |= _checkpoints(model, fields)
        spec = parse_spec(fields, CheSpec, "che")
        if dry_run:
            foresee(spec, quiet)
        else:
            run_spec(
                spec,
                out,
                overwrite,
                quiet,
                baseline or (),
                log_to=log_to or (),
                shard=shard,
                engine=asked_engine(engine, workers, gpus_per_worker, cpus_per_worker),
            )


def _checkpoints(given: list[str] | None, fields: dict[str, Any]) -> dict[str, Any]:
    """The models to score; of the released ones, unless the user says otherwise, few lengths and strings."""
    from lpe_eval.spec.released import released_encoders

    if given:
        return {"models": encoders(given)}
    released = released_encoders()
    if not released:
        raise SpecError(
            "no encoder ships with this installation; name a folder with -m, or train one: "
            "lpe-eval che --train --encoding rope"
        )
    return {
        "models": list(released),
        "lengths": fields["lengths"] or list(_BRIEF_LENGTHS),
        "samples": fields["samples"] or _BRIEF_SAMPLES,
    }
