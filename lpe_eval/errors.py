"""Every error a user can meet, as one family.

    LpeEvalError                 exit 1   something failed at run time
    |-- SpecError                exit 2   a flag, a spec or a config is wrong
    |   `-- UnknownName          exit 2   a name that no room holds, with the nearest ones
    |-- DataError                exit 2   a corpus is missing, empty, too short or unreadable
    |-- CheckpointError          exit 2   a checkpoint cannot be opened exactly as it is
    |   `-- CodeError            exit 2   code that somebody else wrote raised an error
    |-- MissingExtra             exit 2   an optional dependency is needed and absent
    |-- LengthError              (a cell) the model cannot be run at this length
    |-- OutputError              exit 1   results cannot be written or read back
    |-- DivergedError            exit 1   training produced a loss that is not finite
    |-- CausalLeakError          exit 1   a "causal" model lets the future in
    |-- RegressionFound          exit 3   a run is worse than its baseline
    |-- SomeCellsFailed          exit 4   the run ended, but some cells have no value
    `-- InconclusiveComparison   exit 5   a run may be worse than its baseline, and nothing shows that it is not

Each message says what is wrong, where, and what to do about it. `cli/` prints the message
and exits with `exit_code`; no other file exits. Interruption (Ctrl-C) ends with 130. `LaunchLost`, of a rank that
holds a model with others, interrupts as well, and ends with 1.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar

INTERRUPTED = 130


class LpeEvalError(Exception):
    """Root of the family: a failure that has one clear sentence."""

    exit_code: ClassVar[int] = 1


class SpecError(LpeEvalError):
    """A flag, a spec file or a config asks for something that cannot be."""

    exit_code = 2


class UnknownName(SpecError):
    """A name that no room holds; the message offers the nearest ones."""

    def __init__(self, noun: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
        super().__init__(f"there is no {noun} named {name!r}; {hint}")
        self.near = near


class DataError(LpeEvalError):
    """A corpus is missing, empty, too short for the longest length, or unreadable."""

    exit_code = 2


class CheckpointError(LpeEvalError):
    """A checkpoint cannot be opened exactly as it is."""

    exit_code = 2


class CodeError(CheckpointError):
    """Code that somebody else wrote (a model, its factory, its encode function) raised an error."""


class MissingExtra(LpeEvalError):
    """An optional dependency is needed and not installed."""

    exit_code = 2

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an extra: pip install 'lpe-eval[{extra}]'")


class LaunchLost(KeyboardInterrupt):
    """A rank is gone with which this one holds a model.

    It ends a run at once, as an interruption does: what is raised after it says nothing of any model, and must not
    cost a cell.
    """

    exit_code: ClassVar[int] = 1


class LengthError(LpeEvalError):
    """The model cannot be run at this length; the cell gets status `n/a` and this reason."""


class OutputError(LpeEvalError):
    """Results cannot be written, or an earlier run cannot be read back."""


class DivergedError(LpeEvalError):
    """Training produced a loss or a gradient that is not finite."""


class CausalLeakError(LpeEvalError):
    """A model that calls itself causal changes its past when the future changes."""


class RegressionFound(LpeEvalError):
    """A run is worse than its baseline."""

    exit_code = 3


class SomeCellsFailed(LpeEvalError):
    """The run ended, but some cells have no value."""

    exit_code = 4


class InconclusiveComparison(LpeEvalError):
    """A run may be worse than its baseline: there is too little text, or there are too few trainings, to tell."""

    exit_code = 5


def one_sentence(error: BaseException) -> str:
    """The first line of an error; of one that is not of this family, its type before it."""
    line = str(error).strip().partition("\n")[0].rstrip()
    if isinstance(error, LpeEvalError):
        return line
    name = type(error).__name__
    return f"{name}: {line}" if line else name
