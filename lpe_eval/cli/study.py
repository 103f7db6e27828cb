"""What `lpe-eval run` does with a study; a study has no command of its own, because only a file can say one."""

from pathlib import Path
from typing import TYPE_CHECKING

from lpe_eval.errors import SomeCellsFailed

if TYPE_CHECKING:
    from lpe_eval.spec.study_spec import StudySpec


def studied(spec: "StudySpec", out: Path | None, device: str, jobs: int | None, quiet: bool) -> None:
    """Runs a study and says what was trained."""
    from functools import partial

    from lpe_eval import console
    from lpe_eval.commands.study import study

    tell = (lambda sentence: None) if quiet else console.note
    outcome = study(spec, out, device, jobs, partial(console.progress, quiet=quiet), tell)
    tell(f"{len(outcome.trained)} checkpoints in {outcome.folder}; measure one: lpe-eval ppl -m {outcome.folder}/NAME")
    if outcome.failed:
        told = "; ".join(f"{name}: {words}" for name, words in outcome.failed.items())
        raise SomeCellsFailed(f"{len(outcome.failed)} trainings of the study failed ({told}); the others are kept")
