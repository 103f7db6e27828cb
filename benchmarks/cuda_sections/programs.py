"""The tests that need the GPU, and a command, each as a program of its own."""

import subprocess
import sys
import time
from typing import Any

from cuda_sections.setting import Setting


def tests(setting: Setting) -> None:
    """The tests of what needs the GPU."""
    chosen = {
        "train/test_recorded.py": ["-k", "replay or recorded"],
        "attentions/test_fused.py": [],
        "attentions/test_flex.py": ["-k", "cuda"],
    }
    for name, some in chosen.items():
        command = [sys.executable, "-m", "pytest", f"tests/{name}", "-q", "--show-capture=no", "--tb=short", *some]
        program(setting, command, {"file": name})


def command(setting: Setting) -> None:
    """`lpe-eval speed` for one length."""
    wanted = ["--encoding", "alibi,dape(kerple_log)", "--lengths", "4096", "--mode", "forward", "--width", "768"]
    wanted += ["--heads", "12", "--layers", "2", "--batch-tokens", "4096", "--device", setting.device.type]
    out = str(setting.file.parent / "speed")
    program(setting, [sys.executable, "-m", "lpe_eval", "speed", *wanted, "--out", out, "--overwrite"], {})


def program(setting: Setting, command: list[str], facts: dict[str, Any]) -> None:
    """Runs another program and keeps the end of what it said."""
    with setting.case(**facts) as result:
        left = max(5.0, setting.ends - time.monotonic())
        ended = subprocess.run(
            ["timeout", str(round(left)), *command], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        result["tail"] = ended.stdout.decode(errors="replace")[-6000:]
        result["status"] = "ok" if ended.returncode == 0 else f"exit code {ended.returncode}"
