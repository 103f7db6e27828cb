"""Compiled ahead of time, every kernel fits the card it is chosen for, and no released model raises anything there.

Needs Triton (which PyTorch's build for CPUs does not bring), a C++ compiler and some minutes.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler"),
]


def rows_of(capability: int, what: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(ROOT / "benchmarks/compiled_ahead.py"), "--capability", str(capability)]
    settings = {"PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run(
        [*command, "--what", what, "--quick"], env={**os.environ, **settings}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("ROW ")]


@pytest.mark.parametrize("capability", [75, 80, 86, 89, 90, 100])
def test_every_kernel_fits_its_card(capability: int):
    rows = rows_of(capability, "kernels")
    assert bool(rows) is (capability >= 80)
    compiled = [row for row in rows if "shared_kib" in row]
    assert [row for row in compiled if not row["fits"]] == []
    first = [row for row in compiled if row["kernel"] == "weigh_pairs"]
    assert all(row["shared_kib"] <= row["estimated_kib"] for row in first)
    short = [row for row in compiled if row["dtype"] == "bfloat16" and row["path"] == "fused"]
    assert all(row["spilled"] <= 64 for row in short)
    if rows:
        assert {row["path"] for row in compiled} == {"flex", "fused"}
        # DAPE of the released shape is served on each of them, in both types.
        served = {row["dtype"] for row in first if row["shape"].startswith("4 x 32")}
        assert served == {"bfloat16", "float32"}


@pytest.mark.parametrize(("capability", "dtype"), [(89, "bfloat16"), (90, "bfloat16"), (75, "float32")])
def test_fire_and_each_other_released_model_takes_a_path_with_few_compilations(capability: int, dtype: str):
    rows = {row["model"]: row for row in rows_of(capability, "models")}
    assert len(rows) >= 19
    assert all(row["path"] == row["asked"] and not row["note"] and row["dtype"] == dtype for row in rows.values())
    by_path: dict[str, int] = {}
    for row in rows.values():
        by_path[row["path"]] = by_path.get(row["path"], 0) + row["compilations"]
    assert max(by_path.values()) <= 4
    expected = {"alibi": "flex", "fire": "flex", "dape-kerple-log": "fused", "cope": "blocked", "rope": "sdpa"}
    if capability < 80:
        expected = {**dict.fromkeys(expected, "blocked"), "rope": "sdpa"}
    assert {name: rows[name]["path"] for name in expected} == expected
