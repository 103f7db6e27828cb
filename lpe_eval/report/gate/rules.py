"""What a comparison may be asked, and what it answers for one row."""

from typing import NamedTuple

from lpe_eval.report.gate.joining import ASPECTS
from lpe_eval.table import CHE_METRICS

VERDICTS = ("worse", "missing", "not comparable", "inconclusive", "better", "new", "same")
ALLOWABLE = (*ASPECTS, "missing")
"""What `Rules.allowed` may hold."""

GAIN = "gain_nats"
"""The metric of recall that is judged beside its effective length."""
EFFECTIVE_LENGTH, RECALLED_LENGTH = "effective_length", "recalled_length"
"""The metric of rows that are lengths in tokens."""

_LEAST = 0.01
_OF_ANSWERS = 1 / 3
_OF_GAIN = 1 / 4
_TOLERANCES, _FAR, _FAR_ANSWERS = 4, 10, 2
_NAN = float("nan")


class Rules(NamedTuple):
    """When a difference counts; `docs/gate.md` gives the reasons and the rates.

    Attributes:
        tolerance: part of the baseline's loss by which a row, or a document, may be worse.
        sigmas: standard errors of the difference beyond which it is not chance.
        allowed: of `ALLOWABLE`: what may differ, or be missing, all the same.
        detectable: largest change that a row which is called same may be blind to; None is the default of `blind_to`.
    """

    tolerance: float = 0.0025
    sigmas: float = 3.0
    allowed: frozenset[str] = frozenset()
    detectable: float | None = None

    def blind_to(self, metric: str) -> float:
        """The change that a row must be able to see: part of a loss or of a gain, share of all answers of an accuracy.

        By default four times the tolerance and at least 1 %; a third of the answers; a quarter of the gain.
        """
        if self.detectable is not None:
            return self.detectable
        if metric == GAIN:
            return _OF_GAIN
        return _OF_ANSWERS if metric in CHE_METRICS else max(_TOLERANCES * self.tolerance, _LEAST)

    def far(self, metric: str) -> float:
        """The change beyond which a row is worse however little it can see, in the same unit."""
        return self.blind_to(metric) * (_FAR_ANSWERS if metric in CHE_METRICS or metric == GAIN else _FAR)


class Verdict(NamedTuple):
    """What was found of one row; numbers are NaN where there are none.

    Attributes:
        verdict: one of `VERDICTS`.
        baseline: nats per token (per byte, where tokenizers differ) on the text in common.
        value: of the run, likewise. For an accuracy both are the share of right answer tokens, for a gain nats, for an
            effective length tokens.
        change: value over baseline, less one; above 0 is worse for a loss, below 0 for an accuracy. For a gain the
            difference is a part of what the baseline gains at its shortest length.
        stderr: standard error of `change`.
        allowed: change up to which a row is not worse.
        detectable: change that would be caught 95 times in 100.
        needed: tokens, strings, prompts or trainings with which an inconclusive row would be decided, about; else 0.
        common: share of the baseline's scored tokens (of its answer tokens that count) that is compared.
        changed: documents (strings, prompts) that both runs name and whose content differs; left out.
        vanished: documents of the baseline that the run did not score; left out.
        added: documents of the run that the baseline did not score; left out.
        units: blocks, documents, strings or trainings behind `stderr`.
        method: how `stderr` was made.
        compared_with: the baselines' names.
        document: the document that is worse beyond what the others explain, or "".
        document_change: how much worse, in parts of its own loss.
        document_allowed: how much worse it might be, likewise.
        reason: why, where the numbers do not say it.
        worse_is: 1 where more is worse, -1 where less is.
    """

    model: str
    task: str
    protocol: str
    length: int
    stride: int | None
    metric: str
    verdict: str
    baseline: float = _NAN
    value: float = _NAN
    change: float = _NAN
    stderr: float = _NAN
    allowed: float = _NAN
    detectable: float = _NAN
    needed: int = 0
    common: float = _NAN
    changed: int = 0
    vanished: int = 0
    added: int = 0
    units: int = 0
    method: str = "none"
    compared_with: str = ""
    document: str = ""
    document_change: float = _NAN
    document_allowed: float = _NAN
    reason: str = ""
    worse_is: float = 1.0
