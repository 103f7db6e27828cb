"""What libraries log again and again is printed once."""

import subprocess
import sys

PROGRAM = """
import logging
from lpe_eval.model.foreign.library_log import repeats_left_out
log = logging.getLogger("somebody.else")
with repeats_left_out():
    for number in range(4):
        log.warning("cast from %s", "float32")
        log.warning("step %d", number % 2)
log.warning("cast from %s", "float32")
"""


def test_the_same_words_come_once_while_a_command_runs():
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stderr
    assert told.split("\n") == ["cast from float32", "step 0", "step 1", "cast from float32", ""]
