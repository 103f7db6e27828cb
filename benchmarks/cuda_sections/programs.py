"""The product itself, and tests that need a GPU, each as a program of its own."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cuda_sections.setting import Setting

MODELS = ("alibi", "fire", "dape-kerple-log", "cope")
ALLOWED = {"float32": 1e-4, "bfloat16": 1e-2}
"""Nats by which a mean over some thousand targets may differ from a CPU's in float32."""


def ppl(setting: Setting, out: Path, device: str, dtype: str) -> list[str]:
    """The command that measures four released models on the same text each time."""
    lengths, tokens = ("128,256", "600") if setting.smoke else ("512,2048", "8192")
    wanted = [*(each for name in MODELS for each in ("-m", name)), "--lengths", lengths, "--max-tokens", tokens]
    wanted += ["--protocol", "nonoverlap", "--device", device, "--dtype", dtype, "--out", str(out), "--overwrite", "-q"]
    return [sys.executable, "-m", "lpe_eval", "ppl", *wanted]


def begin_reference(setting: Setting) -> None:
    """Starts the rows of a CPU, which are ready when they are asked for; those of an earlier start are kept."""
    if not (setting.out / "cpu" / "rows.csv").exists():
        log = (setting.out / "cpu.log").open("wb")
        threads = str(max(1, (os.cpu_count() or 2) // 4))
        subprocess.Popen(
            ["timeout", "400", *ppl(setting, setting.out / "cpu", "cpu", "float32")],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""},
        )


def product(setting: Setting) -> None:
    """`lpe-eval ppl` on the device in both types, beside rows computed on a CPU."""
    ready = []
    for dtype in ALLOWED:
        out = setting.out / f"{setting.device.type}-{dtype}"
        with setting.case(dtype=dtype, program="ppl") as result:
            run(setting, ppl(setting, out, setting.device.type, dtype), result, share=0.5)
        ready += [(dtype, out)] if (out / "rows.csv").exists() else []
    reference = setting.out / "cpu" / "rows.csv"
    while not complete(reference) and time.monotonic() < setting.ends:
        time.sleep(1)
    wanted = rows_of(reference) if reference.exists() else {}
    for dtype, out in ready:
        for key, row in rows_of(out / "rows.csv").items():
            with setting.case(model=key[0], length=key[1], dtype=dtype, path=row["attention"]) as result:
                result["note"], result["value"] = row["note"], row["value"]
                if row["status"] != "ok" or key not in wanted:
                    result["status"], result["why"] = "failed", row["note"] or "there is no row of a CPU"
                    continue
                apart = abs(float(row["value"]) - float(wanted[key]["value"]))
                result["of_cpu"], result["apart"] = wanted[key]["value"], apart
                if not apart <= ALLOWED[dtype]:
                    result["status"], result["why"] = "failed", f"{apart:.2g} nats from the CPU's {ALLOWED[dtype]:g}"


def complete(rows: Path) -> bool:
    """Whether a run has ended, which writes its figure last."""
    return (rows.parent / "figures" / "perplexity.png").exists()


def rows_of(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Nats by model and length."""
    with path.open(encoding="utf-8") as text:
        rows = [row for row in csv.DictReader(text) if row["metric"] == "nll_nats"]
    return {(row["model"], row["length"]): row for row in rows}


def recording(setting: Setting) -> None:
    """Steps that are recorded and replayed; what cannot be recorded comes last, since it may spoil the process."""
    for some in ("replayed_training or replay_that_differs", "cannot_be_recorded"):
        pytest(setting, "train/test_recorded.py", ["-k", some], 0.7)


def other_tests(setting: Setting) -> None:
    """What else the tests have for a GPU, and `lpe-eval speed`."""
    wanted = ["--encoding", "alibi,dape(kerple_log)", "--lengths", "256" if setting.smoke else "4096", "--heads", "12"]
    wanted += ["--mode", "forward", "--width", "192" if setting.smoke else "768", "--layers", "2"]
    wanted += ["--batch-tokens", "4096", "--device", setting.device.type, "--out", str(setting.out / "speed")]
    with setting.case(program="speed") as result:
        run(setting, [sys.executable, "-m", "lpe_eval", "speed", *wanted, "--overwrite", "-q"], result, share=0.4)
    pytest(setting, "attentions/test_fused.py", [], 0.6)
    pytest(setting, "attentions/test_flex.py", ["-k", "cuda"], 1.0)


def pytest(setting: Setting, name: str, some: list[str], share: float) -> None:
    """One file of tests; a warning that only a GPU gives is no failure here."""
    if setting.late():
        return
    command = [
        sys.executable,
        "-m",
        "pytest",
        f"tests/{name}",
        "-q",
        "--show-capture=no",
        "--tb=short",
        "-W",
        "default",
    ]
    with setting.case(program=f"pytest {name}", some=" ".join(some)) as result:
        run(setting, [*command, *some], result, share)


def run(setting: Setting, command: list[str], result: dict[str, Any], share: float) -> None:
    """Runs another program for a share of the time that is left, and keeps the end of what it said."""
    left = max(5.0, (setting.ends - time.monotonic()) * share)
    ended = subprocess.run(
        ["timeout", str(round(left)), *command], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    result["tail"] = ended.stdout.decode(errors="replace")[-6000:]
    # Five is what pytest says where a file has nothing for this device.
    if ended.returncode not in (0, 5):
        result["status"] = "left out" if ended.returncode == 124 else "failed"
        result["why"] = "the time was up" if ended.returncode == 124 else f"exit code {ended.returncode}"
