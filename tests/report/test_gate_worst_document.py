"""The document that got worse: found whichever it is, named in every report, and not seen where nothing changed."""

import json
import math
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest

from lpe_eval.commands.compare import Comparison, notes, refuse_regression
from lpe_eval.errors import RegressionFound
from lpe_eval.report.gate.judge import judge
from lpe_eval.report.gate.rules import Rules, Verdict
from lpe_eval.report.gate.verdicts import as_json, as_junit
from lpe_eval.report.gate.worst_document import FALSE_ALARMS, Parts, worst_document, worst_part
from lpe_eval.report.numbers.student import upper_point, upper_tail
from lpe_eval.table import BlockSum
from tests.support.gate_rows import of_text
from tests.support.gate_runs import block, text, worse_by

TOLERANCE = Rules().tolerance


def moved(blocks: list[BlockSum], noise: float, seed: int = 0, bad: int | None = None, factor: float = 1.0):
    """Noise in every block, and one document at `factor` times its loss."""
    draw = np.random.default_rng(seed)
    return [
        b._replace(nll_nats=b.nll_nats * (1 + noise * float(draw.standard_normal())) * (factor if _is(b, bad) else 1.0))
        for b in blocks
    ]


def _is(each: BlockSum, number: int | None) -> bool:
    return each.document == f"doc-{number}.py"


def one(new: list[BlockSum], *old: list[BlockSum]) -> Verdict:
    """The verdict on blocks beside those of a baseline, or of several trainings."""
    references = [of_text(each, source=f"baseline {n}", checkpoint=f"training {n}") for n, each in enumerate(old)]
    (found,) = judge([of_text(new, checkpoint="new")], references, Rules())
    return found


def test_students_upper_point_is_the_inverse_of_its_tail():
    for share in (0.4, 0.1, 1e-3, 1e-5, 1e-7):
        assert upper_tail(upper_point(share, 3), 3) == pytest.approx(share, rel=1e-6)
    # Printed tables: 97.5 % and 99.9 % of 3 degrees of freedom.
    assert (upper_point(0.025, 3), upper_point(0.001, 3)) == (
        pytest.approx(3.1824, abs=1e-4),
        pytest.approx(10.2145, abs=1e-4),
    )


@pytest.mark.parametrize("factor", [1.5, 3.0, 10.0, 100.0])
@pytest.mark.parametrize("noise", [0.0, 0.0054])
def test_a_document_that_is_worse_fails_and_is_named_whichever_it_is(factor, noise):
    old = text(23, 3)
    for bad in range(23):
        found = one(moved(old, noise, bad, bad, factor), old)
        assert (found.verdict, found.document) == ("worse", f"doc-{bad}.py")
        assert found.document_change == pytest.approx(factor - 1, rel=0.05)
        assert found.document_change > found.document_allowed >= TOLERANCE


def test_documents_of_all_sizes_are_watched():
    sizes = [1, 7, 40, 300, 1024, 1024, 1024, 2000, 2000, 3000, 5000, 20000]
    old = [
        block(d, b, 1.0 + 0.05 * d, min(1024, size - 1024 * b))
        for d, size in enumerate(sizes)
        for b in range(math.ceil(size / 1024))
    ]
    for bad in range(len(sizes)):
        assert one(moved(old, 0.0, 0, bad, 1.5), old).document == f"doc-{bad}.py"
    for bad in range(2, len(sizes)):
        # A document of 40 targets may vary five times as much as one of 1024; three times its nats are still seen.
        assert one(moved(old, 0.002, bad, bad, 3.0), old).document == f"doc-{bad}.py"


def test_a_document_that_is_rarely_worse_is_found_where_nothing_else_changed():
    # As of a model that is blind after a rare character: 1 % in one of 22 documents, 0.05 % of the mean.
    old = text(22, 3)
    found = one(moved(old, 0.0, 0, 13, 1.01), old)
    assert found.change < TOLERANCE
    assert (found.verdict, found.document) == ("worse", "doc-13.py")
    assert one(moved(old, 0.0, 0, 13, 1.002), old).verdict == "same", "the tolerance is a document's, too"


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_up_to_a_fifth_of_the_documents_do_not_hide_one_another(bad):
    old = text(20, 3)
    new = [b._replace(nll_nats=1.5 * b.nll_nats) if int(b.document[4:-3]) < bad else b for b in moved(old, 0.0054)]
    found = one(new, old)
    assert found.verdict == "worse" and found.document in {f"doc-{n}.py" for n in range(bad)}


@pytest.mark.parametrize("documents", [2, 3, 5, 7])
def test_with_few_documents_one_is_held_against_the_blocks_of_the_others(documents):
    old = text(documents, 12)
    for bad in range(documents):
        found = one(moved(old, 0.0054, bad, bad, 1.5), old)
        assert (found.verdict, found.document) == ("worse", f"doc-{bad}.py")


def test_in_a_single_document_the_block_is_named():
    old = text(1, 20)
    new = moved(old, 0.0054)
    new[13] = new[13]._replace(nll_nats=1.5 * new[13].nll_nats)
    assert one(new, old).document == "doc-0.py, block 13"


def test_with_too_few_others_nothing_is_said_of_a_document():
    old = text(2, 6)
    assert worst_document(moved(old, 0.0, 0, 1, 3.0), old, TOLERANCE) is None
    assert one(moved(old, 0.001, 0, 1, 3.0), old).verdict in ("worse", "inconclusive")


def test_a_change_that_all_documents_share_is_no_documents_fault():
    old = text(24, 3)
    for share in (0.002, 0.05, 2.0):
        assert one(worse_by(old, share), old).document == ""
    assert one(moved(old, 0.0054, 3, 5, 0.2), old).document == "", "a document that got better is no harm"


def brute_force(new: list[BlockSum], old: list[BlockSum]) -> str | None:
    """The rule of the module's docstring, document by document, each against all others."""
    names = list(dict.fromkeys(b.document for b in old))
    total = {n: [sum(b.nll_nats for b in side if b.document == n) for side in (new, old)] for n in names}
    size = {n: sum(b.n_tokens for b in old if b.document == n) for n in names}
    level = sum(before for _, before in total.values()) / sum(size.values())
    x = {n: (now - before) / size[n] / level for n, (now, before) in total.items()}
    weight = {n: min(1.0, math.sqrt(size[n] / float(np.median(list(size.values()))))) for n in names}
    failed = {}
    for n in names:
        others = [each for each in names if each != n]
        centre = float(np.median([x[each] for each in others]))
        spread = float(np.quantile([abs(x[each] - centre) * weight[each] for each in others], 0.8))
        scale = max(spread, 1e-5) / upper_point(0.1, 3)
        point = upper_point(FALSE_ALARMS / len(names), 3) * (1 + 4 / len(others))
        now, before = total[n]
        if x[n] > centre + point * scale / weight[n] and now > (1 + TOLERANCE) * before:
            failed[n] = (x[n] - centre) * weight[n]
    return max(failed, key=lambda n: failed[n]) if failed else None


def test_what_is_found_is_what_the_rule_says_document_by_document():
    hits = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        count = int(draw.integers(8, 40))
        old = [
            block(d, b, float(draw.uniform(0.3, 2.0)), int(draw.integers(1, 1025)))
            for d in range(count) for b in range(int(draw.integers(1, 4)))
        ]  # fmt: skip
        new = moved(old, 0.003, seed, seed % count, float(draw.uniform(1.0, 1.3)))
        found = worst_document(new, old, TOLERANCE)
        assert (found and found.document) == brute_force(new, old)
        hits += found is not None
    assert 10 < hits < 60, "both answers are tried"


@pytest.mark.parametrize("shape", ["normal", "t", "skewed"])
@pytest.mark.parametrize("documents", [8, 24])
def test_without_a_change_the_rate_of_false_alarms_is_not_above_the_stated_one(documents, shape):
    alarms = 0
    for seed in range(2000):
        draw = np.random.default_rng([seed, documents])
        drawn = {
            "normal": draw.standard_normal, "t": partial(draw.standard_t, 3), "skewed": draw.standard_exponential,
        }[shape](size=documents)  # fmt: skip
        losses = 1 + 0.003 * np.asarray(drawn)
        names = [f"{number}" for number in range(documents)]
        ones = np.ones(documents)
        alarms += worst_part(Parts(losses, ones, ones, names, names, [0] * documents), TOLERANCE) is not None
    # 0.1 % of 2000 is 2; a skewness of 2 is beyond the reference law for 8 documents (docs/gate.md: 0.25 %).
    assert alarms <= (12 if shape == "skewed" and documents == 8 else 7)


def test_a_document_at_which_trainings_differ_anyway_is_no_regression():
    old = text(24, 1)
    trainings = [moved(old, 0.003, seed) for seed in range(4)] + [moved(old, 0.003, 9, 5, 2.0)]
    assert one(moved(old, 0.003, 20, 5, 1.9), *trainings).document == ""
    found = one(moved(old, 0.003, 20, 6, 1.9), *trainings)
    assert (found.verdict, found.document, found.method) == ("worse", "doc-6.py", "trainings-5")


def test_the_document_is_named_in_the_sentence_the_notes_and_both_reports():
    old = text(23, 3)
    found = one(moved(old, 0.0, 0, 7, 3.0), old)
    comparison = Comparison("run", ("released",), Rules(), [found])
    with pytest.raises(RegressionFound, match=r"at length 512 \(\+\d\.\d\d %; doc-7\.py \+200\.00 %\)"):
        refuse_regression(comparison)
    assert any("alibi, nonoverlap at 512: worse: doc-7.py +200.00 %" in each for each in notes(comparison))
    (row,) = json.loads(as_json([found], Rules(), "run", []))["rows"]
    assert (row["document"], row["document_change"]) == ("doc-7.py", pytest.approx(2.0))
    failure = ElementTree.fromstring(as_junit([found], Rules(), "run", []))[0][0][0]
    assert failure.tag == "failure" and "doc-7.py +200.00 %" in failure.attrib["message"]
