"""Which row answers for which: no numbered model may vanish unseen, and a new training is still compared with all."""

import itertools

import pytest

from lpe_eval.report.gate.joining import Judged, judged_rows
from lpe_eval.report.gate.judge import Rules, judge
from lpe_eval.report.gate.verdicts import exit_code
from tests.support.gate_rows import of_text
from tests.support.gate_runs import KEY, run_of, text

Found = list[tuple[str, str, str]]


def found(
    run: list[str], *baselines: list[str], statuses: dict[str, str] | None = None, rules: Rules | None = None
) -> Found:
    """Model, verdict and baselines of each row, where every model has the same losses and a checkpoint of its own."""

    said = statuses or {}

    def read(names: list[str], source: str, kind: str) -> list[Judged]:
        return [of_text(text(1, 1), name, source, f"{kind} {name}", said.get(name, "ok")) for name in names]

    old = [judged for number, names in enumerate(baselines) for judged in read(names, "ABC"[number], f"old {number}")]
    verdicts = judge(read(run, "run", "new"), old, rules or Rules())
    return [(each.model, each.verdict, each.compared_with) for each in verdicts]


def code(rows: Found) -> int:
    """Whether the rows of `found` would pass."""
    return 3 if {"missing", "worse"} & {verdict for _, verdict, _ in rows} else 0


CASES = {
    # A named training answers for itself alone, in one file or in several.
    "one of two": (["mine@1"], [["mine@1", "mine@2"]], ["same", "missing mine@2"]),
    "the other": (["mine@2"], [["mine@1", "mine@2"]], ["same", "missing mine@1"]),
    "one of two files": (["mine@1"], [["mine@1"], ["mine@2"]], ["same", "missing mine@2"]),
    "two of three": (["a@1", "a@3"], [["a@1", "a@2", "a@3"]], ["same", "same", "missing a@2"]),
    "all": (["mine@2", "mine@1"], [["mine@1", "mine@2"]], ["same", "same"]),
    # The same name with and without a number are two models of one file.
    "the numbered one is gone": (["llama"], [["llama", "llama@2"]], ["same", "missing llama@2"]),
    "the plain one is gone": (["llama@2"], [["llama", "llama@2"]], ["same", "missing llama"]),
    "the only one is gone": (["rope"], [["llama@2"]], ["new", "missing llama@2"]),
    "both are gone": (["rope"], [["llama@1", "llama@2"]], ["new", "missing llama"]),
    # A new training answers for all that it is compared with.
    "by the recipe": (["mine"], [["mine@1", "mine@2"]], ["same"]),
    "by a new number": (["mine@9"], [["mine@1", "mine@2"]], ["same"]),
    "by the recipe, of two files": (["mine"], [["mine@1"], ["mine@2"]], ["same"]),
    "files of one name": (["mine"], [["mine"], ["mine"], ["mine"]], ["same"]),
    "numbered and plain files": (["mine"], [["mine@1", "mine@2"], ["mine"]], ["same"]),
    "a plain file and a numbered one": (["mine"], [["mine"], ["mine@2"]], ["same"]),
    "one named and one new": (["mine@1", "mine@9"], [["mine@1", "mine@2"]], ["same", "same"]),
    "two new ones": (["mine@8", "mine@9"], [["mine@1", "mine@2"]], ["same", "same"]),
    "renamed": (["theirs@1"], [["mine@1"]], ["new", "missing mine@1"]),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_who_is_missing(case):
    run, baselines, wanted = CASES[case]
    rows = found(run, *baselines)
    told = [verdict if verdict != "missing" else f"missing {model}" for model, verdict, _ in rows]
    assert told == wanted
    assert code(rows) == (3 if any("missing" in each for each in wanted) else 0)


@pytest.mark.parametrize("status", ["n/a", "failed", "error"])
def test_a_row_without_a_value_is_there_all_the_same(status):
    rows = found(["mine@1", "mine@2"], ["mine@1", "mine@2"], statuses={"mine@2": status})
    assert "missing" not in {verdict for _, verdict, _ in rows} and len(rows) == 2


def test_a_new_training_is_compared_with_every_training_and_a_named_one_with_its_own():
    assert found(["mine"], ["mine@1", "mine@2"], ["mine@3"]) == [("mine", "same", "A, B")]
    assert found(["mine@1"], ["mine@1"], ["mine@1"]) == [("mine@1", "same", "A, B")]
    assert found(["mine@1", "mine@2"], ["mine@1"], ["mine@2"]) == [("mine@1", "same", "A"), ("mine@2", "same", "B")]


def test_brute_force_every_model_of_a_baseline_that_no_row_may_stand_for_is_missing():
    """The rule as it is written in docs/gate.md, model by model, beside what the gate finds."""
    names = ["m", "m@1", "m@2", "m@3"]
    subsets = [list(each) for size in (1, 2) for each in itertools.combinations(names, size)]
    for run, first, second in itertools.product(subsets, subsets, [[], ["m"], ["m@2"]]):
        files = [each for each in (first, second) if each]

        def answers(new: str, old: str, file: list[str], files: list[list[str]] = files) -> bool:
            if new == old:
                return True
            held = {name for each in files for name in each} if "@" in new else set(file)
            return new not in held

        lacks = {old for file in files for old in file if not any(answers(new, old, file) for new in run)}
        told = {model for model, verdict, _ in found(run, *files) if verdict == "missing"}
        everything = {name for file in files for name in file}
        assert told == lacks or (lacks == everything and told == {"m"}), (run, files)


def test_a_missing_training_may_be_allowed():
    rows = judge([], judged_rows(run_of({KEY: text()}), "A"), Rules())
    assert exit_code(rows, Rules()) == 3
    assert exit_code(rows, Rules(allowed=frozenset({"missing"}))) == 0


def test_two_models_with_the_weights_of_one_are_not_the_baseline_of_both():
    # The second of the run holds the weights of the first: each is compared under its own name.
    one, two = KEY._replace(model="m@1"), KEY._replace(model="m@2")
    harder = [each._replace(nll_nats=1.2 * each.nll_nats) for each in text(24)]
    old = run_of({one: harder, two: text(24)}, digests={"m@1": "a", "m@2": "b"})
    new = run_of({one: harder, two: harder}, digests={"m@1": "a", "m@2": "a"})
    assert [each.verdict for each in judge(judged_rows(new, "run"), judged_rows(old, "A"), Rules())] == [
        "same",
        "worse",
    ]
