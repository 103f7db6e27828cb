"""The study of claims: its arithmetic against closed forms, and its page against what it stores."""

import math
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import yaml

from tests.support.script import loaded

STUDY = Path(__file__).parents[2] / "results" / "studies" / "claims"


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    return loaded(STUDY / "claims.py")


def blocks(losses: dict[tuple[str, int, int], list[float]]) -> pd.DataFrame:
    """Sums of blocks of 1000 bytes from nats a byte, by model, seed and length."""
    rows = [
        {
            "setting": "books-128", "model": model, "seed": seed, "protocol": "nonoverlap", "length": length,
            "digest": "text", "block": block, "nll_nats": 1000 * value, "n_tokens": 1000,
        }
        for (model, seed, length), values in losses.items()
        for block, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_three_seeds_give_students_interval_over_their_differences(claims: ModuleType):
    losses = {("good", seed, 512): [1.0, 2.0, 3.0] for seed in (1, 2, 3)}
    losses |= {
        ("bad", seed, 512): [1.0 + more, 2.0 + more, 3.0 + more] for seed, more in ((1, 0.2), (2, 0.3), (3, 0.4))
    }
    found = claims.Losses(blocks(losses), "books-128")
    difference, half, seeds = found.difference(claims.Side("good", 4), claims.Side("bad", 4), "nonoverlap")
    # Every block differs by as much, so the text adds nothing.
    assert difference == pytest.approx(-0.3)
    assert half == pytest.approx(4.303 * 0.1 / math.sqrt(3))
    assert seeds == 3


def test_one_seed_has_the_spread_of_the_models_that_have_three(claims: ModuleType):
    losses = {(name, seed, 512): [value] * 3 for name in "ab" for seed, value in ((1, 1.0), (2, 1.1), (3, 1.2))}
    losses |= {("one", 1, 512): [2.0] * 3, ("other", 1, 512): [2.5] * 3}
    found = claims.Losses(blocks(losses), "books-128")
    difference, half, seeds = found.difference(claims.Side("one", 4), claims.Side("other", 4), "nonoverlap")
    # Two models with a standard deviation of 0.1: four degrees of freedom, and a difference has twice the variance.
    assert (difference, seeds) == (pytest.approx(-0.5), 1)
    assert half == pytest.approx(2.776 * 0.1 * math.sqrt(2))


def test_the_text_adds_to_the_interval(claims: ModuleType):
    losses = {("good", seed, 512): [1.0, 2.0, 3.0] for seed in (1, 2, 3)}
    losses |= {("bad", seed, 512): [1.1, 2.5, 3.3] for seed in (1, 2, 3)}
    found = claims.Losses(blocks(losses), "books-128")
    difference, half, _ = found.difference(claims.Side("good", 4), claims.Side("bad", 4), "nonoverlap")
    assert difference == pytest.approx(-0.3)
    # Seeds agree; three blocks of -0.1, -0.5 and -0.3 have a standard error of 0.2 / sqrt(3).
    assert half == pytest.approx(1.96 * 0.2 / math.sqrt(3), rel=0.08)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (["for", "for"], "reproduced"),
        (["for", "open"], "reproduced in part"),
        (["for", "against"], "reproduced in part"),
        (["open", "against"], "contradicted"),
        (["open", "open"], "not at this scale"),
        ([], "not measured"),
    ],
)
def test_a_verdict_follows_from_what_the_comparisons_say(claims: ModuleType, says: list[str], expected: str):
    side = claims.Side("a", 1)
    assert claims.verdict([claims.Found("books-128", side, side, 0.0, 0.0, 1, each) for each in says]) == expected


def test_a_level_claim_has_room_for_its_margin(claims: ModuleType):
    losses = {("a", seed, 512): [1.005] * 3 for seed in (1, 2, 3)} | {("b", s, 512): [1.0] * 3 for s in (1, 2, 3)}
    found = claims.Losses(blocks(losses), "books-128")
    claim = {"claim": "level", "pairs": [["a", "b"]], "at": [4]}
    assert [each.says for each in claims.judged(claim, found)] == ["against"]
    assert [each.says for each in claims.judged(claim | {"margin": 0.01}, found)] == ["for"]


def test_the_page_and_the_table_are_what_the_stored_sums_say(claims: ModuleType):
    judged = yaml.safe_load((STUDY / "claims.yaml").read_text(encoding="utf-8"))
    table = pd.read_parquet(claims.BLOCKS)
    rows = claims.records(judged, table)
    stored = pd.read_csv(STUDY / "claims.csv")
    pd.testing.assert_frame_equal(rows.reset_index(drop=True), stored, check_dtype=False, atol=1e-6, rtol=0)
    page = (STUDY / "README.md").read_text(encoding="utf-8")
    assert claims.claim_table(judged, rows) in page
    assert claims.comparison_tables(judged, rows).strip() in page
    for setting in claims.SETTINGS:
        assert claims.loss_table(table, setting, "nonoverlap") in page
    assert set(rows["claim"]) == {each["claim"] for each in judged}
