"""Verdicts told: one sentence, a JSON report, a JUnit report, and the exit code they come to.

JUnit has no standard; the report has the elements and attributes that pytest writes (its `xunit2` family, which follows
Jenkins' schema) and that GitLab and the usual GitHub actions read: `worse` and `missing` are failures, `not comparable`
and `inconclusive` are errors, `new` and a missing row that is allowed are skipped, the others pass. A test case is a
row; its numbers are its `system-out`. Neither report holds a time, so the same two runs give the same bytes.

In JSON, a number that is missing is null, and one that is infinite is the string `inf` or `-inf`.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from lpe_eval.report.gate.judge import failing
from lpe_eval.report.gate.rules import EFFECTIVE_LENGTH, GAIN, RECALLED_LENGTH, VERDICTS, Rules, Verdict
from lpe_eval.table import CHE_METRICS

REPORT_SCHEMA = 2
"""Grows by one whenever a field of the JSON report changes its meaning."""

_KINDS = {"not comparable": "error", "inconclusive": "error", "new": "skipped", "missing": "skipped"}
_EFFECTIVE = "effective length"
_CONTROL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold."""


def counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many rows there are of each verdict."""
    found = Counter(each.verdict for each in verdicts)
    return {verdict: found[verdict] for verdict in VERDICTS}


def exit_code(verdicts: Sequence[Verdict], rules: Rules) -> int:
    """3 where a row is worse or missing, 2 not comparable, 5 inconclusive, else 0; the first that applies."""
    if failing(verdicts, rules):
        return 3
    found = {each.verdict for each in verdicts}
    return 2 if "not comparable" in found else 5 if "inconclusive" in found else 0


def sentence(verdicts: Sequence[Verdict], verdict: str) -> str:
    """Where a verdict was given: checkpoint, protocol and lengths, with the reason or the change of each."""
    places: dict[tuple[str, str], list[str]] = {}
    lengths: list[str] = []
    for each in verdicts:
        if each.verdict == verdict:
            # What every row would repeat is left out: that a missing row is not there.
            why = "" if verdict == "missing" else f" ({_why(each)})"
            if each.metric == EFFECTIVE_LENGTH:
                lengths.append(f"{each.model}, {place(each)}{why}")
            else:
                places.setdefault((each.model, protocol(each)), []).append(f"{each.length}{why}")
    rows = [f"{model}, {name}, at length {', '.join(at)}" for (model, name), at in places.items()]
    return "; ".join([*rows, *lengths])


def _why(verdict: Verdict) -> str:
    why = percent(verdict.change) if math.isfinite(verdict.allowed) else verdict.reason
    if verdict.document:
        why += f"; {verdict.document} {percent(verdict.document_change)}"
    return why


def reason(verdict: Verdict) -> str:
    """Why a row got its verdict, where that is not its own change alone; else ""."""
    if not verdict.document:
        return verdict.reason
    grew, allowed = percent(verdict.document_change), percent(verdict.document_allowed, "")
    return f"{verdict.document} {grew}, where the other documents allow {allowed}"


def remedy(verdicts: Sequence[Verdict]) -> str:
    """What decides the inconclusive ones of these: how much more text, or how many strings or trainings."""
    needed: dict[str, int] = {}
    for each in verdicts:
        if each.verdict == "inconclusive":
            kind = (
                "trainings in the baseline"
                if each.method.startswith("trainings")
                else "strings (--samples)"
                if each.metric in CHE_METRICS
                else "prompts (--prompts, or pieces with --repeat-tokens)"
                if each.metric in (GAIN, RECALLED_LENGTH)
                else "tokens of text (--max-tokens)"
            )
            needed[kind] = max(needed.get(kind, 0), each.needed)
    return " and ".join(f"about {count:,} {kind}" for kind, count in needed.items())


def protocol(verdict: Verdict) -> str:
    """The protocol of a row, with the stride where that is neither the length nor, sliding, half of it.

    Of an algorithmic problem it is the problem.
    """
    if verdict.metric in CHE_METRICS:
        return verdict.task
    if verdict.metric == RECALLED_LENGTH:
        return f"effective length of {verdict.protocol}"
    usual = verdict.length // 2 if verdict.protocol == "sliding" else verdict.length
    if verdict.stride in (None, verdict.length, usual):
        return verdict.protocol
    return f"{verdict.protocol} by {verdict.stride}"


def place(verdict: Verdict, before_length: str = "") -> str:
    """The protocol and the length of a row, or the problem and the length, or that it is an effective length.

    Args:
        verdict: of the row.
        before_length: what stands between the two.
    """
    if verdict.metric == EFFECTIVE_LENGTH:
        return f"{protocol(verdict)}, {_EFFECTIVE}"
    return f"{protocol(verdict)} {before_length}{verdict.length}"


def percent(share: float, sign: str = "+") -> str:
    """A share as it is read by people: +0.52 %."""
    return "-" if math.isnan(share) else f"{100 * share:{sign}.2f} %"


def as_json(verdicts: Sequence[Verdict], rules: Rules, run: str, baselines: Sequence[str]) -> bytes:
    """The JSON report."""
    content = {
        "schema": REPORT_SCHEMA,
        "run": run,
        "baselines": list(baselines),
        "rules": {
            "tolerance": rules.tolerance,
            "sigmas": rules.sigmas,
            "allowed": sorted(rules.allowed),
            "detectable": rules.detectable,
        },
        "exit_code": exit_code(verdicts, rules),
        "counts": counts(verdicts),
        "rows": [{name: _plain(value) for name, value in each._asdict().items()} for each in verdicts],
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    # What stands for a byte that is not UTF-8 becomes JSON's own escape for it.
    return f"{text}\n".encode("utf-8", "backslashreplace")


def as_junit(verdicts: Sequence[Verdict], rules: Rules, run: str, baselines: Sequence[str]) -> bytes:
    """The JUnit report."""
    failed = {id(each) for each in failing(verdicts, rules)}
    cases = [_case(each, id(each) in failed) for each in verdicts]
    numbers = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    totals = {name: str(number) for name, number in numbers.items()} | {"time": "0"}
    root = ElementTree.Element("testsuites", {"name": "lpe-eval compare", **totals})
    name = f"{run} against {', '.join(baselines)}"
    suite = ElementTree.SubElement(root, "testsuite", {"name": _clean(name), **totals})
    seen: Counter[tuple[str, str]] = Counter()
    for case in cases:
        key = case.attrib["classname"], case.attrib["name"]
        seen[key] += 1
        if seen[key] > 1:
            # Readers keep one of two cases of the same name.
            case.attrib["name"] += f" ({seen[key]})"
        suite.append(case)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _case(verdict: Verdict, fails: bool) -> ElementTree.Element:
    name = place(verdict, "at ")
    attributes = {"classname": f"{verdict.task}.{verdict.model}", "name": name, "time": "0"}
    case = ElementTree.Element("testcase", {key: _clean(value) for key, value in attributes.items()})
    numbers = _numbers(verdict)
    why = reason(verdict) or f"{percent(verdict.change)}, allowed {percent(verdict.allowed, '')}"
    kind = "failure" if fails else _KINDS.get(verdict.verdict)
    if kind is not None:
        message = _clean(f"{verdict.model}, {name}: {verdict.verdict}: {why}")
        ElementTree.SubElement(case, kind, {"message": message}).text = _clean(numbers)
    else:
        ElementTree.SubElement(case, "system-out").text = _clean(f"{verdict.verdict}: {why}\n{numbers}")
    return case


def _numbers(verdict: Verdict) -> str:
    return "\n".join(f"{name}: {value}" for name, value in verdict._asdict().items() if value not in ("", None))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def _clean(text: str) -> str:
    return _CONTROL.sub("�", text)
