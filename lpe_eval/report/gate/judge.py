"""Is a run worse than its baseline? One verdict for each row, from two runs that were read back.

A row is *worse* when its loss, on the text that both scored, exceeds the baseline's (or its accuracy, on the strings
that both answered, falls short of the baseline's) by more than

    allowed = max(tolerance * baseline, k * stderr)

and *better* when it falls short by as much; between the two it is the *same*. The difference is paired: both sides are
resampled together, document by document (`statistics.paired_difference`), so what makes a text easy or hard cancels.
`k` is widened by Student's correction for the number of units (`student.py`).

How the defaults follow. Let s be the standard error of the difference and d its true size, both relative to the
baseline's loss; the difference found is about normal around d.

    * No change, d = 0: a row is called worse with a probability of 1 - Φ(k), 0.13 % for k = 3; a run of n rows at most
      n times as often. With identical weights only rounding differs, and that is never more than the tolerance.
    * A change of d = 0.5 % goes unseen with the probability Φ((allowed - d) / s). That is at most 5 % where
      d >= allowed + 1.645 s. With a tolerance of d / 2 = 0.25 % that asks for s <= d / 3.29 = 0.152 %, and the other
      branch for s <= d / (3.23 + 1.645) = 0.103 % (3.23 is k = 3 for 36 units).
    * At the default budget of `lpe-eval ppl` a row has 36 blocks of 1024 targets. Noise of 2 % of its spread in the
      embedding of `alibi` and `rope` as first released (four draws each) cost -0.3 to 0.7 % and changed the loss of
      single blocks with a standard deviation of 0.24 to 0.54 %, so s is 0.04 to 0.09 %, and 0.5 % is caught. (One draw
      cost rope 2.5 % at 8192, with 1.2 %.) A tolerance of d itself would catch d half of the time.
    * Simulated with 0.54 % (tests/test_gate_simulation.py, with more seeds): 0.15 % of 6000 rows without a change were
      called worse, 0.05 % with heavy tails, 0.20 % with tails to the left as long as any that was measured; of 0.5 %
      more nats 98 %, 97 % and 96 % were caught.

`detectable` is what a row can see: allowed + 1.645 s, the change that is caught 95 times in 100. Identical weights
have s = 0, which says nothing of a model that changed, so s is here at least what the noisiest change above would have
on as much text: 0.54 % over the root of the number of blocks of 1024 targets.

Several trainings of one recipe in the baseline (see `joining.py`) say how much a training varies. Then a row is
compared with their mean, and stderr is their standard deviation times sqrt(1 + 1/n): the spread of one more training
around the mean of n. With n - 1 degrees of freedom, k = 3 becomes 19 for three trainings and 6.6 for five.

Choices:
    * Answers to algorithmic problems are paired string by string. One string more or less is a large part of a hundred,
      and x strings that all go one way differ by x with a standard error of about sqrt(x), so a fall is seen from ten
      strings on (3 sqrt(x) < x), and 95 times in 100 where 16 are expected to go wrong: `_STRINGS` puts that into
      `detectable`. Simulated likewise, for 128 strings that are right or wrong.
    * Text is paired block by block (`shared_text.py`). Packed text is one stream whose digest is that of all of it,
      since a document shifts all that follow: packed runs are compared when their whole text is the same, and are not
      comparable otherwise.
    * `common` is the share of the baseline's scored tokens that the run scored too. A run may read more text than its
      baseline, not much less.
    * A row whose baseline has a value and that has none itself is worse, whatever the reason; one that gained a value
      is better. Where neither has a value, `n/a` in the run is the same, a failure is worse, and losses that are not
      finite are worse than `n/a` and otherwise judged by their number. A baseline that failed says nothing: not
      comparable, unless the run has a value.
    * With a single block there is no standard error: within the tolerance the row is the same, beyond it not
      comparable.
    * Where another tokenizer is allowed, documents are compared in nats per byte.
    * Fewer than 8 documents are resampled by their blocks, and the statement is then about these documents: where a
      change also differs from document to document by 0.08 %, the largest found, simulated false alarms of the default
      budget are 0.37 % of rows rather than 0.13 %.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lpe_eval.report.gate.joining import ASPECTS, WORSE_IS, Entry, Match, join
from lpe_eval.report.gate.shared_text import SharedText, n_tokens, shared_text
from lpe_eval.report.numbers.statistics import paired_difference
from lpe_eval.report.numbers.student import student
from lpe_eval.table import BLOCK_TARGETS, CHE_METRICS, BlockSum

VERDICTS = ("worse", "missing", "not comparable", "better", "new", "same")
LEAST_IN_COMMON = 0.8
ALLOWABLE = (*ASPECTS, "missing")
"""What `Rules.allowed` may hold."""

_ROUNDING = 1e-5
"""Identical weights on another machine, batch size or attention path move a loss by less (measured: 1e-6)."""
_SPREAD = 0.0054
"""Largest standard deviation, over blocks of 1024 targets, of a change that costs 0.5 %; see the module's docstring."""
_STRINGS = 3.5
"""Standard error of the number of strings that go wrong where 12 do: what a fall that is seen has at least."""
_CAUGHT = 1.6448536269514722
"""Φ of this is 95 %."""
_NAN = float("nan")


class Rules(NamedTuple):
    """When a difference counts.

    Attributes:
        tolerance: part of the baseline's loss by which a row may be worse.
        sigmas: `k` of the module's docstring.
        allowed: of `ALLOWABLE`: what may differ, or be missing, all the same.
    """

    tolerance: float = 0.0025
    sigmas: float = 3.0
    allowed: frozenset[str] = frozenset()


class Verdict(NamedTuple):
    """What was found of one row; numbers are NaN where there are none.

    Attributes:
        verdict: one of `VERDICTS`.
        baseline: nats per token (per byte, where tokenizers differ) on the text in common.
        value: of the run, likewise. For an accuracy both are the share of right answer tokens.
        change: value over baseline, less one; above 0 is worse for a loss, below 0 for an accuracy.
        stderr: standard error of `change`.
        allowed: change up to which a row is the same.
        detectable: change that would be caught 95 times in 100.
        common: share of the baseline's scored tokens (of its answer tokens that count) that is compared.
        changed: documents (strings) that both runs name and whose content differs; left out.
        vanished: documents of the baseline that the run did not score; left out.
        added: documents of the run that the baseline did not score; left out.
        units: blocks, documents, strings or trainings behind `stderr`.
        method: how `stderr` was made.
        compared_with: the baselines' names.
        reason: why, where the numbers do not say it.
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
    common: float = _NAN
    changed: int = 0
    vanished: int = 0
    added: int = 0
    units: int = 0
    method: str = "none"
    compared_with: str = ""
    reason: str = ""


def judge(run: Sequence[Entry], baselines: Sequence[Entry], rules: Rules) -> list[Verdict]:
    """A verdict for each row of the run, in its order, then for each row that it lacks.

    Args:
        run: what is judged.
        baselines: what it is compared with; those of several runs hold replicates of the same recipes, or other models.
        rules: when a difference counts.
    """
    return [_verdict(match, rules) for match in join(run, baselines)]


def failing(verdicts: Sequence[Verdict], rules: Rules) -> list[Verdict]:
    """The verdicts that make a run a regression."""
    bad = {"worse", "missing"} - rules.allowed
    return [each for each in verdicts if each.verdict in bad]


def _verdict(match: Match, rules: Rules) -> Verdict:
    shown = match.entry or match.references[0]
    row = shown.row
    plain = Verdict(
        model=shown.recipe if match.entry is None else str(row["model"]),
        task=str(row["task"]),
        protocol=str(row["protocol"]),
        length=int(row["length"]),
        stride=None if row["stride"] is None else int(row["stride"]),
        metric=str(row["metric"]),
        verdict="same",
        compared_with=", ".join(dict.fromkeys(each.source for each in match.references)),
    )
    if match.entry is None:
        return plain._replace(verdict="missing", reason="the run has no such row")
    if not match.references:
        return plain._replace(verdict="new", reason="the baseline has no such row")
    refused = [aspect for aspect in match.differing if aspect not in rules.allowed]
    if refused:
        told = "; ".join(
            f"{aspect} is {match.entry.settings[aspect]}, in the baseline {match.references[0].settings[aspect]}"
            for aspect in refused
        )
        return plain._replace(verdict="not comparable", reason=told)
    valued = [each for each in match.references if each.row["status"] == "ok"]
    if row["status"] != "ok" or not valued:
        return _without_value(plain, match.entry, (valued or match.references)[0])
    in_bytes = "tokenizer" in match.differing
    if len(valued) > 1:
        return _among_trainings(plain, match.entry, valued, in_bytes, rules)
    return _paired(plain, match.entry, valued[0], in_bytes, rules)


def _without_value(plain: Verdict, new: Entry, old: Entry) -> Verdict:
    """At least one of the two has no value."""
    now, before = str(new.row["status"]), str(old.row["status"])
    told = f"{now}, in the baseline {before}"
    if new.row["note"] and now != "ok":
        told += f": {new.row['note']}"
    if now == "ok" or before == "failed":
        return plain._replace(verdict="better" if now == "ok" else "not comparable", reason=told)
    if before == "ok" or now == "failed" or before == "n/a" != now:
        return plain._replace(verdict="worse", reason=told)
    if now == "n/a":
        return plain._replace(reason=told)
    text = shared_text(new.blocks, old.blocks)
    plain = _with_text(plain, text)
    if text.share < LEAST_IN_COMMON:
        return _too_little(plain, old)
    here, there = (sum(block.n_nonfinite for block in side) for side in (text.new, text.old))
    told = f"{here} targets in common have a loss that is not finite, in the baseline {there}"
    return plain._replace(verdict="worse" if here > there else "better" if here < there else "same", reason=told)


def _paired(plain: Verdict, new: Entry, old: Entry, in_bytes: bool, rules: Rules) -> Verdict:
    text = shared_text(new.blocks, old.blocks, in_bytes)
    plain = _with_text(plain, text)
    if text.share < LEAST_IN_COMMON:
        return _too_little(plain, old)
    found = paired_difference(text.new, text.old)
    method = "none" if found.ci_method == "none" else f"paired-{found.ci_method}"
    before = _mean(text.old)
    if plain.metric in CHE_METRICS:
        method = method.replace("documents", "strings")
        least = _STRINGS / found.units / before if before else 0.0
    else:
        least = _SPREAD * math.sqrt(BLOCK_TARGETS / n_tokens(text.old))
    plain = plain._replace(method=method)
    return _judged(plain, _mean(text.new), before, found.difference, found.stderr, found.units, rules, least)


def _among_trainings(plain: Verdict, new: Entry, trainings: Sequence[Entry], in_bytes: bool, rules: Rules) -> Verdict:
    texts = [shared_text(new.blocks, each.blocks, in_bytes) for each in trainings]
    shared = set.intersection(*({(block.digest, block.block) for block in text.old} for text in texts))
    share = min(n_tokens(_only(text.old, shared)) / max(text.total, 1) for text in texts)
    plain = _with_text(plain, min(texts, key=lambda text: text.share))._replace(common=share)
    if share < LEAST_IN_COMMON:
        return _too_little(plain, trainings[0])
    losses = [_mean(_only(text.old, shared)) for text in texts]
    value, mean, count = _mean(_only(texts[0].new, shared)), math.fsum(losses) / len(losses), len(losses)
    spread = math.sqrt(math.fsum((loss - mean) ** 2 for loss in losses) / (count - 1))
    stderr = spread * math.sqrt(1 + 1 / count)
    judged = _judged(plain._replace(method=f"trainings-{count}"), value, mean, value - mean, stderr, count, rules)
    where = "within" if judged.verdict == "same" else "outside"
    told = f"{where} the spread of {count} trainings, whose standard deviation is {spread:.4f} around {mean:.4f}"
    return judged._replace(reason=told)


def _judged(
    plain: Verdict,
    value: float,
    baseline: float,
    difference: float,
    stderr: float,
    units: int,
    rules: Rules,
    least: float = 0.0,
) -> Verdict:
    """The verdict on a difference; `least` is the smallest relative error that a change would have."""
    if baseline > 0:
        change, error = difference / baseline, stderr / baseline
    else:
        # Nothing is part of a loss (or an accuracy) of zero: an equal one is the same, any other one is not.
        change, error = math.copysign(math.inf, difference) if difference else 0.0, stderr * 0.0
    floor = max(rules.tolerance, _ROUNDING)
    numbers = plain._replace(baseline=baseline, value=value, change=change, stderr=error, units=units)
    if math.isnan(error):
        told = "a single block of text, or string, has no standard error; measure more"
        verdict = "same" if abs(change) <= floor else "not comparable"
        return numbers._replace(verdict=verdict, allowed=floor, reason=told)
    sigmas, expected = student(rules.sigmas, units - 1), max(error, least)
    allowed = max(floor, sigmas * error)
    harm = WORSE_IS[plain.metric] * change
    verdict = "worse" if harm > allowed else "better" if harm < -allowed else "same"
    detectable = max(floor, sigmas * expected) + _CAUGHT * expected
    return numbers._replace(verdict=verdict, allowed=allowed, detectable=detectable)


def _too_little(plain: Verdict, old: Entry) -> Verdict:
    share = math.floor(1000 * plain.common) / 10
    if plain.metric in CHE_METRICS:
        told = f"only {share:g} % of the baseline's answers are to strings of the run; give its --samples and --seed"
        return plain._replace(verdict="not comparable", reason=f"{told} (they stand in its spec.yaml)")
    told = f"only {share:g} % of the baseline's scored tokens are in the run with the same text; "
    told += "measure with the baseline's lengths and --max-tokens (they stand in its spec.yaml)"
    if "packed" in old.settings["protocol"]:
        told += "; packed text is one stream, so any change of it changes all"
    return plain._replace(verdict="not comparable", reason=told)


def _with_text(verdict: Verdict, text: SharedText) -> Verdict:
    return verdict._replace(common=text.share, changed=text.changed, vanished=text.vanished, added=text.added)


def _only(blocks: Sequence[BlockSum], keys: set[tuple[str, int]]) -> list[BlockSum]:
    return [block for block in blocks if (block.digest, block.block) in keys]


def _mean(blocks: Sequence[BlockSum]) -> float:
    return math.fsum(block.nll_nats for block in blocks) / n_tokens(blocks)
