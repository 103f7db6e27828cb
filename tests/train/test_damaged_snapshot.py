"""Snapshots whose bytes or whose values were damaged: refused in one way, or what they were."""

import copy
import io
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.train.snapshot import SnapshotError, snapshot_of
from lpe_eval.train.text import Trainer

SPEC = TrainSpec.model_validate(
    {
        "name": "small",
        "corpus": "python-stdlib",
        "steps": 6,
        "batch_tokens": 32,
        "model": {"encoding": "kerple_log", "width": 8, "layers": 1, "heads": 2, "mlp_width": 8, "train_length": 16},
    }
)
ODD = [None, -1, 0, 1e30, float("nan"), "x", [], {}, 2**70, True, torch.zeros(3), torch.zeros(()), (1, 2)]


def trainer() -> Trainer:
    tokens = torch.randint(0, 256, (200,), dtype=torch.int32, generator=torch.Generator().manual_seed(1))
    return Trainer(SPEC, tokens, tokens, torch.device("cpu"))


@pytest.fixture(scope="module")
def good() -> bytes:
    found = trainer()
    steps = found.run()
    for _ in range(3):
        next(steps)
    return found.snapshot()


def places(value: Any, way: tuple = ()) -> Iterator[tuple]:
    """The way to every part of a plain value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*way, key)
        yield from places(part, (*way, key))


def damaged_bytes(good: bytes, draw: random.Random) -> bytes:
    content = bytearray(good)
    for _ in range(draw.choice((1, 1, 3, 20))):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content[: draw.randrange(len(content))] if draw.random() < 0.2 else content)


def damaged_value(good: bytes, draw: random.Random) -> bytes:
    state = torch.load(io.BytesIO(good), weights_only=True)
    *around, last = draw.choice(list(places(state)))
    held = state
    for key in around:
        held = held[key]
    if draw.random() < 0.2:
        del held[last]
    else:
        held[last] = copy.deepcopy(draw.choice(ODD))
    return snapshot_of(state)


def test_wrong_bytes_are_refused_or_change_nothing(good: bytes):
    whole = trainer()
    whole.restore(good)
    draw, refused = random.Random(1), 0
    for _ in range(150):
        found = trainer()
        try:
            found.restore(damaged_bytes(good, draw))
        except SnapshotError:
            refused += 1
            continue
        assert found.step == 3
        for mine, other in zip(found.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(mine, other)
    assert refused > 75


def test_wrong_values_are_refused_or_trained_on(good: bytes):
    draw, refused = random.Random(2), 0
    for _ in range(100):
        found = trainer()
        try:
            found.restore(damaged_value(good, draw))
        except SnapshotError:
            refused += 1
            continue
        next(found.run(), None)
    assert refused > 30


WAYS = [("step",), ("model",), ("optimizer", "state", 0), ("optimizer", "state", 0, "exp_avg")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [each for each in ODD if each is not ODD[2]], ids=repr)
def test_a_part_of_the_wrong_kind_is_refused(way: tuple, value: object, good: bytes):
    state = torch.load(io.BytesIO(good), weights_only=True)
    held = state
    for key in way[:-1]:
        held = held[key]
    held[way[-1]] = value
    with pytest.raises(SnapshotError):
        trainer().restore(snapshot_of(state))
