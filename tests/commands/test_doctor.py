"""`lpe-eval doctor`: sentences for machines of every kind, and no word too many about whose machine it is."""

import getpass
import json
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import lpe_eval
from lpe_eval.cli import app
from lpe_eval.commands import doctor
from lpe_eval.commands.doctor import Examined, as_json, examined, sentences, table_of
from lpe_eval.measure import machine

GIB = 2**30
CARD = {"name": "Card", "capability": "8.0", "memory": 40 * GIB, "bfloat16": True, "triton": True}
ALL = dict.fromkeys(
    ("torch", "transformers", "tokenizers", "peft", "gguf", "accelerate", "triton"), "1.0"
)  # fmt: skip


def of(**changes: Any) -> Examined:
    """A machine with eight processors, without a GPU and with everything installed; then what is different."""
    parts: dict[str, dict[str, Any]] = {
        "installation": {"lpe_eval": "0.1.0", "libraries": ALL},
        "processor": {"name": "Chip", "usable": 8, "quota": None, "flags": ["avx2", "avx512f"]},
        "computing": {"threads": 8, "variables": {}, "instructions": "AVX512", "gigaflops": 100.0, "compiler": "gcc"},
        "memory": {"all": 64 * GIB, "free": 50 * GIB},
    }
    for name, value in changes.items():
        part = next((held for held in parts.values() if name in held), parts["computing"])
        part[name] = value
    return Examined(**parts, folders=changes.get("folders", []), why_not=changes.get("why_not", ""))  # pyright: ignore[reportArgumentType]


def told(monkeypatch: pytest.MonkeyPatch, driver: bool = False, **changes: Any) -> str:
    monkeypatch.setattr(doctor, "driver_is_here", lambda: driver)
    return " | ".join(sentences(of(**changes)))


def test_a_processor_says_how_fast_it_can_be_and_what_fits(monkeypatch):
    said = told(monkeypatch)
    # Two operations a weight: 100e9 / 2e9 = 50 tokens. Four fifths of 50 GiB hold 10.7e9 numbers of four bytes.
    assert "a model of a billion weights reads at most about 50 tokens a second" in said
    assert "in float32 a model of about 11 billion weights fits" in said
    assert "bfloat16" not in said and "processors are used" not in said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"threads": 1, "variables": {"OMP_NUM_THREADS": "1"}}, "1 of 8 processors are used: OMP_NUM_THREADS says so"),
        ({"threads": 4}, "4 of 8 processors are used: set OMP_NUM_THREADS to use more"),
        ({"threads": 16}, "16 threads share 8 processors, which is slower; set OMP_NUM_THREADS=8"),
        ({"quota": 2.0}, "8 threads share 2 processors"),
        ({"emulates_bfloat16": True}, "--dtype bfloat16 is tens of times slower than float32"),
        ({"free": GIB}, "1.0 GiB of memory are free: lower --batch-size"),
        ({"libraries": {**ALL, "transformers": None}}, "pip install 'lpe-eval[hf]'"),
        ({"libraries": {**ALL, "peft": None}}, "adapters cannot be opened; pip install 'lpe-eval[peft]'"),
        ({"driver": True}, "this PyTorch is built without CUDA; install the build with CUDA"),
        ({"driver": True, "cuda_build": "13.0"}, "PyTorch finds no device; nvidia-smi and CUDA_VISIBLE_DEVICES tell"),
        ({"mps": True}, "Apple's GPU is used only when asked, with --device mps"),
        ({"devices": [CARD], "cuda_build": "13.0"}, "Card: models run in bfloat16"),
        ({"devices": [CARD]}, "Card: the attention paths `fused` and `flex` are compiled when they are first used"),
        ({"devices": [CARD], "compiler": None}, "cannot be compiled, since a C compiler is missing"),
        ({"devices": [{**CARD, "triton": False}]}, "Triton is missing, too old, or not for this card"),
        ({"devices": [{**CARD, "bfloat16": False}]}, "Card: models run in float32"),
        ({"why_not": "ImportError: libcudart"}, "PyTorch cannot be imported (ImportError: libcudart)"),
        ({"folders": [{"what": "results", "place": "results/runs", "free": GIB, "writable": True}]},
         "1.0 GiB are free for results (results/runs); make room"),
        ({"folders": [{"what": "results", "place": "results/runs", "free": GIB, "writable": False}]},
         "results cannot be written (results/runs); give another place, for results with --out"),
    ],
)  # fmt: skip
def test_what_is_odd_has_a_sentence_with_what_to_do(monkeypatch, changes: dict[str, Any], sentence: str):
    assert sentence in told(monkeypatch, **changes)


def test_everything_may_be_missing():
    nothing = Examined({}, {}, {}, {}, [], "OSError: no")
    assert "PyTorch cannot be imported (OSError: no)" in " ".join(table_of(nothing).below)
    assert json.loads(as_json(nothing))["why_not"] == "OSError: no"
    some = Examined({}, {}, {"devices": [{**CARD, "bfloat16": None, "triton": None}]}, {"free": None}, [], "")
    assert table_of(some).rows


def test_it_tells_of_this_machine_what_python_tells(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0
    said = " ".join(shown.output.split())
    assert lpe_eval.__version__ in said and platform.python_version() in said and torch.__version__ in said
    assert f"{torch.get_num_threads()} of PyTorch" in said
    assert len(shown.output.splitlines()) < 40
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)
    assert found["computing"]["torch"] == torch.__version__
    assert found["installation"]["libraries"]["numpy"] and len(found["sentences"]) >= 1
    free = {each["what"]: each["free"] for each in found["folders"]}
    assert free["results"] == pytest.approx(os.statvfs(".").f_bavail * os.statvfs(".").f_frsize, rel=0.05)


def test_it_is_quick_where_torch_is_there(monkeypatch):
    began = time.process_time()
    examined()
    assert time.process_time() - began < 1.5


def test_it_tells_nothing_about_whose_machine_it_is(monkeypatch, tmp_path: Path):
    home = tmp_path / "home" / "alice"
    (home / "hf").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("HF_DATASETS_CACHE", "/srv/secret-project/data")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/srv/secret-project/triton")
    monkeypatch.setenv("OMP_NUM_THREADS", "secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    said = as_json(examined()) + str(table_of(examined()))
    for each in ("alice", "secret", "hf_", str(tmp_path), socket.gethostname()):
        assert each not in said, each
    assert getpass.getuser() == "root" or getpass.getuser() not in said
    assert "~/hf/hub" in said and "as HF_DATASETS_CACHE says" in said and '"OMP_NUM_THREADS": "set"' in said


def test_a_broken_torch_is_no_traceback(tmp_path: Path):
    (tmp_path / "torch.py").write_text("raise OSError('libtorch_cpu.so: cannot open shared object file')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    given = {name: value for name, value in os.environ.items() if name != "HOME"} | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-m", "lpe_eval", "doctor"], env=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "PyTorch cannot be imported (OSError: libtorch_cpu.so" in " ".join(done.stdout.split())


def test_limits_of_a_container_are_read(monkeypatch, tmp_path: Path):
    real = Path.read_text

    def read(self: Path, *given: Any, **more: Any) -> str:
        if str(self) == "/proc/self/cgroup":
            return "0::/box\n"
        return "150000 100000\n" if self.name == "cpu.max" else real(self, *given, **more)

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(Path, "is_file", lambda self: self.name == "cpu.max")
    assert machine._quota() == 1.5
