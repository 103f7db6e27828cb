"""`lpe-eval run`: what a spec file says."""

from pathlib import Path
from typing import Annotated

import typer

from lpe_eval.cli.app import MEASURE, Overwrite, Quiet, app, told
from lpe_eval.cli.che import evaluated
from lpe_eval.cli.ppl import perplexity
from lpe_eval.cli.speed import timed
from lpe_eval.cli.study import studied
from lpe_eval.cli.train import trained
from lpe_eval.errors import SpecError


@app.command(rich_help_panel=MEASURE)
def run(
    spec: Annotated[Path, typer.Argument(help="A spec.yaml: of an earlier run, or your own.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results, used exactly.")] = None,
    device: Annotated[
        str, typer.Option(help="Of a training or a study; other specs name theirs. auto takes CUDA where there is one.")
    ] = "auto",
    jobs: Annotated[int | None, typer.Option(min=1, help="Of a study: trainings at once.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Run what a spec file says: perplexity, a training, a study of many, speed, or algorithmic problems."""
    with told():
        from lpe_eval.spec.che_spec import CheSpec
        from lpe_eval.spec.ppl_spec import PerplexitySpec
        from lpe_eval.spec.speed_spec import SpeedSpec
        from lpe_eval.spec.study_spec import StudySpec
        from lpe_eval.spec.tasks import load_yaml, parse_spec
        from lpe_eval.spec.train_spec import TrainSpec

        raw = load_yaml(spec)
        match raw.get("kind"):
            case "ppl":
                perplexity(parse_spec(raw, PerplexitySpec, str(spec)), out, overwrite, quiet, dry_run=False)
            case "train":
                trained(parse_spec(raw, TrainSpec, str(spec)), out, device, overwrite, quiet)
            case "speed":
                timed(parse_spec(raw, SpeedSpec, str(spec)), out, overwrite, quiet)
            case "che":
                evaluated(parse_spec(raw, CheSpec, str(spec)), out, overwrite, quiet)
            case "study":
                studied(parse_spec(raw, StudySpec, str(spec)), out, device, jobs, quiet)
            case other:
                raise SpecError(f"{spec}: kind must be ppl, train, study, speed or che, not {other!r}")
