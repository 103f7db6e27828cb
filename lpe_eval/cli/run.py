"""`lpe-eval run`: what a spec file says."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import (
    MEASURE,
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
from lpe_eval.cli.models import encoders, language_models
from lpe_eval.cli.running import asked_engine, foresee, run_spec
from lpe_eval.cli.sentences import sentence_for_errors
from lpe_eval.errors import SpecError


@app.command(rich_help_panel=MEASURE)
def run(
    spec: Annotated[Path, typer.Argument(help="A spec.yaml: of an earlier run, or your own.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results, used exactly.")] = None,
    device: Annotated[
        str,
        typer.Option(
            help="Of a training or a study; other specs name theirs. auto takes CUDA where there is one.",
            autocompletion=completion.devices,
        ),
    ] = "auto",
    jobs: Annotated[int | None, typer.Option(min=1, help="Of a study: trainings at once.")] = None,
    overwrite: Overwrite = False,
    shard: ShardOf = None,
    engine: EngineName = None,
    workers: Workers = None,
    gpus_per_worker: WorkerGpus = 0.0,
    cpus_per_worker: WorkerCpus = 1.0,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    log_to: LogTo = None,
) -> None:
    """Run what a spec file says: perplexity, a training, a study of many, speed, algorithmic problems."""
    with sentence_for_errors():
        from lpe_eval.registry import KINDS
        from lpe_eval.spec.tasks import load_yaml, parse_spec

        raw = load_yaml(spec)
        name = raw.get("kind")
        if not isinstance(name, str) or name not in KINDS.names():
            raise SpecError(f"{spec}: kind must be one of {', '.join(KINDS.names())}, not {name!r}")
        if isinstance(raw.get("models"), list) and all(isinstance(each, str) for each in raw["models"]):
            raw["models"] = (encoders if name == "che" else language_models)(raw["models"])
        parsed = parse_spec(raw, KINDS.load(name).spec, str(spec))
        if dry_run:
            foresee(parsed, quiet, device=device, jobs=jobs)
        else:
            run_spec(
                parsed,
                out,
                overwrite,
                quiet,
                device=device,
                jobs=jobs,
                log_to=log_to or (),
                shard=shard,
                engine=asked_engine(engine, workers, gpus_per_worker, cpus_per_worker),
            )
