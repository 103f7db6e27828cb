"""What the figures depend on, one tiny call of each path, and kernel caches filled by several processes at once."""

import os
import subprocess
import sys
import time
from typing import Any

import torch

from cuda_sections.programs import begin_reference
from cuda_sections.setting import Setting, built, inputs, wait
from lpe_eval.measure.device import pick_device
from lpe_eval.model import fused_triton
from lpe_eval.model.attention import choose
from lpe_eval.model.falling_back import attended, taken
from lpe_eval.model.positions import run_on
from lpe_eval.registry import ATTENTIONS

WARMED = [
    (name, dtype) for dtype in ("bfloat16", "float32") for name in ("alibi", "fire", "dape 32", "kerple_log", "t5")
]
"""What ten processes compile beforehand; the caches are on disk."""


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and the card."""
    found: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0]}
    found |= {"date": time.strftime("%Y-%m-%d %H:%M"), "paths": list(ATTENTIONS.names())}
    found["triton"] = fused_triton.triton.__version__ if fused_triton.triton else None
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {"gpu": card.name, "capability": [card.major, card.minor], "memory": card.total_memory}
        found |= {"fast_memory": card.shared_memory_per_block_optin, "cuda": torch.version.cuda}
    return found


def facts(setting: Setting) -> None:
    """The facts, then a tiny call of each path while other processes compile."""
    begin_reference(setting)
    with setting.case() as result:
        result |= environment(pick_device(str(setting.device)))
    others = [warming(setting, number) for number in range(len(WARMED))] if setting.device.type == "cuda" else []
    for name in ("none", "cope", "alibi", "fire", "dape 32", "dape_v2"):
        with setting.case(encoding=name, size=[1, 64, 64]) as result, torch.no_grad():
            encoding = built(name, setting)
            asked, path = choose("auto", encoding, setting.device)
            with taken() as paths:
                context = attended(
                    path, *inputs(setting, 64, setting.dtype), encoding, run_on(64, setting.device), True
                )
            wait(setting)
            result["asked"], result["path"], result["note"] = asked, paths.paths(asked), paths.note
            if not bool(context.isfinite().all()) or paths.note:
                result["status"], result["why"] = "failed", paths.note or "numbers that are not finite"
    for each in others:
        try:
            each.wait(timeout=max(1.0, setting.ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            each.kill()


def warming(setting: Setting, number: int) -> subprocess.Popen[bytes]:
    """A process that fills the caches with what one pair of encoding and type needs."""
    log = (setting.out / "warming.log").open("ab")
    command = [sys.executable, sys.argv[0], str(setting.out), "--step", "warm", "--warm", str(number)]
    command += ["--device", str(setting.device), "--seconds", "60"]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=dict(os.environ))


def warm(setting: Setting, number: int) -> None:
    """Scores and, where gradients are compiled, trains once."""
    name, kind = WARMED[number]
    encoding, dtype = built(name, setting), getattr(torch, kind)
    path = choose("auto", encoding, setting.device)[1]
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            drawn = [each.requires_grad_(gradients) for each in inputs(setting, 512, dtype)]
            context = attended(path, drawn[0], drawn[1], drawn[2], encoding, run_on(512, setting.device), True)
            if gradients:
                context.float().sum().backward()
    wait(setting)
