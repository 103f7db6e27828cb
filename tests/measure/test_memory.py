"""The highest memory of a process is its own, and rises by what it holds."""

import subprocess
import sys

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
