"""Two effective lengths beside each other: is one shorter, or is that chance?

Both sides are resampled together, item by item, each item with its scores at all lengths, and every resample gives
both an effective length. A length is *worse* where it is shorter and the share of resamples in which it is not is below
`CHANCE`, the share of a normal law beyond three standard errors; *inconclusive* where that share is below `PERHAPS`;
else the difference is chance, and it is said so. Fewer than `MIN_ITEMS` items say nothing of chance.
"""

import numpy as np

from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.gate.rules import Verdict
from lpe_eval.report.gate.worst_document import ROUNDING
from lpe_eval.report.numbers.recall_length import REPLICATES, Scores, lengths_of, resamples

CHANCE, PERHAPS = 0.00135, 0.05
MIN_ITEMS = 8

_LEAST_IN_COMMON = 0.8


def judged_lengths(plain: Verdict, new: Judged, old: Judged) -> Verdict:
    """The verdict on two effective lengths.

    Args:
        plain: which row it is.
        new: of the run.
        old: of the baseline; the same rule and lengths.
    """
    mine, theirs = ({(each.document, each.block): each for each in side.blocks} for side in (new, old))
    names = sorted({name for name, _ in theirs})
    same = [
        name
        for name in names
        if all(
            at in mine and mine[at].digest == each.digest and mine[at].n_tokens == each.n_tokens
            for at, each in theirs.items()
            if at[0] == name
        )
    ]
    share = len(same) / len(names) if names else 0.0
    plain = plain._replace(common=share, units=len(same))
    if share < _LEAST_IN_COMMON:
        why = f"only {100 * share:.3g} % of the baseline's prompts are in the run; measure with its spec.yaml"
        return plain._replace(verdict="not comparable", reason=why)
    lengths, rule = tuple(old.row["lengths"]), old.row["rule"]
    sides = [_scores(blocks, same, lengths) for blocks in (mine, theirs)]
    once = np.ones((1, len(same)))
    here, there = (int(lengths_of(once, side, rule)[0]) for side in sides)
    change = here / there - 1 if there else float(here > 0) * np.inf
    noun = "prompts" if old.row.get("distance") is None else "pieces"
    plain = plain._replace(
        baseline=float(there), value=float(here), change=change, method=f"paired-bootstrap-{noun}-{REPLICATES}"
    )
    one, other = (np.nan_to_num(side.totals) for side in sides)
    level = np.abs(other).sum() / max(sides[1].counts.sum(), 1.0)
    if here == there or (np.abs(one - other) <= ROUNDING * max(level, 1.0) * sides[1].counts).all():
        return plain._replace(verdict="same")
    if len(same) < MIN_ITEMS:
        why = f"{len(same)} {noun} are too few to say what is chance"
        return plain._replace(verdict="inconclusive", reason=why, needed=MIN_ITEMS)
    weights = resamples(len(same), 0)
    run, baseline = (lengths_of(weights, side, rule) for side in sides)
    chance = float((run >= baseline).mean() if here < there else (run <= baseline).mean())
    word = "shorter" if here < there else "longer"
    why = f"{word} than {there} by {abs(here - there)}; in {100 * chance:.3g} % of resamples it is not"
    if chance <= CHANCE:
        return plain._replace(verdict="worse" if here < there else "better", reason=why)
    if here < there and chance <= PERHAPS:
        return plain._replace(verdict="inconclusive", reason=why, needed=4 * len(same))
    return plain._replace(verdict="same", reason=f"{why}, so that is chance")


def _scores(blocks: dict, names: list[str], lengths: tuple[int, ...]) -> Scores:
    totals, counts = np.zeros((len(names), len(lengths))), np.zeros((len(names), len(lengths)))
    place = {name: number for number, name in enumerate(names)}
    for (name, at), each in blocks.items():
        if name in place:
            totals[place[name], at], counts[place[name], at] = each.nll_nats, each.n_tokens
    return Scores(totals, counts, lengths)
