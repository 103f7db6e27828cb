"""One thread each, so that tests side by side do not fight over processors; Triton interprets where no GPU is."""

import os
import shutil
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.support")

os.environ.setdefault("OMP_NUM_THREADS", "1")

collect_ignore = [] if find_spec("triton") else ["attentions/test_fused.py"]
if find_spec("triton") and shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Before 2.9 torch's compiler cannot follow checked annotations; there these tests run by themselves, unchecked."""
    of_compiler = collection_path.name == "test_flex.py" and config.getoption("jaxtyping_packages")
    old = tuple(map(int, metadata.version("torch").split(".")[:2])) < (2, 9)
    return True if of_compiler and old else None
