"""Models as they are typed, by whichever command: `all`, and patterns that a shell leaves alone in quotes.

A pattern may be of folders in object storage, `s3://bucket/runs/step-*`: of what stands behind the last slash.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from glob import glob
from pathlib import Path

from lpe_eval.addresses import typed_address, without_protocol
from lpe_eval.errors import SpecError

ALL = "all"


def spelled_out(models: Iterable[str], released: Callable[[], Sequence[str]]) -> list[str]:
    """The models, with `all` and every pattern such as `steps/*` spelled out.

    Where a pattern matches folders, the files beside them (logs, specs) are no models.

    Args:
        models: as they were typed.
        released: gives the names that `all` stands for.

    Raises:
        SpecError: a pattern matches nothing, or nothing ships that `all` could stand for.
    """
    found: list[str] = []
    for each in models:
        if each == ALL:
            found += _all_of(released())
            continue
        if (address := typed_address(each)) is not None and set(address.partition("?")[0]) & set("*["):
            found += _at_address(address)
            continue
        each = without_protocol(each)
        if not set(each) & set("*[") or ":" in each or "=" in each or Path(each).exists():
            found.append(each)
            continue
        matches = sorted(glob(str(Path(each).expanduser())))  # noqa: PTH207, since the pattern may begin at the root
        if not matches:
            raise SpecError(f"-m {each}: no file or folder here matches this pattern")
        found += [match for match in matches if Path(match).is_dir()] or matches
    return found


def _at_address(pattern: str) -> list[str]:
    from lpe_eval.model.at_address import checkpoints_below

    above, _, last = pattern.rpartition("/")
    if set(above) & set("*["):
        raise SpecError(f"-m {pattern}: of an address only what is behind the last slash may be a pattern")
    found = checkpoints_below(above, re.compile(translate(last)))
    if not found:
        raise SpecError(f"-m {pattern}: nothing at {above} matches this pattern")
    return found


def language_models(models: Iterable[str]) -> list[str]:
    """Language models as `ppl -m` takes them; see `spelled_out`."""
    from lpe_eval.spec.released import released_names

    return spelled_out(models, released_names)


def encoders(models: Iterable[str]) -> list[str]:
    """Encoders of algorithmic problems as `che -m` takes them; see `spelled_out`."""
    from lpe_eval.spec.released import released_encoders

    return spelled_out(models, lambda: list(released_encoders()))


def default_models() -> list[str]:
    """The released checkpoints that are measured where nobody names a model.

    Raises:
        SpecError: none ships.
    """
    from lpe_eval.spec.released import measured_names

    return _all_of(measured_names())


def _all_of(names: Sequence[str]) -> list[str]:
    if not names:
        raise SpecError("no checkpoint ships with this installation; name one with -m")
    return list(names)
