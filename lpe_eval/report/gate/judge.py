"""Is a run worse than its baseline? One verdict for each row, from two runs that were read back.

The difference of two losses (of two accuracies) is paired: both sides are resampled together, document by document
(`statistics.paired_difference`), so what makes a text easy or hard cancels. `weighing.py` makes a verdict of it, and
`worst_document.py` looks for a document that got worse where the mean hides it. `docs/gate.md` has every rule, why it
is so, and how often it is wrong.

Choices:
    * Text is paired block by block (`shared_text.py`). Packed text is one stream whose digest is that of all of it,
      since a document shifts all that follow: packed runs are compared when their whole text is the same, and are not
      comparable otherwise.
    * Where another tokenizer is allowed, documents are compared in nats per byte.
    * Identical weights differ by rounding only. Where no block differs by more, the row is the same, however short the
      text: a changed model does not come out alike in every block by chance. Answers may, so few of them are taken for
      the same only if the checkpoint has the same digest as well.
    * Several trainings of one recipe in the baseline (see `joining.py`) say how much a training varies: a row is
      compared with their mean, and the standard error is their standard deviation times sqrt(1 + 1/n), the spread of
      one more training around the mean of n.
    * A row whose baseline has a value and that has none itself is worse, whatever the reason; one that gained a value
      is better. Where neither has a value, `n/a` in the run is the same, a failure is worse, and losses that are not
      finite are worse than `n/a` and otherwise judged by their number. A baseline that failed says nothing: not
      comparable, unless the run has a value.
"""

import math
from collections.abc import Sequence

from lpe_eval.report.gate.effective import judged_lengths
from lpe_eval.report.gate.effective_length import common_lengths, judged_length
from lpe_eval.report.gate.joining import Judged, Match, join
from lpe_eval.report.gate.rules import ALLOWABLE, EFFECTIVE_LENGTH, GAIN, RECALLED_LENGTH, VERDICTS, Rules, Verdict
from lpe_eval.report.gate.shared_text import SharedText, n_tokens, other_text, shared_text
from lpe_eval.report.gate.weighing import Difference, units_needed, weighed, weighed_trainings
from lpe_eval.report.gate.worst_document import ROUNDING, Worst, worst_document
from lpe_eval.report.numbers.statistics import paired_difference
from lpe_eval.table import BLOCK_TARGETS, CHE_METRICS, BlockSum

__all__ = ["ALLOWABLE", "LEAST_IN_COMMON", "VERDICTS", "Rules", "Verdict", "failing", "judge"]

LEAST_IN_COMMON = 0.8
"""A run may read more text than its baseline, not less than this share of it."""

_SPREAD = 0.0054
"""Largest standard deviation over blocks of 1024 targets that a change of 0.5 % was measured to have, relative."""
_STRINGS = 3.5
"""Standard error of the number of strings that go wrong where 12 do: what a fall that is seen has at least."""


def judge(run: Sequence[Judged], baselines: Sequence[Judged], rules: Rules) -> list[Verdict]:
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
    shown = match.judged or match.references[0]
    row = shown.row
    plain = Verdict(
        model=_missing_name(match.references) if match.judged is None else str(row["model"]),
        task=str(row["task"]),
        protocol=str(row["protocol"]),
        length=int(row["length"]),
        stride=None if row["stride"] is None else int(row["stride"]),
        metric=str(row["metric"]),
        verdict="same",
        compared_with=", ".join(dict.fromkeys(each.source for each in match.references)),
        worse_is=shown.worse_is,
    )
    if match.judged is None:
        return plain._replace(verdict="missing", reason="the run has no such row")
    if not match.references:
        return plain._replace(verdict="new", reason="the baseline has no such row")
    refused = [aspect for aspect in match.differing if aspect not in rules.allowed]
    if refused:
        why = "; ".join(
            f"{aspect} is {match.judged.settings[aspect]}, in the baseline {match.references[0].settings[aspect]}"
            for aspect in refused
        )
        return plain._replace(verdict="not comparable", reason=why)
    valued = [each for each in match.references if each.row["status"] == "ok"]
    if row["status"] != "ok" or not valued:
        return _without_value(plain, match.judged, (valued or match.references)[0])
    in_bytes = "tokenizer" in match.differing
    if plain.metric == EFFECTIVE_LENGTH:
        return _of_length(plain, match.judged, valued, in_bytes, rules)
    if plain.metric == RECALLED_LENGTH:
        # Beside several trainings a length is held against the one that recalls least far.
        return judged_lengths(plain, match.judged, min(valued, key=lambda each: each.row["value"]))
    if len(valued) > 1:
        return _among_trainings(plain, match.judged, valued, in_bytes, rules)
    return _paired(plain, match.judged, valued[0], in_bytes, rules)


def _of_length(plain: Verdict, new: Judged, valued: Sequence[Judged], in_bytes: bool, rules: Rules) -> Verdict:
    """Of an effective length: is there enough in common to judge it by?"""
    if in_bytes:
        return plain._replace(verdict="new", reason="lengths in tokens of two tokenizers do not compare")
    lengths = common_lengths(new, valued)
    if len(lengths) < 2:
        return plain._replace(verdict="not comparable", reason="the run and the baseline have one length in common")
    texts = [shared_text(new.by_length[lengths[0]], each.by_length[lengths[0]]) for each in valued]
    plain = _with_text(plain, min(texts, key=lambda text: text.share))
    if plain.common < LEAST_IN_COMMON:
        return _too_little(plain, new, valued[0])
    verdict = judged_length(plain, new, valued, rules)
    return verdict._replace(needed=_rounded_up(float(verdict.needed))) if verdict.needed else verdict


def _without_value(plain: Verdict, new: Judged, old: Judged) -> Verdict:
    """At least one of the two has no value."""
    now, before = str(new.row["status"]), str(old.row["status"])
    why = f"{now}, in the baseline {before}"
    if new.row["note"] and now != "ok":
        why += f": {new.row['note']}"
    if now == "ok" or before == "failed":
        return plain._replace(verdict="better" if now == "ok" else "not comparable", reason=why)
    if before == "ok" or now == "failed" or before == "n/a" != now:
        return plain._replace(verdict="worse", reason=why)
    if now == "n/a":
        return plain._replace(reason=why)
    text = shared_text(new.blocks, old.blocks)
    plain = _with_text(plain, text)
    if text.share < LEAST_IN_COMMON:
        return _too_little(plain, new, old)
    here, there = (sum(block.n_nonfinite for block in side) for side in (text.new, text.old))
    why = f"{here} targets in common have a loss that is not finite, in the baseline {there}"
    return plain._replace(verdict="worse" if here > there else "better" if here < there else "same", reason=why)


def _paired(plain: Verdict, new: Judged, old: Judged, in_bytes: bool, rules: Rules) -> Verdict:
    text = shared_text(new.blocks, old.blocks, in_bytes)
    plain = _with_text(plain, text)
    if text.share < LEAST_IN_COMMON:
        return _too_little(plain, new, old)
    paired = paired_difference(text.new, text.old)
    method = "none" if paired.ci_method == "none" else f"paired-{paired.ci_method}"
    of_answers, before, tokens = plain.metric in CHE_METRICS, _mean(text.old), n_tokens(text.old)
    of_gain, scale = plain.metric == GAIN, old.scale
    identical = _identical(text.new, text.old, before if scale is None else scale)
    if of_answers:
        method = method.replace("documents", "strings")
        identical = identical and new.checkpoint is not None and new.checkpoint == old.checkpoint
        least = noise_of_answers(max(paired.units, 1))
    elif of_gain:
        noun = "prompts" if new.row.get("distance") is None else "pieces"
        method, least = method.replace("documents", noun), 0.0
    else:
        least = noise_of_text(before, tokens)
    found = Difference(_mean(text.new), before, paired.stderr, paired.units, least, identical, scale)
    verdict = weighed(plain._replace(method=method), found, rules)
    if verdict.verdict == "inconclusive":
        units = units_needed(found, rules, plain.metric)
        # Two digits are as many as such a forecast has.
        needed = units if of_answers or of_gain else _rounded_up(units * tokens / found.units)
        verdict = verdict._replace(needed=needed)
    if of_answers or of_gain or identical:
        return verdict
    return _with_worst(verdict, worst_document(text.new, text.old, rules.tolerance))


def noise_of_text(loss: float, tokens: int) -> float:
    """Standard error, in nats a token, that a change worth seeing has on as much text of that loss."""
    return loss * _SPREAD * math.sqrt(BLOCK_TARGETS / tokens)


def noise_of_answers(strings: int) -> float:
    """Standard error of an accuracy, over so many strings, that a fall worth seeing has at least."""
    return _STRINGS / strings


def _among_trainings(plain: Verdict, new: Judged, trainings: Sequence[Judged], in_bytes: bool, rules: Rules) -> Verdict:
    texts = [shared_text(new.blocks, each.blocks, in_bytes) for each in trainings]
    shared = set.intersection(*({(block.digest, block.block) for block in text.old} for text in texts))
    share = min(n_tokens(_only(text.old, shared)) / max(text.total, 1) for text in texts)
    plain = _with_text(plain, min(texts, key=lambda text: text.share))._replace(common=share)
    if share < LEAST_IN_COMMON:
        return _too_little(plain, new, trainings[0])
    before, blocks = [_only(text.old, shared) for text in texts], _only(texts[0].new, shared)
    losses = [_mean(each) for each in before]
    mean, count = math.fsum(losses) / len(losses), len(losses)
    spread = math.sqrt(math.fsum((loss - mean) ** 2 for loss in losses) / (count - 1))
    found = Difference(_mean(blocks), mean, spread * math.sqrt(1 + 1 / count), count, scale=trainings[0].scale)
    verdict = weighed_trainings(plain._replace(method=f"trainings-{count}"), found, rules)
    where = {"same": "within", "inconclusive": "perhaps outside"}.get(verdict.verdict, "outside")
    why = f"{where} the spread of {count} trainings, whose standard deviation is {spread:.4f} around {mean:.4f}"
    verdict = verdict._replace(reason=why)
    if plain.metric in CHE_METRICS or plain.metric == GAIN:
        return verdict
    worst = worst_document(blocks, _mean_of(before), rules.tolerance)
    if worst is not None:
        # A document at which another training is as bad is one at which trainings differ.
        usual = max(_of_document(each, worst.digest) for each in before)
        if _of_document(blocks, worst.digest) <= (1 + rules.tolerance) * usual:
            worst = None
    return _with_worst(verdict, worst)


def _with_worst(verdict: Verdict, worst: Worst | None) -> Verdict:
    """The verdict, or `worse` where a document is."""
    if worst is None:
        return verdict
    named = {"document": worst.document, "document_change": worst.change, "document_allowed": worst.allowed}
    return verdict._replace(verdict="worse", needed=0, **named)


def _too_little(plain: Verdict, new: Judged, old: Judged) -> Verdict:
    share = math.floor(1000 * plain.common) / 10
    if plain.metric in CHE_METRICS:
        why = f"only {share:g} % of the baseline's answers are to strings of the run; give its --samples and --seed"
        return plain._replace(verdict="not comparable", reason=f"{why} (they stand in its spec.yaml)")
    if plain.metric == GAIN:
        remedy = other_text(new.corpus, old.corpus) or "measure with its spec.yaml"
        why = f"only {share:g} % of the baseline's answers are to prompts of the run; {remedy}"
        return plain._replace(verdict="not comparable", reason=why)
    why = f"only {share:g} % of the baseline's scored tokens are in the run with the same text; "
    remedy = "measure with the baseline's lengths and --max-tokens (they stand in its spec.yaml)"
    why += other_text(new.corpus, old.corpus) or remedy
    if "packed" in old.settings["protocol"]:
        why += "; packed text is one stream, so any change of it changes all"
    return plain._replace(verdict="not comparable", reason=why)


def _with_text(verdict: Verdict, text: SharedText) -> Verdict:
    return verdict._replace(common=text.share, changed=text.changed, vanished=text.vanished, added=text.added)


def _only(blocks: Sequence[BlockSum], keys: set[tuple[str, int]]) -> list[BlockSum]:
    return [block for block in blocks if (block.digest, block.block) in keys]


def _mean(blocks: Sequence[BlockSum]) -> float:
    return math.fsum(block.nll_nats for block in blocks) / n_tokens(blocks)


def _mean_of(trainings: Sequence[Sequence[BlockSum]]) -> list[BlockSum]:
    """Each block of the first training with its mean loss over all of them."""
    sums = [{(block.digest, block.block): block for block in side} for side in trainings]
    return [
        block._replace(nll_nats=math.fsum(side[block.digest, block.block].nll_nats for side in sums) / len(sums))
        for block in trainings[0]
    ]


def _of_document(blocks: Sequence[BlockSum], digest: str) -> float:
    return math.fsum(block.nll_nats for block in blocks if block.digest == digest)


def _identical(new: Sequence[BlockSum], old: Sequence[BlockSum], level: float) -> bool:
    """Whether no block differs by more than rounding does; `level` is what a token has usually."""
    return all(
        here.n_tokens == there.n_tokens
        and abs(here.nll_nats - there.nll_nats) <= ROUNDING * max(there.nll_nats, level * there.n_tokens)
        for here, there in zip(new, old, strict=True)
    )


def _missing_name(references: Sequence[Judged]) -> str:
    """The model that is missing, or the recipe where all of its trainings are."""
    names = {str(each.row["model"]) for each in references}
    return names.pop() if len(names) == 1 else references[0].recipe


def _rounded_up(count: float) -> int:
    """To two digits."""
    step = 10 ** max(len(str(int(count))) - 2, 0)
    return step * math.ceil(count / step)
