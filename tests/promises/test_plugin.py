"""A third party's package, really installed, is found without an edit anywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[1] / "plugin"


@pytest.mark.slow
def test_an_installed_package_adds_an_encoding_and_a_corpus(tmp_path: Path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", str(site), str(PLUGIN)], check=True, capture_output=True, text=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def lpe_eval(*arguments: str) -> str:
        command = [sys.executable, "-m", "lpe_eval", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "step_penalty" in lpe_eval("list", "encodings")
    assert "counting" in lpe_eval("list", "corpora")
    shape = ("--width", "16", "--layers", "1", "--heads", "2", "--train-length", "32", "--batch-tokens", "64")
    lpe_eval(
        "train", "--encoding", "dape(step-penalty)", "--steps", "2", "--corpus", "counting", "--out", "model", *shape
    )
    lpe_eval(
        "ppl", "-m", "model", "--data", "counting", "--lengths", "32,64", "--max-tokens", "500", "--out", "run", "-q"
    )
    rows = (tmp_path / "run" / "rows.csv").read_text()
    assert "dape(step_penalty)" in rows and "counting" in rows
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["corpus"]["what"] == "numbers"
