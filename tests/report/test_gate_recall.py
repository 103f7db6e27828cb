"""Recall in the gate: gains in parts of what is recalled from near, and effective lengths with what is chance."""

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.report.folders.recall import RECALL_KEYS
from lpe_eval.report.gate.effective import CHANCE, PERHAPS, judged_lengths
from lpe_eval.report.gate.item_rows import part_of
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.gate.judge import judge
from lpe_eval.report.gate.rules import GAIN, RECALLED_LENGTH, Rules, Verdict
from lpe_eval.report.numbers.recall_length import Rule
from lpe_eval.table import BlockSum
from tests.support.own_recallers import FILE

LENGTHS = (64, 128, 256, 512)
SETTINGS = {"task": "needle, version 1", "protocol": "", "tokenizer": "bytes", "dtype": "float32", "seed": "0"}
PLAIN = Verdict("mine", "needle", "needle", 512, None, RECALLED_LENGTH, "same")


def length_row(gains: np.ndarray, checkpoint: str = "one") -> Judged:
    """The row of an effective length from gains [p, l]."""
    blocks = [
        BlockSum(f"prompt-{at}", f"{at}/{place}", place, float(gain), 1, 0, 0)
        for at, row in enumerate(gains)
        for place, gain in enumerate(row)
    ]
    row = {"model": "mine", "task": "needle", "protocol": "needle", "length": 512, "stride": None, "status": "ok",
           "note": "", "metric": RECALLED_LENGTH, "value": 0.0, "lengths": LENGTHS, "rule": Rule()}  # fmt: skip
    return Judged(row, blocks, SETTINGS, None, checkpoint, "somewhere", direction=-1.0, part="needle")


def gain_row(gains: np.ndarray, scale: float = 1.0, checkpoint: str = "one") -> Judged:
    """The row of gains [p] at one length."""
    blocks = [BlockSum(f"prompt-{at}", f"{at}", 0, float(gain), 1, 0, 0) for at, gain in enumerate(gains)]
    row = {"model": "mine", "task": "needle", "protocol": "needle", "length": 512, "stride": None, "status": "ok",
           "note": "", "metric": GAIN, "value": float(gains.mean())}  # fmt: skip
    return Judged(row, blocks, SETTINGS, None, checkpoint, "somewhere", direction=-1.0, part="needle", scale=scale)


def verdict(new: Judged, old: Judged) -> Verdict:
    (found,) = judge([new], [old], Rules())
    return found


def window(gains: np.ndarray, longest: int) -> np.ndarray:
    """The same gains, and nothing beyond a length."""
    return np.where(np.array(LENGTHS) <= longest, gains, 0.0)


@pytest.fixture
def gains() -> np.ndarray:
    return 2.0 + 0.3 * np.random.default_rng(0).standard_normal((12, 4))


def test_the_same_gains_are_the_same_and_a_cut_window_is_worse(gains: np.ndarray):
    same = verdict(length_row(gains), length_row(gains))
    assert (same.verdict, same.baseline, same.value, same.change) == ("same", 512, 512, 0)
    cut = verdict(length_row(window(gains, 128), "two"), length_row(gains))
    assert (cut.verdict, cut.value, cut.change) == ("worse", 128, -0.75)
    assert cut.reason == "shorter than 512 by 384; in 0 % of resamples it is not"
    back = verdict(length_row(gains), length_row(window(gains, 128), "two"))
    assert back.verdict == "better" and back.change == 3.0
    none = verdict(length_row(gains * 0.0, "two"), length_row(gains))
    assert (none.verdict, none.value) == ("worse", 0)
    assert math.isinf(verdict(length_row(gains, "two"), length_row(gains * 0.0)).change)


def test_a_difference_that_is_chance_is_the_same_and_says_so():
    # At 512 the mean of the baseline lies above the bar by some of its noise, and that of the run falls below.
    def row(last: float, name: str) -> Judged:
        noise = 0.25 * np.random.default_rng(len(name)).standard_normal((24, 4))
        return length_row(np.array([2.0, 2.0, 2.0, last]) + noise - noise.mean(0), name)

    verdicts = [verdict(row(1.7 - fall, "two"), row(1.97, "a baseline")) for fall in np.linspace(0.001, 0.6, 40)]
    assert verdicts[0][7:9] == (512, 256) and verdicts[0].verdict == "same"
    assert verdicts[0].reason.startswith("shorter than 512 by 256; in ")
    assert verdicts[0].reason.endswith(" % of resamples it is not, so that is chance")
    # The further it falls, the less it is chance: same, then inconclusive, then worse.
    order = ["same", "inconclusive", "worse"]
    places = [order.index(each.verdict) for each in verdicts]
    assert places == sorted(places) and set(places) == {0, 1, 2}
    shares = [float(each.reason.split(" in ")[1].split(" %")[0]) / 100 for each in verdicts]
    for each, share in zip(verdicts, shares, strict=True):
        assert (share <= CHANCE + 1e-9) == (each.verdict == "worse")
        assert (share <= PERHAPS + 1e-9) == (each.verdict != "same")
    # A baseline that reaches 512 by chance itself proves nothing of a run that does not.
    assert verdict(row(0.0, "two"), row(1.701, "a baseline")).verdict == "same"


def test_few_prompts_and_other_prompts_say_nothing(gains: np.ndarray):
    few = verdict(length_row(window(gains[:4], 128), "two"), length_row(gains[:4]))
    assert few.verdict == "inconclusive" and few.reason == "4 prompts are too few to say what is chance"
    assert verdict(length_row(gains[:4]), length_row(gains[:4])).verdict == "same"
    other = length_row(gains)
    other = other._replace(blocks=[each._replace(digest="x" + each.digest) for each in other.blocks])
    found = verdict(other, length_row(gains))
    assert found.verdict == "not comparable" and "only 0 % of the baseline's prompts are in the run" in found.reason
    alone = judged_lengths(PLAIN, length_row(gains), length_row(gains[:10]))
    assert (alone.verdict, alone.common, alone.units) == ("same", 1.0, 10)


def test_beside_several_trainings_the_shortest_is_the_bar(gains: np.ndarray):
    def named(model: str, blocks: np.ndarray) -> Judged:
        made = length_row(blocks, model)
        longest = max([0, *(at for at, gain in zip(LENGTHS, blocks.mean(0), strict=True) if gain > 1)])
        return made._replace(row={**made.row, "model": model, "value": float(longest)})

    trainings = [named("mine@1", gains), named("mine@2", window(gains, 256))]
    for longest, expected in ((256, "same"), (512, "better"), (128, "worse")):
        found = judge([named("mine@3", window(gains, longest) * 0.999)], trainings, Rules())
        assert [each.verdict for each in found] == [expected]


def test_a_gain_is_judged_in_parts_of_what_is_recalled_from_near():
    draw = np.random.default_rng(3)
    before = 0.05 + 0.02 * draw.standard_normal(40)
    # Near to nothing a change of the gain by its double is little beside the two nats that are recalled from near.
    for scale, change in ((2.0, -0.1), (1.0, -0.2)):
        found = verdict(
            gain_row(before - 0.2 + 0.001 * draw.standard_normal(40), checkpoint="two"), gain_row(before, scale)
        )
        assert found.verdict == "worse" and found.change == pytest.approx(change, abs=0.01)
    found = verdict(gain_row(before + 0.02 * draw.standard_normal(40), checkpoint="two"), gain_row(before, 2.0))
    assert found.verdict == "same" and found.detectable < 0.25 and found.method == "paired-bootstrap-prompts-1000"
    # A gain below nothing is no reason to divide by it.
    below = before - 0.06
    assert (
        verdict(gain_row(below + 0.001 * draw.standard_normal(40), checkpoint="two"), gain_row(below)).verdict == "same"
    )
    assert verdict(gain_row(before), gain_row(before)).verdict == "same"


def test_too_noisy_a_gain_is_inconclusive_and_says_how_many_prompts_decide():
    draw = np.random.default_rng(4)
    before = 2.0 + 0.5 * draw.standard_normal(8)
    found = verdict(gain_row(before + 0.9 * draw.standard_normal(8), checkpoint="two"), gain_row(before, 2.0))
    assert found.verdict == "inconclusive" and 8 < found.needed < 200
    assert verdict(gain_row(before - 2.0, checkpoint="two"), gain_row(before, 2.0)).verdict == "worse"


def test_rows_of_other_tests_and_distances_never_meet():
    rows = [
        gain_row(np.ones(9))._replace(part=part, settings={**SETTINGS, "task": f"{part[:6]}, version 1"})
        for part in ("needle", "repeat, distance 256", "repeat, distance 512")
    ]
    verdicts = judge(rows[:2], rows[1:], Rules())
    assert Counter(each.verdict for each in verdicts) == {"same": 1, "new": 1, "missing": 1}
    row = {"task": "needle", "distance": None, "depth": 50}
    assert part_of(row, RECALL_KEYS) == "needle, depth 50" and part_of({}, ()) == ""


def lpe_eval(home: Path, *arguments: object, code: int = 0) -> str:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        result = CliRunner(env={"COLUMNS": "250"}).invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("gate")
    (home / "text").mkdir()
    for number in range(3):
        # Any character may follow any other one, so that nothing is right by chance.
        drawn = np.random.default_rng(number).integers(33, 127, 4000).astype(np.uint8)
        (home / "text" / f"{number}.txt").write_bytes(drawn.tobytes())
    return home


ASKED = ("--tests", "repeat,needle", "--data", "text", "--repeat-tokens", "1024", "-q")


def run(home: Path, out: str, factory: str, *more: object, code: int = 0) -> str:
    lengths = () if "--lengths" in more else ("--lengths", "64:512:x2")
    return lpe_eval(home, "recall", "-m", f"mine=py:{FILE}:{factory}", *ASKED, *lengths, "--out", out, *more, code=code)


def test_a_run_passes_beside_itself_and_not_with_a_cut_window(home: Path):
    run(home, "whole", "copier?sharp=4")
    told = lpe_eval(home, "compare", "whole", "--bless", "mine")
    told = run(home, "again", "copier?sharp=4", "--baseline", "mine")
    assert "10 rows: 10 same" in told and "change of what is recalled" in told
    assert {path.name for path in (home / "results" / "baselines" / "mine").iterdir()} >= {
        "recall.csv", "by_item.parquet", "effective_length.csv", "spec.yaml",
    }  # fmt: skip
    told = run(home, "cut", "copier?sharp=4&window=64", "--baseline", "mine", code=3)
    assert "mine, effective length of repeat, at length 256 (shorter than 256 by 192; in 0 %" in told
    assert "256 -> 64" in told and "16 pieces" in told
    for distance in (128, 256):
        (lost,) = re.findall(rf"mine, repeat, distance {distance}, at length {2 * distance} \((-[\d.]+) %\)", told)
        # What was gained is lost, in parts of what is gained at the shortest distance.
        assert float(lost) == pytest.approx(-100, abs=1)
    # What is better passes, and is said to be.
    told = lpe_eval(home, "compare", "whole", "--baseline", "./cut")
    assert "better" in told and "64 -> 256" in told


def test_a_run_that_asked_otherwise_is_not_compared(home: Path):
    told = run(home, "other", "copier?sharp=4", "--seed", "1", "--baseline", "mine", code=2)
    assert "nothing was measured" in told and "seed is 1, in the baseline 0" in told
    told = run(home, "longer", "copier?sharp=4", "--lengths", "64:256:x2", "--baseline", "mine", code=3)
    assert "missing" in told and "new" in told
    told = run(home, "share", "copier?sharp=4", "--share", "0.5", "--baseline", "mine", code=2)
    assert "protocol is gain_nats of at least 0.5 of that at the shortest" in told


SHAPES = {
    "normal": lambda draw, size: draw.standard_normal(size),
    "t, 3 degrees": lambda draw, size: draw.standard_t(3, size) / 3**0.5,
}
COMPARISONS = 1000
WORST = {"lengths": 0.002, "gains": 0.01}
"""Rows that are called worse though nothing changed, at most."""


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("items", "level", "spread", "noise"), [(64, 0.6, 0.3, 0.15), (8, 2.0, 1.2, 0.5)])
def test_how_often_unchanged_recall_alarms(items: int, level: float, spread: float, noise: float, shape: str):
    """Prompts are drawn anew each time, with gains as those of released models; a change adds noise to each of them.

    64 pieces of `repeat` and 8 prompts of `needle`, whose gains differ by half of their mean.
    """
    draw = np.random.default_rng(0)
    found: dict[str, Counter[str]] = {"lengths": Counter(), "gains": Counter()}
    for number in range(COMPARISONS):
        # The last score lies at the bar or just above it, which is where lengths change.
        means = level * np.array([1.0, 0.97, 0.95, 0.85 + 0.05 * (number % 3)])
        own = means + spread * draw.standard_normal((items, 1)) + 0.3 * spread * draw.standard_normal((items, 4))
        moved = own + noise * SHAPES[shape](draw, (items, 4))
        found["lengths"][verdict(length_row(moved, "two"), length_row(own)).verdict] += 1
        gains = gain_row(moved[:, 3], checkpoint="two"), gain_row(own[:, 3], max(1.0, level))
        found["gains"][verdict(*gains).verdict] += 1
    print(items, shape, {name: dict(each) for name, each in found.items()})
    for name, each in found.items():
        assert each["worse"] <= WORST[name] * COMPARISONS, name
