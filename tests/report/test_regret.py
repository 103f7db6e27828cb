"""Regret and shares of the gain, from sums whose answers are known without resampling."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from lpe_eval import table
from lpe_eval.report.numbers.regret import Sums, optimum_rows
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.report.tables.regret import regret_tables
from lpe_eval.table import BlockSum, CellKey, Facts, Measurement

FACTS = Facts("alibi", 64, "custom", 0, "urn", "test", 0, "float32", "cpu")
BEST = Facts("optimum", None, "custom", 0, "urn", "test", 0, "float64", "cpu")
LENGTHS = (32, 64, 256)
DOCUMENTS = 12
_DRAW = np.random.default_rng(0)
_EASE, _GAIN = _DRAW.uniform(3, 5, DOCUMENTS), _DRAW.uniform(0.1, 0.4, DOCUMENTS)
OPTIMUM = {length: _EASE - _GAIN * math.log2(length) for length in LENGTHS}
"""Nats per token of each document for the best guess."""


def cell(model: str, length: int, nats: np.ndarray, facts: Facts = FACTS, **other: object) -> tuple[CellKey, Sums]:
    counts = [100 + 7 * number for number in range(len(nats))]
    blocks = tuple(
        BlockSum(f"test/{number}", f"digest {number}", 0, float(each * count), count, count, 0)
        for number, (each, count) in enumerate(zip(nats, counts, strict=True))
    )
    key = CellKey(model, "anchored-16", length, 64)
    made = Measurement(key, facts, "", blocks, (), None, **other)
    return key, Sums(summarise(made, "r", 0)[0], blocks)


def rows_of(
    nats: Mapping[int, np.ndarray], facts: Facts = FACTS, lengths: tuple[int, ...] = LENGTHS
) -> dict[tuple[int, str], dict]:
    cells = dict(cell("optimum", length, OPTIMUM[length], BEST) for length in lengths)
    cells |= dict(cell("model", length, nats[length], facts) for length in lengths)
    found = optimum_rows(cells, cells, {})
    assert not any(key.model == "optimum" for key in found)
    return {(key.length, row["metric"]): row for key, rows in found.items() for row in rows}


def test_a_model_that_always_loses_the_same_has_that_regret_and_takes_the_whole_gain() -> None:
    found = rows_of({length: OPTIMUM[length] + 0.25 for length in LENGTHS})
    for length in LENGTHS:
        row = found[length, "regret_nats"]
        assert row["value"] == pytest.approx(0.25, abs=1e-12)
        assert row["stderr"] < 1e-12, "what a document is like cancels"
        assert row["unit"] == "nats/token"
        assert list(row) == [column.name for column in table.ROWS]
    share = found[256, "gain_share"]
    assert share["value"] == pytest.approx(1, abs=1e-12)
    assert share["stderr"] < 1e-12
    assert share["note"] == "of the gain from 64 tokens", "the length of its training"
    assert set(found) == {(length, "regret_nats") for length in LENGTHS} | {(256, "gain_share")}


def test_a_model_that_takes_two_thirds_of_every_gain_has_that_share() -> None:
    nats = {length: 1.0 + 2 / 3 * OPTIMUM[length] for length in LENGTHS}
    share = rows_of(nats)[256, "gain_share"]
    assert share["value"] == pytest.approx(2 / 3, abs=1e-12)
    assert share["stderr"] < 1e-12
    assert rows_of(dict.fromkeys(LENGTHS, OPTIMUM[64]))[256, "gain_share"]["value"] == pytest.approx(0)


def test_the_shortest_length_is_the_basis_where_that_of_training_is_not_measured() -> None:
    facts = Facts("alibi", 512, "custom", 0, "urn", "test", 0, "float32", "cpu")
    found = rows_of(OPTIMUM, facts)
    assert {length for length, metric in found if metric == "gain_share"} == {64, 256}
    assert found[64, "gain_share"]["note"] == "of the gain from 32 tokens"


def test_the_interval_covers_the_share_of_a_whole_population() -> None:
    covered = 0
    for trial in range(200):
        draw = np.random.default_rng(trial)
        before = draw.uniform(2, 3, DOCUMENTS)
        gain = draw.uniform(0.1, 0.9, DOCUMENTS)
        taken = gain * draw.uniform(0, 1, DOCUMENTS)
        cells = dict([cell("optimum", 64, before, BEST), cell("optimum", 256, before - gain, BEST)])
        cells |= dict([cell("model", 64, before + 1), cell("model", 256, before + 1 - taken)])
        row = optimum_rows(cells, cells, {})[CellKey("model", "anchored-16", 256, 64)][1]
        covered += row["ci_low"] <= 0.5 <= row["ci_high"]
    assert 180 <= covered <= 199, "95 % of samples of twelve documents, give or take"


def test_where_there_is_no_value_the_rows_say_why() -> None:
    cells = dict(cell("optimum", length, OPTIMUM[length], BEST) for length in LENGTHS)
    cells |= dict([cell("model", 64, OPTIMUM[64])])
    cells |= dict([cell("model", 256, OPTIMUM[256][:0], status="n/a", note="it has no positions")])
    found = optimum_rows(cells, cells, {})[CellKey("model", "anchored-16", 256, 64)]
    assert [(row["metric"], row["status"], row["note"]) for row in found] == [
        ("regret_nats", "n/a", "it has no positions"), ("gain_share", "n/a", "it has no positions"),
    ]  # fmt: skip
    assert all(math.isnan(row["value"]) for row in found)
    flat = dict(cell("optimum", length, OPTIMUM[64], BEST) for length in (64, 256))
    flat |= dict(cell("model", length, OPTIMUM[64]) for length in (64, 256))
    row = optimum_rows(flat, flat, {})[CellKey("model", "anchored-16", 256, 64)][1]
    assert (row["status"], row["note"]) == ("n/a", "of the gain from 64 tokens; the best possible guess gains nothing")


def test_a_model_that_scored_other_targets_has_no_regret() -> None:
    cells = dict([cell("optimum", 64, OPTIMUM[64], BEST), cell("model", 64, OPTIMUM[64][:-1])])
    assert optimum_rows(cells, cells, {}) == {}
    cells = dict([cell("model", 64, OPTIMUM[64])])
    assert optimum_rows(cells, cells, {}) == {}, "ordinary text"


def test_the_tables_say_from_where_a_gain_is_reckoned_and_what_is_best() -> None:
    found = rows_of({length: OPTIMUM[length] + 0.25 for length in LENGTHS})
    better = [{**row, "model": "better", "value": row["value"] + 0.5} for row in found.values()]
    regret, share = regret_tables([*found.values(), *better])
    assert regret.title == "regret" and share.title == "share"
    best = {table.title: [row[0] for row in table.rows if getattr(row[-1], "best", False)] for table in (regret, share)}
    assert best == {"regret": ["model"], "share": ["better"]}
    assert "from 64 tokens: 1 is all of it" in share.below[0]
    other = [{**row, "model": "other", "note": "of the gain from 32 tokens"} for row in found.values()]
    assert "from 64 tokens (model), 32 tokens (other):" in regret_tables([*found.values(), *other])[1].below[0]
    assert regret_tables([{**row, "metric": "perplexity"} for row in found.values()]) == []
