"""One thread each, so that tests side by side do not fight over processors; Triton interprets where no GPU is."""

import os
import shutil
from importlib.util import find_spec

import pytest

pytest.register_assert_rewrite("tests.support")

os.environ.setdefault("OMP_NUM_THREADS", "1")

collect_ignore = [] if find_spec("triton") else ["attentions/test_fused.py"]
if find_spec("triton") and shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")
