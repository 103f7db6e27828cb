"""Verdicts on runs made of plain sums, for the tests of the gate."""

from lpe_eval.report.gate.joining import judged_rows
from lpe_eval.report.gate.judge import Rules, Verdict, judge
from tests.support.gate_runs import KEY

OTHER = KEY._replace(length=8192, stride=8192)


def verdicts(new, *old, rules: Rules | None = None) -> list[Verdict]:
    references = [judged for number, run in enumerate(old) for judged in judged_rows(run, f"baseline {number}")]
    return judge(judged_rows(new, "to judge"), references, rules or Rules())


def one(new, *old, **rules) -> Verdict:
    (found,) = verdicts(new, *old, rules=Rules(**rules))
    return found
