"""The highest memory of a process is its own, and rises by what it holds."""

import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import torch
from lpe_eval.measure.memory import peak_memory_mib
cpu = torch.device("cpu")
before = peak_memory_mib(cpu)
held = bytearray(b"x") * (300 << 20)
print(before, peak_memory_mib(cpu))
"""


def test_the_mark_rises_by_what_is_held_and_begins_below_that_of_the_process_that_started_it():
    held = bytearray(b"x") * (900 << 20)
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert before < len(held) >> 20
    # What was freed before serves for a part of the block.
    assert 280 < after - before < 320


ANEW = """
import torch
from lpe_eval.measure.memory import begin_peak, peak_memory_mib
cpu = torch.device("cpu")
held = bytearray(b"x") * (300 << 20)
high = peak_memory_mib(cpu)
del held
begin_peak(cpu)
low = peak_memory_mib(cpu)
held = bytearray(b"x") * (100 << 20)
print(high, low, peak_memory_mib(cpu))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts anew")
def test_the_mark_can_begin_anew():
    done = subprocess.run([sys.executable, "-c", ANEW], capture_output=True, text=True, check=True)
    high, low, after = map(float, done.stdout.split())
    assert high - low > 280
    assert 80 < after - low < 120
