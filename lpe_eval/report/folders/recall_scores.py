"""What a run of recall says of each model and test as a whole: scores by item and length, and the effective length."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpe_eval import table
from lpe_eval.report.folders.items import BY_ITEM, item_columns
from lpe_eval.report.folders.recall import RECALL_KEYS
from lpe_eval.report.frames import read_parquet, records
from lpe_eval.report.numbers.recall_length import Effective, Rule, Scores, effective_length


class Recalled(NamedTuple):
    """A model on a test, at all lengths.

    Attributes:
        first: one of its rows, for what they all say.
        scores: by item and length; of `repeat` a length is the distance.
        names: of the items, in the order of `scores`.
        digests: of the items at each length, "" where one was not asked.
        effective: how far the model recalls.
        status, note: `failed` where a length has no value by accident, `n/a` where no length has one.
    """

    first: Mapping[str, Any]
    scores: Scores
    names: Sequence[str]
    digests: Sequence[Sequence[str]]
    effective: Effective
    rule: Rule
    status: str
    note: str


def rule_of(spec: Mapping[str, Any]) -> Rule:
    """The rule that a run asked for."""
    least = spec.get("least")
    return Rule(float(spec.get("share", Rule().share)), None if least is None else float(least))


def score_of(rule: Rule) -> str:
    """The metric that a rule is about."""
    return "gain_nats" if rule.least is None else "accuracy"


def recalled(folder: Path, rows: Sequence[Mapping[str, Any]], spec: Mapping[str, Any]) -> list[Recalled]:
    """Every model on every test, in the order of the rows.

    Args:
        folder: of the run.
        rows: of its table, missing values None.
        spec: as stored.

    Raises:
        OutputError: the table of items is missing or damaged.
    """
    rule = rule_of(spec)
    metric = score_of(rule)
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        # The rows of single depths are parts of the one of all depths.
        if row["metric"] in (metric, "") and row["depth"] is None:
            found.setdefault((row["model"], row["task"]), []).append(row)
    items: dict[tuple, list[tuple[str, str, float, int]]] = {}
    for each in records(read_parquet(folder / BY_ITEM, item_columns(RECALL_KEYS))):
        if each["metric"] == metric and each["depth"] is None:
            total = math.nan if each["total"] is None else float(each["total"])
            key = (each["model"], each["task"], each["length"])
            items.setdefault(key, []).append((each["item"], each["digest"], total, each["count"]))
    return [
        _recalled(sorted(own, key=lambda row: row["length"]), items, rule, int(spec.get("seed", 0)))
        for own in found.values()
    ]


def _recalled(
    rows: Sequence[Mapping[str, Any]],
    items: Mapping[tuple, Sequence[tuple[str, str, float, int]]],
    rule: Rule,
    seed: int,
) -> Recalled:
    lengths = tuple(int(row["distance"] or row["length"]) for row in rows)
    asked = [items.get((row["model"], row["task"], row["length"]), []) for row in rows]
    names = sorted({item for each in asked for item, *_ in each})
    place = {name: number for number, name in enumerate(names)}
    totals, counts = np.zeros((len(names), len(rows))), np.zeros((len(names), len(rows)))
    digests = [["" for _ in rows] for _ in names]
    for column, each in enumerate(asked):
        for item, digest, total, count in each:
            totals[place[item], column] += total
            counts[place[item], column] += count
            digests[place[item]][column] = digest
    scores = Scores(totals, counts, lengths)
    noun = "pieces" if rows[0]["distance"] is not None else "prompts"
    failed = next((row for row in rows if row["status"] == "failed"), None)
    valued = [row for row in rows if row["status"] in ("ok", "error")]
    status, note = "ok", ""
    if failed is not None:
        status, note = "failed", f"at {failed['length']}: {failed['note']}"
    elif not valued:
        status, note = "n/a", str(rows[0]["note"])
    effective = effective_length(scores, rule, noun, seed) if status == "ok" else Effective(0)
    return Recalled(rows[0], scores, names, digests, effective, rule, status, note)


def effective_records(found: Iterable[Recalled]) -> list[list[Any]]:
    """The lines of `effective_length.csv`."""
    lines = []
    for each in found:
        known = each.status == "ok"
        effective = each.effective
        lines.append([
            each.first["run"], each.first["model"], each.first["task"], each.first["task_version"], "recalled_length",
            float(effective.value) if known else math.nan, effective.low, effective.high, effective.method, "tokens",
            len(each.names), str(each.rule), each.scores.lengths[-1], each.status, each.note, table.SCHEMA,
        ])  # fmt: skip
    return lines
