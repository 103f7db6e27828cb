"""Trainings on the algorithmic problems that take a second."""

from contextlib import contextmanager
from pathlib import Path

from lpe_eval.commands.che import run_spec
from lpe_eval.run import Outcome, Settings
from lpe_eval.spec.che_spec import CheProtocol, CheSpec, read_protocol


@contextmanager
def no_bar(total: int, unit: str):
    yield lambda done, description=None: None


def tiny(**changes) -> CheProtocol:
    small = {"steps": 6, "check_every": 2, "batch": 4, "samples": 8, "check_samples": 8, "width": 16, "heads": 2}
    return CheProtocol.model_validate({**read_protocol("smoke").model_dump(), **small, **changes})


def trained(out: Path, encodings=("rope",), tasks=("even_pairs",), protocol=None, **changes) -> Outcome:
    fields = {"encodings": list(encodings), "tasks": list(tasks), "protocol": (protocol or tiny()).model_dump()}
    return run_spec(CheSpec.model_validate({**fields, **changes}), Settings(out, False, no_bar, lambda sentence: None))
