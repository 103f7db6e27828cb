"""Readers on inputs that nobody wrote on purpose: whatever comes in, only the family of `lpe_eval.errors` comes out.

By default each reader gets few inputs, the same in every run. `LPE_EVAL_FUZZ=100000` shares out that many, new
ones each time, and says at the end how many ran:

    LPE_EVAL_FUZZ=100000 pytest tests/promises/test_fuzz.py
"""

import os
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings

from lpe_eval.errors import LpeEvalError
from lpe_eval.plain import Unreadable
from tests.support.fuzz.checkpoints import checkpoint_readers
from tests.support.fuzz.foreign import foreign_readers
from tests.support.fuzz.inputs import Reader
from tests.support.fuzz.recall import recall_readers
from tests.support.fuzz.runs import problem_readers, run_readers
from tests.support.fuzz.specs import reference_readers, spec_readers
from tests.support.fuzz.texts import text_readers

TOTAL = int(os.environ.get("LPE_EVAL_FUZZ", "0"))
RAN: Counter[str] = Counter()
ROOMS = (
    spec_readers, reference_readers, checkpoint_readers, text_readers, run_readers, problem_readers, recall_readers,
    foreign_readers,
)  # fmt: skip


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Reader]]:
    return {room.__name__: room(tmp_path_factory.mktemp("fuzz")) for room in ROOMS}


@pytest.mark.parametrize("room", [room.__name__ for room in ROOMS])
def test_whatever_comes_in_only_our_own_errors_come_out(
    room: str, readers: dict[str, list[Reader]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    shares = sum(reader.weight for found in readers.values() for reader in found)
    for reader in readers[room]:
        began = time.monotonic()
        survives(reader, round(TOTAL * reader.weight / shares) + 1 if TOTAL else round(12 * reader.weight))
        RAN[f"seconds of {reader.name}"] += round(time.monotonic() - began)


def survives(reader: Reader, inputs: int) -> None:
    @settings(
        max_examples=inputs, derandomize=not TOTAL, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    @given(value=reader.inputs)
    def reads(value: Any) -> None:
        note(f"the reader is: {reader.name}")
        RAN[reader.name] += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                reader.read(value)
            except (LpeEvalError, Unreadable):
                return

    reads()


def test_as_many_inputs_ran_as_were_asked_for(capsys: pytest.CaptureFixture[str]):
    ran = {name: count for name, count in RAN.items() if not name.startswith("seconds of ")}
    with capsys.disabled():
        for name, count in sorted(ran.items()) if TOTAL else []:
            print(f"{count:8} {RAN[f'seconds of {name}']:6} s  {name}")
        print(f"\n{sum(ran.values())} inputs to {len(ran)} readers" if TOTAL else "", end="")
    assert len(ran) > 30 or not ran, "run this file as a whole"
    assert sum(ran.values()) >= TOTAL
