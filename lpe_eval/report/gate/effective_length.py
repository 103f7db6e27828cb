"""Effective lengths as rows that a gate judges: is the context that a model makes use of shorter than it was?

A row is a model under `anchored` at several lengths. Both sides are judged on the lengths that both measured and on the
text that both scored; the lengths themselves are those of `numbers/effective_length.py`.

A length is a step of a scale, and two sides may stand on two sides of a step by chance. So what decides is not the
step but the gain behind it: between the run's length and the baseline's, how many nats does the baseline gain that the
run does not? With d that shortfall at some length there, s its paired standard error, and u units,

    worse          d > max(tolerance, k s)             k as in the gate, Student's for u - 1
    same           d + 1.645 s <= tolerance            at every length there: it is no shorter by more than is allowed
    inconclusive   otherwise

The tolerance is that of the gate, a part of the loss, and at least `LEAST` nats.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lpe_eval.report.folders.derived import sweeps_of
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.gate.joining import Judged, judged_row
from lpe_eval.report.gate.rules import EFFECTIVE_LENGTH, Rules, Verdict
from lpe_eval.report.gate.weighing import CAUGHT, FEW_TRAININGS
from lpe_eval.report.gate.worst_document import ROUNDING
from lpe_eval.report.numbers.by_length import is_anchored
from lpe_eval.report.numbers.effective_length import LEAST, bounds_of, rule
from lpe_eval.report.numbers.resampling import Together, together
from lpe_eval.report.numbers.student import student
from lpe_eval.table import BlockSum


class _Shortfall(NamedTuple):
    """What a run gains less than a baseline, from its own effective length to a longer one; in nats.

    Attributes:
        length: the longer one.
        less: how much less.
        stderr: standard error of that.
        allowed: what the tolerance comes to.
    """

    length: int
    less: float
    stderr: float
    allowed: float


def length_rows(run: Run, source: str) -> list[Judged]:
    """A row for each model that was measured under `anchored` at several lengths.

    Raises:
        OutputError: a file of the run holds what no run would write.
    """
    rows = []
    for sweep in sweeps_of(run):
        if is_anchored(sweep.protocol) and len(sweep.rows) > 1:
            first = sweep.rows[min(sweep.rows)]
            known = min(sweep.rows) in sweep.blocks
            why = "" if known else f"the shortest length has no value: {first['note']}"
            row = {**sweep.longest, "metric": EFFECTIVE_LENGTH, "value": None, "status": "ok" if known else "n/a"}
            by_length = {length: sweep.blocks.get(length, ()) for length in sweep.rows}
            rows.append(judged_row(run, {**row, "note": why}, (), source)._replace(by_length=by_length))
    return rows


def common_lengths(new: Judged, olds: Sequence[Judged]) -> list[int]:
    """The lengths that all of them measured, with a value or without."""
    return sorted(set(new.by_length).intersection(*(old.by_length for old in olds)))


def judged_length(plain: Verdict, new: Judged, olds: Sequence[Judged], rules: Rules) -> Verdict:
    """The verdict on a run beside one baseline, or beside several trainings.

    Args:
        plain: which row it is.
        new: of the run.
        olds: of the baselines; each has a value at the shortest of the common lengths, and so has the run.
        rules: when a difference counts.
    """
    lengths = common_lengths(new, olds)
    sides = [_valued(each, lengths) for each in (new, *olds)]
    shared = set.intersection(*(_blocks(side[lengths[0]]) for side in sides))
    columns = [[block for block in blocks if _told(block) in shared] for side in sides for blocks in side.values()]
    found = together(columns)
    if found is None:
        alike = len(olds) == 1 and _identical(columns[: len(sides[0])], columns[len(sides[0]) :])
        why = "the text in common is a single block, so chance cannot be told"
        return plain if alike else plain._replace(verdict="inconclusive", reason=why)
    parts, at = [], 0
    for side in sides:
        parts.append(_part(found, slice(at, at + len(side))))
        at += len(side)
    own, *theirs = (_length(list(side), part) for side, part in zip(sides, parts, strict=True))
    before = min(theirs)
    noun = f"trainings-{len(olds)}" if len(olds) > 1 else f"paired-bootstrap-{found.noun}-{len(found.replicates)}"
    units = len(olds) if len(olds) > 1 else found.worth
    verdict = plain._replace(
        baseline=float(before), value=float(own), change=own / before - 1, units=units, method=noun
    )
    if len(olds) == 1 and _identical(columns[: len(sides[0])], columns[len(sides[0]) :]):
        return verdict._replace(value=float(before), change=0.0)
    if own == before:
        return verdict
    if own > before:
        return _longer(verdict, _shortfalls(sides, parts, before, own, rules), rules, found)
    if max(sides[0]) < before and own == max(sides[0]):
        missing = next(length for length in lengths if length not in sides[0])
        return verdict._replace(verdict="worse", reason=f"{_said(own, before)}: it has no value at {missing}")
    return _shorter(verdict, _shortfalls(sides, parts, own, before, rules), rules, found)


def _shorter(verdict: Verdict, found: Sequence[_Shortfall], rules: Rules, text: Together) -> Verdict:
    said = _said(int(verdict.value), int(verdict.baseline))
    trainings = verdict.units if verdict.method.startswith("trainings") else 0
    sigmas = student(rules.sigmas, verdict.units - 1)
    worst = max(found, key=lambda each: each.less)
    less = f"{worst.less:.4f} ± {worst.stderr:.4f} nats less"
    gained = f"from {int(verdict.value)} to {worst.length} tokens it gains {less}"
    if any(each.less > max(each.allowed, sigmas * each.stderr) for each in found):
        return verdict._replace(verdict="worse", reason=f"{said}: {gained}")
    within = rules.sigmas if trainings >= FEW_TRAININGS else 0.0
    beyond = 0.0 if trainings else CAUGHT
    if all(each.less + beyond * each.stderr <= max(each.allowed, within * each.stderr) for each in found):
        return verdict._replace(reason=f"{said}, which is within what is allowed: {gained}")
    if trainings:
        needed = max(FEW_TRAININGS, 2 * trainings)
    else:
        wanted = max(((sigmas + CAUGHT) * each.stderr / each.allowed) ** 2 for each in found)
        needed = math.ceil(text.tokens * max(wanted, 1.1))
    return verdict._replace(verdict="inconclusive", reason=f"{said}, perhaps by chance: {gained}", needed=needed)


def _longer(verdict: Verdict, found: Sequence[_Shortfall], rules: Rules, text: Together) -> Verdict:
    """A run that makes use of more is better where that is beyond chance."""
    sigmas = student(rules.sigmas, verdict.units - 1)
    sure = any(-each.less > max(each.allowed, sigmas * each.stderr) for each in found)
    return verdict._replace(verdict="better" if sure else "same")


def _shortfalls(
    sides: Sequence[Mapping[int, Sequence[BlockSum]]],
    parts: Sequence[Together],
    start: int,
    end: int,
    rules: Rules,
) -> list[_Shortfall]:
    """At each length above `start`, up to `end`, that all sides have."""
    places = [list(side) for side in sides]
    found = []
    for length in (each for each in places[0] if start < each <= end and all(each in side for side in places)):
        pairs = [(part, at.index(start), at.index(length)) for at, part in zip(places, parts, strict=True)]
        gains = [float(part.losses[first] - part.losses[last]) for part, first, last in pairs]
        drawn = [part.replicates[:, first] - part.replicates[:, last] for part, first, last in pairs]
        level = float(np.mean([part.losses[last] for part, _, last in pairs[1:]]))
        stderr = _paired(drawn[1] - drawn[0], parts[0].drawn) if len(pairs) == 2 else _of_trainings(gains[1:])
        less = float(np.mean(gains[1:])) - gains[0]
        found.append(_Shortfall(length, less, stderr, max(rules.tolerance * level, LEAST)))
    return found


def _paired(differences: Float[np.ndarray, " r"], drawn: int) -> float:
    return float(differences.std(ddof=1)) * math.sqrt(drawn / (drawn - 1))


def _of_trainings(gains: Sequence[float]) -> float:
    return float(np.std(gains, ddof=1)) * math.sqrt(1 + 1 / len(gains))


def _length(lengths: Sequence[int], part: Together) -> int:
    return lengths[rule(part.losses, bounds_of(part))[0]]


def _part(found: Together, columns: slice) -> Together:
    return found._replace(losses=found.losses[columns], replicates=found.replicates[:, columns])


def _valued(judged: Judged, lengths: Sequence[int]) -> dict[int, Sequence[BlockSum]]:
    """The sums of the lengths up to the first that has none."""
    found: dict[int, Sequence[BlockSum]] = {}
    for length in lengths:
        if not judged.by_length[length]:
            break
        found[length] = judged.by_length[length]
    return found


def _blocks(blocks: Sequence[BlockSum]) -> set[tuple[str, int, int]]:
    return {_told(block) for block in blocks}


def _told(block: BlockSum) -> tuple[str, int, int]:
    """What makes two blocks the same text: `shared_text.py` pairs them so, too."""
    return block.digest, block.block, block.n_tokens


def _identical(new: Sequence[Sequence[BlockSum]], old: Sequence[Sequence[BlockSum]]) -> bool:
    """Whether no block at any length differs by more than rounding does."""
    if len(new) != len(old):
        return False
    for here, there in zip(new, old, strict=True):
        held = {_told(block): block.nll_nats for block in there}
        level = math.fsum(held.values()) / max(sum(block.n_tokens for block in there), 1)
        for block in here:
            other = held.get(_told(block), math.nan)
            if not abs(block.nll_nats - other) <= ROUNDING * max(other, level * block.n_tokens):
                return False
    return True


def _said(own: int, before: int) -> str:
    return f"the effective length is {own}, in the baseline {before}"
