"""Verdicts on rows whose answer is known, and the reports they are told in."""

import json
import math
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from lpe_eval.commands.compare import Comparison, notes
from lpe_eval.report.gate.joining import judged_rows, recipe
from lpe_eval.report.gate.judge import ALLOWABLE, Rules, Verdict, judge
from lpe_eval.report.gate.verdicts import as_json, as_junit, counts, exit_code, sentence
from lpe_eval.report.numbers.student import MOST_SIGMAS, student, upper_tail
from lpe_eval.table import CellKey
from tests.support.gate_runs import KEY, block, loss, run_of, text, worse_by

OTHER = KEY._replace(length=8192, stride=8192)


def verdicts(new, *old, rules: Rules | None = None) -> list[Verdict]:
    references = [judged for number, run in enumerate(old) for judged in judged_rows(run, f"baseline {number}")]
    return judge(judged_rows(new, "to judge"), references, rules or Rules())


def one(new, *old, **rules) -> Verdict:
    (found,) = verdicts(new, *old, rules=Rules(**rules))
    return found


# Student


@pytest.mark.parametrize(
    ("freedom", "point"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (9, 2.2622), (10, 2.2281), (30, 2.0423),
     (120, 1.9799), (1000, 1.9623), (1001, 1.9623)],
)  # fmt: skip
def test_students_multiple_is_the_one_of_the_printed_table(freedom, point):
    assert student(1.959963984540054, freedom) == pytest.approx(point, abs=6e-5)


@pytest.mark.parametrize("sigmas", [0.0, 0.5, 1.0, 3.0, MOST_SIGMAS])
def test_students_multiple_is_the_closed_form_for_one_and_two_degrees_of_freedom(sigmas):
    tail = 0.5 * math.erfc(sigmas / math.sqrt(2))
    assert student(sigmas, 1) == pytest.approx(1 / math.tan(math.pi * tail) if tail < 0.5 else 0.0, rel=1e-6, abs=1e-12)
    two = (1 - 2 * tail) * math.sqrt(2 / (4 * tail * (1 - tail)))
    assert student(sigmas, 2) == pytest.approx(two, rel=1e-6, abs=1e-12)
    assert upper_tail(student(sigmas, 7), 7) == pytest.approx(tail, rel=1e-6)


def test_students_multiple_is_never_below_the_normal_one_and_falls_to_it():
    found = [student(3.0, freedom) for freedom in (1, 2, 3, 7, 35, 200, 1000, 1001, 10**6)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(3.0, abs=1e-4)


# One row


def test_the_same_run_is_the_same():
    found = one(run_of({KEY: text()}), run_of({KEY: text()}))
    assert (found.verdict, found.change, found.stderr, found.common) == ("same", 0.0, 0.0, 1.0)
    assert (found.changed, found.vanished, found.added, found.compared_with) == (0, 0, 0, "baseline 0")
    assert found.allowed == 0.0025 and found.detectable > 0.0025


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.002, "same"), (-0.002, "same"), (0.003, "worse"), (-0.003, "better"), (5.0, "worse")]
)
def test_a_change_beyond_the_tolerance_is_worse_or_better(share, verdict):
    found = one(run_of({KEY: worse_by(text(), share)}), run_of({KEY: text()}))
    assert found.verdict == verdict
    assert found.change == pytest.approx(share, rel=1e-9)
    assert found.baseline == pytest.approx(loss(text()), rel=1e-12)
    assert found.value == pytest.approx(loss(text()) * (1 + share), rel=1e-12)


def test_a_change_within_the_error_of_the_pairs_is_the_same_and_says_what_it_allowed():
    noise = np.random.default_rng(0).standard_normal(36)
    old = text()
    new = [each._replace(nll_nats=each.nll_nats + 1024 * 0.05 * float(x)) for each, x in zip(old, noise, strict=True)]
    found = one(run_of({KEY: new}), run_of({KEY: old}))
    # It is not called worse, and not the same either: at this error a change of 1 % could pass unseen.
    assert found.verdict == "inconclusive" and abs(found.change) > 0.0025
    assert one(run_of({KEY: new}), run_of({KEY: old}), detectable=0.1).verdict == "same"
    assert found.method == "paired-bootstrap-documents-1000" and found.units == 12
    assert found.allowed == pytest.approx(student(3.0, 11) * found.stderr, rel=1e-12)
    assert one(run_of({KEY: new}), run_of({KEY: old}), sigmas=0.0).verdict != "same"


def test_a_documents_last_single_target_is_no_unit_of_its_own():
    old = [each for d in range(3) for each in (block(d, 0, 1.0 + 0.1 * d), block(d, 1, 1.0, tokens=1))]
    new = [each._replace(nll_nats=each.nll_nats * (1.001 + 0.0001 * k)) for k, each in enumerate(old)]
    assert one(run_of({KEY: new}), run_of({KEY: old})).units == 3


def test_a_single_block_has_no_error_so_nothing_but_the_same_losses_can_pass_it():
    old = run_of({KEY: [block(0, 0, 1.0)]})
    assert one(old, old).verdict == "same"
    for loss_now in (1.001, 1.09, 0.9):
        found = one(run_of({KEY: [block(0, 0, loss_now)]}), old)
        assert (found.verdict, found.method) == ("inconclusive", "none")
        assert "could pass unseen" in found.reason
    assert one(run_of({KEY: [block(0, 0, 1.11)]}), old).verdict == "worse"


def test_a_loss_of_zero_can_only_stay_or_get_worse():
    old = run_of({KEY: [block(n, 0, 0.0) for n in range(9)]})
    assert one(old, old).verdict == "same"
    found = one(run_of({KEY: [block(n, 0, 0.1) for n in range(9)]}), old)
    assert (found.verdict, found.change) == ("worse", math.inf)


MATRIX = {
    ("ok", "n/a"): "worse", ("ok", "error"): "worse", ("ok", "failed"): "worse",
    ("n/a", "ok"): "better", ("n/a", "n/a"): "same", ("n/a", "error"): "worse", ("n/a", "failed"): "worse",
    ("error", "ok"): "better", ("error", "n/a"): "same", ("error", "error"): "same", ("error", "failed"): "worse",
    ("failed", "ok"): "better", ("failed", "n/a"): "not comparable", ("failed", "error"): "not comparable",
    ("failed", "failed"): "not comparable",
}  # fmt: skip


@pytest.mark.parametrize(("before", "now"), MATRIX, ids=lambda status: status)
def test_a_value_that_is_lost_is_worse_and_one_that_is_gained_is_better(before, now):
    def run(status):
        blocks = text()
        blocks[0] = blocks[0]._replace(nll_nats=math.inf, n_nonfinite=3) if status == "error" else blocks[0]
        return run_of({KEY: blocks}, {KEY: status})

    found = one(run(now), run(before))
    assert found.verdict == MATRIX[before, now]
    assert found.reason
    if now not in ("ok", "error"):
        assert f"the reason for {now}" in found.reason


def test_losses_that_are_not_finite_on_both_sides_are_judged_by_their_number():
    def run(count):
        return run_of({KEY: [text()[0]._replace(nll_nats=math.nan, n_nonfinite=count), *text()[1:]]})

    assert one(run(4), run(3)).verdict == "worse"
    assert one(run(2), run(3)).verdict == "better"


# Text


def test_documents_that_changed_or_vanished_are_left_out_and_counted():
    old = [block(d, 0, 1.0 + 0.05 * d) for d in range(20)]
    new = [each._replace(nll_nats=each.nll_nats * 1.0001) for each in old[2:]]
    new[0] = block(2, 0, 9.0, edition=1)
    new.append(block(77, 0, 9.0))
    found = one(run_of({KEY: new}), run_of({KEY: old}))
    assert (found.changed, found.vanished, found.added) == (1, 2, 1)
    assert found.common == 17 / 20
    assert found.verdict == "same" and found.change == pytest.approx(0.0001, rel=1e-6)


@pytest.mark.parametrize(("kept", "verdict"), [(16, "same"), (15, "not comparable"), (0, "not comparable")])
def test_below_80_percent_of_the_tokens_in_common_a_row_is_not_comparable(kept, verdict):
    old = [block(d, 0, 1.0 + 0.05 * d) for d in range(20)]
    new = [block(d, 0, 1.0 + 0.05 * d, edition=int(d >= kept)) for d in range(20)]
    found = one(run_of({KEY: new}), run_of({KEY: old}))
    assert (found.verdict, found.common) == (verdict, kept / 20)
    assert verdict == "same" or "same text" in found.reason


def test_a_run_may_read_more_text_than_its_baseline_and_not_much_less():
    assert one(run_of({KEY: text(20)}), run_of({KEY: text(20)[:36]})).verdict == "same"
    assert one(run_of({KEY: text(20)[:36]}), run_of({KEY: text(20)})).verdict == "not comparable"


def test_a_block_that_was_cut_at_another_place_is_other_text():
    old = [*text(), block(40, 0, 1.0), block(40, 1, 1.0, tokens=100)]
    new = [*text(), block(40, 0, 1.0), block(40, 1, 9.0, tokens=1024)]
    found = one(run_of({KEY: new}), run_of({KEY: old}))
    assert (found.verdict, found.change) == ("same", 0.0)
    assert found.common == (37 * 1024) / (37 * 1024 + 100)


def test_a_file_that_only_moved_is_the_same_text():
    moved = [each._replace(document=f"moved/{each.document}") for each in text()]
    found = one(run_of({KEY: moved}), run_of({KEY: text()}))
    assert (found.verdict, found.common, found.changed, found.vanished) == ("same", 1.0, 0, 0)


def test_packed_text_is_compared_whole_or_not_at_all():
    packed = [each._replace(document="packed", digest="all of it", block=n) for n, each in enumerate(text())]
    old = run_of({KEY: packed}, spec={"pack": True})
    assert one(old, old).verdict == "same"
    other = run_of({KEY: [each._replace(digest="all but one") for each in packed]}, spec={"pack": True})
    found = one(other, old)
    assert found.verdict == "not comparable" and "packed text is one stream" in found.reason
    assert "packed" in one(run_of({KEY: text()}), old).reason


# Joining


def test_rows_that_only_one_side_has_are_missing_or_new():
    run, baseline = run_of({KEY: text()}), run_of({KEY: text(), OTHER: text()})
    assert [each.verdict for each in verdicts(run, baseline)] == ["same", "missing"]
    assert [each.verdict for each in verdicts(baseline, run)] == ["same", "new"]


@pytest.mark.parametrize(
    ("change", "aspect", "told"),
    [
        ({"task_version": 2}, "task", "task is python-stdlib, version 2, in the baseline python-stdlib, version 1"),
        ({"task": "custom"}, "task", "task is custom"),
        ({"dtype": "bfloat16"}, "dtype", "dtype is bfloat16, in the baseline float32"),
        ({"seed": 5}, "seed", "seed is 5, in the baseline 0"),
        ({"tokenizer": "other"}, "tokenizer", "tokenizer is other"),
        ({"spec": {"bos": "always"}}, "protocol", "bos always"),
        ({"spec": {"tail": "drop"}}, "protocol", "tail drop"),
    ],
    ids=str,
)
def test_what_was_measured_in_another_way_is_not_comparable_unless_that_is_allowed(change, aspect, told):
    new, old = run_of({KEY: text()}, **change), run_of({KEY: text()})
    found = one(new, old)
    assert found.verdict == "not comparable" and told in found.reason
    assert one(new, old, allowed=frozenset({aspect})).verdict == "same"
    for other in set(ALLOWABLE) - {aspect}:
        assert one(new, old, allowed=frozenset({other})).verdict == "not comparable"


def test_another_stride_is_another_protocol_and_another_length_another_row():
    by_256, by_128 = (CellKey("alibi", "sliding", 512, stride) for stride in (256, 128))
    found = one(run_of({by_128: text()}), run_of({by_256: text()}))
    assert found.verdict == "not comparable" and "sliding, stride 128" in found.reason
    both = verdicts(run_of({by_128: text(), by_256: text()}), run_of({by_256: text()}))
    assert [each.verdict for each in both] == ["new", "same"]
    assert [each.verdict for each in verdicts(run_of({KEY: text()}), run_of({OTHER: text()}))] == ["new", "missing"]


def test_where_anchored_blocks_lie_depends_on_the_longest_length_and_nothing_else_does():
    anchored = CellKey("alibi", "anchored-256", 512, 2048)
    longer = {"lengths": [512, 16384]}
    assert one(run_of({anchored: text()}, spec=longer), run_of({anchored: text()})).verdict == "not comparable"
    assert one(run_of({KEY: text()}, spec=longer), run_of({KEY: text()})).verdict == "same"


def test_two_tokenizers_that_made_the_same_ids_are_one():
    new, old = run_of({KEY: text()}, tokenizer="a", ids="same"), run_of({KEY: text()}, tokenizer="b", ids="same")
    assert one(new, old).verdict == "same"


def test_two_tokenizers_are_compared_by_bytes_where_that_is_allowed():
    # The same documents of 4096 bytes in 1024 tokens and in 512, blocks and all.
    old = [block(d, b, 1.0 + 0.02 * d) for d in range(12) for b in range(2)]
    new = [block(d, 0, 2.0 * (1.0 + 0.02 * d))._replace(n_bytes=8192) for d in range(12)]
    found = one(run_of({KEY: new}, tokenizer="other"), run_of({KEY: old}), allowed=frozenset({"tokenizer"}))
    assert (found.verdict, found.change) == ("same", pytest.approx(0.0, abs=1e-12))
    assert found.baseline == pytest.approx(loss(old) / 4, rel=1e-12)
    worse = run_of({KEY: worse_by(new, 0.01)}, tokenizer="other")
    assert one(worse, run_of({KEY: old}), allowed=frozenset({"tokenizer"})).verdict == "worse"


def test_the_path_of_the_corpus_does_not_matter_where_the_text_is_the_same():
    assert one(run_of({KEY: text()}, corpus="/ci/text"), run_of({KEY: text()}, corpus="/home/a/text")).verdict == "same"


# Several trainings of one recipe


def trainings(*shares: float, name: str = "alibi"):
    return [
        run_of({KEY._replace(model=name): worse_by(text(), share)}, digests={name: f"training {number}"})
        for number, share in enumerate(shares)
    ]


SHARES = (0.01, -0.01, 0.02, -0.02, 0.0)


def test_another_training_is_judged_by_the_spread_of_the_trainings():
    new = run_of({KEY: worse_by(text(), 0.03)}, digests={"alibi": "a new seed"})
    found = one(new, *trainings(*SHARES))
    spread = float(np.std(SHARES, ddof=1))
    assert (found.verdict, found.method, found.units) == ("same", "trainings-5", 5)
    assert found.change == pytest.approx(0.03, rel=1e-9)
    assert found.stderr == pytest.approx(spread * math.sqrt(1.2), rel=1e-9)
    assert found.allowed == pytest.approx(student(3.0, 4) * spread * math.sqrt(1.2), rel=1e-9)
    assert "within the spread of 5 trainings" in found.reason
    assert found.compared_with == "baseline 0, baseline 1, baseline 2, baseline 3, baseline 4"
    assert one(new, trainings(*SHARES)[4]).verdict == "worse", "one training says nothing of the spread"


def test_a_training_far_outside_the_spread_is_worse():
    new = run_of({KEY: worse_by(text(), 0.2)}, digests={"alibi": "a new seed"})
    found = one(new, *trainings(*SHARES))
    assert found.verdict == "worse" and "outside the spread" in found.reason


def test_trainings_may_be_numbered_models_of_one_baseline():
    cells = {KEY._replace(model=f"alibi@{n}"): worse_by(text(), share) for n, share in enumerate(SHARES)}
    new = run_of({KEY: worse_by(text(), 0.03)}, digests={"alibi": "a new seed"})
    found = one(new, run_of(cells))
    assert (found.verdict, found.method, found.model) == ("same", "trainings-5", "alibi")
    numbered = run_of({KEY._replace(model="alibi@9"): worse_by(text(), 0.03)})
    assert one(numbered, run_of(cells)).method == "trainings-5"
    same_number = run_of({KEY._replace(model="alibi@2"): worse_by(text(), 0.03)}, digests={"alibi@2": "retrained"})
    found = verdicts(same_number, run_of(cells))
    assert found[0].method.startswith("paired-")
    assert [(each.model, each.verdict) for each in found[1:]] == [(f"alibi@{n}", "missing") for n in (0, 1, 3, 4)]
    other = run_of({KEY._replace(model="rope"): text()})
    assert [(each.model, each.verdict) for each in verdicts(other, run_of(cells))] == [
        ("rope", "new"), ("alibi", "missing"),
    ]  # fmt: skip
    assert recipe("alibi@12") == "alibi" and recipe("org/model@main") == "org/model@main"


def test_a_checkpoint_that_is_one_of_the_trainings_is_compared_with_itself():
    new = run_of({KEY: worse_by(text(), 0.013)}, digests={"alibi": "training 0"})
    found = one(new, *trainings(*SHARES))
    assert (found.verdict, found.compared_with) == ("worse", "baseline 0")
    assert found.change == pytest.approx(1.013 / 1.01 - 1, rel=1e-6)


def test_a_checkpoint_that_is_named_twice_is_one_training():
    twice = trainings(0.0)[0]
    found = one(run_of({KEY: text()}, digests={"alibi": "a new seed"}), twice, twice)
    assert found.method.startswith("paired-")


# What is told


def mixed() -> tuple[list[Verdict], Rules]:
    new = run_of({
        KEY: worse_by(text(), 0.0052), OTHER: worse_by(text(), 0.0061), KEY._replace(model="rope"): text(),
        KEY._replace(model="<new> & \x07 'quoted'"): text(), KEY._replace(model="short"): text()[:9],
        KEY._replace(model="good"): worse_by(text(), -0.1),
    })  # fmt: skip
    old = run_of({
        KEY: text(), OTHER: text(), KEY._replace(model="rope"): text(), OTHER._replace(model="rope"): text(),
        KEY._replace(model="short"): text(), KEY._replace(model="good"): text(),
    })  # fmt: skip
    return verdicts(new, old), Rules()


def test_the_sentence_names_each_checkpoint_protocol_and_length():
    found, _ = mixed()
    assert sentence(found, "worse") == "alibi, nonoverlap, at length 512 (+0.52 %), 8192 (+0.61 %)"
    assert sentence(found, "missing") == "rope, nonoverlap, at length 8192"
    assert "short, nonoverlap, at length 512 (only 25 %" in sentence(found, "not comparable")
    assert counts(found) == {
        "worse": 2, "missing": 1, "not comparable": 1, "inconclusive": 0, "better": 1, "new": 1, "same": 1,
    }  # fmt: skip


def test_the_exit_code_is_three_for_worse_or_missing_two_for_not_comparable_and_zero_else():
    found, rules = mixed()

    def code(*kinds, allowed=frozenset()):
        return exit_code([each for each in found if each.verdict in kinds], Rules(allowed=allowed))

    assert exit_code(found, rules) == 3
    assert code("worse") == code("missing") == code("missing", "not comparable") == 3
    assert code("not comparable", "same", "new") == 2
    assert code("same", "new", "better") == 0
    assert code("missing", allowed=frozenset({"missing"})) == 0


def test_the_json_report_is_strict_and_holds_every_number():
    found, rules = mixed()

    def refuse(name):
        raise AssertionError(name)

    read = json.loads(as_json(found, rules, "run", ["released"]), parse_constant=refuse)
    assert (read["exit_code"], read["baselines"], read["counts"]["worse"]) == (3, ["released"], 2)
    assert [row["verdict"] for row in read["rows"]] == [each.verdict for each in found]
    assert read["rows"][0]["change"] == found[0].change
    assert read["rows"][3]["change"] is None
    infinite = json.loads(as_json([found[0]._replace(change=math.inf)], rules, "run", []))
    assert infinite["rows"][0]["change"] == "inf"


@pytest.fixture(scope="module")
def pytests_own(tmp_path_factory: pytest.TempPathFactory) -> ElementTree.Element:
    """A JUnit report that every reader knows: pytest's, with a test of each outcome."""
    folder = tmp_path_factory.mktemp("pytests")
    (folder / "test_each.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef broken(): raise ValueError\n"
        "def test_pass(): print('told')\ndef test_fail(): assert 0\n"
        "def test_error(broken): pass\ndef test_skip(): pytest.skip('why')\n"
    )
    (folder / "empty.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "empty.ini", "--rootdir", "."]
    options = ["-o", "junit_logging=all", "--junitxml=junit.xml", "test_each.py"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 1, done.stdout
    return ElementTree.parse(folder / "junit.xml").getroot()


def _shape(root: ElementTree.Element) -> dict[tuple[str, ...], set[str]]:
    """The attributes of each element, by the path of tags that leads to it."""
    found: dict[tuple[str, ...], set[str]] = {}

    def walk(element: ElementTree.Element, path: tuple[str, ...]) -> None:
        path = (*path, element.tag)
        found.setdefault(path, set()).update(element.attrib)
        for child in element:
            walk(child, path)

    walk(root, ())
    return found


def test_the_junit_report_has_the_elements_and_attributes_of_pytests_own(pytests_own):
    known = _shape(pytests_own)
    # Totals on the root: pytest leaves them out, Jenkins' schema and GitLab know them.
    known["testsuites",] |= {"tests", "failures", "errors", "skipped", "time"}
    for path, attributes in _shape(ElementTree.fromstring(as_junit(*mixed(), "run", ["released"]))).items():
        assert path in known and attributes <= known[path], path
    assert {"name", "tests", "failures", "errors", "skipped", "time"} <= known["testsuites", "testsuite"]
    assert {"classname", "name", "time"} <= known["testsuites", "testsuite", "testcase"]


def test_the_junit_report_counts_failures_errors_and_skipped_rows():
    found, rules = mixed()
    root = ElementTree.fromstring(as_junit(found, rules, "run", ["released"]))
    (suite,) = root
    for element in (root, suite):
        told = {name: element.attrib[name] for name in ("tests", "failures", "errors", "skipped")}
        assert told == {"tests": "7", "failures": "3", "errors": "1", "skipped": "1"}
    messages = [case[0].attrib["message"] for case in suite if case[0].tag == "failure"]
    assert messages[0] == "alibi, nonoverlap at 512: worse: +0.52 %, allowed 0.25 %"
    assert messages[2].startswith("rope, nonoverlap at 8192: missing")
    names = [(case.attrib["classname"], case.attrib["name"]) for case in suite]
    assert len(set(names)) == len(names)
    assert ("python-stdlib.<new> & \ufffd 'quoted'", "nonoverlap at 512") in names


def test_two_rows_of_one_name_stay_two_test_cases():
    found, rules = mixed()
    root = ElementTree.fromstring(as_junit([found[0], found[0]], rules, "run", []))
    assert [case.attrib["name"] for case in root[0]] == ["nonoverlap at 512", "nonoverlap at 512 (2)"]


def test_a_row_that_would_sleep_through_half_a_percent_is_named():
    short = {KEY: text(4, 1)}
    found = verdicts(run_of(short), run_of(short))
    told = notes(Comparison("run", ("released",), Rules(), found))
    assert any("alibi, nonoverlap at 512: a change of 0.50 % may go unseen there" in each for each in told)
    enough = verdicts(run_of({KEY: text(40)}), run_of({KEY: text(40)}))
    assert not any("unseen" in each for each in notes(Comparison("run", ("released",), Rules(), enough)))
