"""Differences inside one run: each model beside another one, or each length beside another one, on the same text.

Both sides are resampled together, so what makes a document easy or hard for both cancels, and a difference is far more
certain than either value; `report/numbers/statistics.py` derives it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.kind import open_folder
from lpe_eval.report.numbers.statistics import paired_difference
from lpe_eval.report.tables.places import Place, places_table, signed
from lpe_eval.screen import Table
from lpe_eval.table import CHE_METRICS


class _Rule(NamedTuple):
    """Beside what each row is set."""

    model: str | None
    length: int | None

    @property
    def title(self) -> str:
        if self.model is not None:
            return f"each model minus {self.model}"
        return f"each length minus {self.length}"


def differences(folder: Path, model: str | None, length: int | None) -> list[Table]:
    """A table of differences for each metric of a run.

    Args:
        folder: of the run.
        model: what every other model is set beside, at the same place.
        length: what every other length is set beside, of the same model.

    Raises:
        SpecError: not exactly one of both is given, the run has no such length, or its kind is never compared.
        UnknownName: the run has no such model.
        OutputError: the run cannot be read.
    """
    if (model is None) == (length is None):
        raise SpecError("say what to set the others beside: --against MODEL or --against-length LENGTH, one of the two")
    found = open_folder(folder)
    judged = found.kind.judged_rows(found, str(folder))
    models = list(dict.fromkeys(str(each.row["model"]) for each in judged))
    lengths = sorted({int(each.row["length"]) for each in judged})
    if model is not None and model not in models:
        raise UnknownName(f"model of {folder}", model, models)
    if length is not None and length not in lengths:
        raise SpecError(f"{folder} has no length {length}; it has {', '.join(map(str, lengths))}")
    if len(models if model is not None else lengths) < 2:
        what = "model" if model is not None else "length"
        raise SpecError(f"{folder} has one {what}, and nothing to set beside it")
    metrics = dict.fromkeys(str(each.row["metric"]) for each in judged)
    return [
        _table([each for each in judged if each.row["metric"] == metric], metric, _Rule(model, length))
        for metric in metrics
    ]


def _table(judged: Sequence[Judged], metric: str, rule: _Rule) -> Table:
    at = {_key(each): each for each in judged if each.row["status"] == "ok"}
    groups = list(dict.fromkeys(_group(each.row) for each in judged))
    cells: dict[tuple[str, Place], str] = {}
    shares: list[float] = []
    methods: set[str] = set()
    for (name, group, length), each in at.items():
        other = at.get((rule.model or name, group, rule.length or length))
        if other is None or other is each:
            continue
        place = Place(group if len(groups) > 1 else "", length)
        if _other_tokens(each, other):
            cells[name, place] = "other tokens"
            continue
        paired = paired_difference(each.blocks, other.blocks)
        shares.append(paired.share)
        methods |= {paired.ci_method} - {"none"}
        if math.isnan(paired.difference):
            cells[name, place] = "no common text"
        else:
            cells[name, place] = signed(paired.difference, None if math.isnan(paired.stderr) else paired.stderr)
    return places_table(f"{rule.title}: {metric}", cells, _below(metric, groups, shares, methods))


def _below(metric: str, groups: Sequence[str], shares: Sequence[float], methods: set[str]) -> list[str]:
    unit = "shares of right answers" if metric in CHE_METRICS else "nats a token" if metric == "nll_nats" else metric
    of = "" if len(groups) > 1 else f"; {groups[0]}" if groups else ""
    told = f"differences in {unit}, paired{of}"
    if methods:
        told += f"; ± is one standard error ({', '.join(sorted(methods))})"
    least = min(shares, default=1.0)
    return [
        told,
        *([f"at least {math.floor(1000 * least) / 10:g} % of what each scored is common"] if least < 1 else []),
    ]


def _key(judged: Judged) -> tuple[str, str, int]:
    return str(judged.row["model"]), _group(judged.row), int(judged.row["length"])


def _group(row: Mapping[str, Any]) -> str:
    """The protocol of text, or the problem; a stride that does not follow from the length is named."""
    if row["metric"] in CHE_METRICS:
        return str(row["task"])
    protocol, stride, length = str(row.get("protocol") or ""), row.get("stride"), int(row["length"])
    usual = stride is None or int(stride) in (length, max(1, length // 2)) or not protocol.startswith("sliding")
    return protocol if usual else f"{protocol} {stride}"


def _other_tokens(one: Judged, other: Judged) -> bool:
    same_ids = one.ids is not None and one.ids == other.ids
    return one.settings["tokenizer"] != other.settings["tokenizer"] and not same_ids
