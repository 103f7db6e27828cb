"""What all steps share: encodings, guarded cases that are written down at once, drawn inputs."""

import argparse
import json
import time
import traceback
from typing import Any

import torch
from torch import Tensor

from lpe_eval.model import fused_kernel
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.spec.encoding_spec import EncodingSpec

KERPLE = EncodingSpec(name="kerple_log")
SPECS = {
    **{
        name: EncodingSpec(name=name)
        for name in ("none", "alibi", "kerple_log", "t5", "sandwich", "mep", "fire", "cope")
    },
    "dape 32": EncodingSpec(name="dape", options={"hidden": 32}, base=KERPLE),
    "dape 8": EncodingSpec(name="dape", options={"hidden": 8}, base=KERPLE),
    "dape alibi": EncodingSpec(name="dape", options={"hidden": 32}, base=EncodingSpec(name="alibi")),
    "dape none": EncodingSpec(name="dape", options={"hidden": 32}, base=EncodingSpec(name="none")),
    "dape_v2": EncodingSpec(name="dape_v2", base=KERPLE),
}

FAILURES: tuple[type[BaseException], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
)
if fused_kernel.triton is not None:
    FAILURES = (*FAILURES, fused_kernel.triton.errors.TritonError)


class Setting:
    """Where to run, how large, and where the results go."""

    def __init__(self, flags: argparse.Namespace, section: str) -> None:
        self.device, self.smoke, self.section = torch.device(flags.device), flags.smoke, section
        self.out, self.file = flags.out, flags.out / "results.jsonl"
        self.ends = time.monotonic() + flags.seconds - 4
        self.heads, self.width = (3, 16) if self.smoke else (12, 64)
        self.lengths = [128, 256] if self.smoke else [1024, 2048, 4096, 8192, 16384]
        self.dtype = torch.float32 if self.smoke else torch.bfloat16
        self.stopped = False

    def case(self, **facts: Any) -> "Case":
        """One measurement, guarded."""
        return Case(self, facts)

    def late(self) -> bool:
        """Whether the section's time is nearly up; noted once."""
        up = time.monotonic() > self.ends
        if up and not self.stopped:
            self.stopped = True
            with self.case(status="left out", why="the step's time was up"):
                pass
        return up


class Case:
    """Writes down what a measurement gave, or why it gave nothing."""

    def __init__(self, setting: Setting, facts: dict[str, Any]) -> None:
        self.setting, self.facts = setting, facts

    def __enter__(self) -> dict[str, Any]:
        self.began = time.monotonic()
        return self.facts

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            self.facts["status"] = "out of memory" if isinstance(error, torch.OutOfMemoryError) else "failed"
            self.facts["traceback"] = "".join(traceback.format_exception(error))[-4000:]
        self.facts.setdefault("status", "ok")
        self.facts["took_seconds"] = round(time.monotonic() - self.began, 2)
        with self.setting.file.open("a", encoding="utf-8") as results:
            results.write(json.dumps({"step": self.setting.section, **self.facts}) + "\n")
        where = " ".join(str(value) for key, value in self.facts.items() if key not in ("traceback", "tail"))
        print(f"{self.setting.section}: {where}", flush=True)
        if error is not None and self.setting.device.type == "cuda":
            torch.cuda.empty_cache()
        return error is not None and isinstance(error, FAILURES)


def built(name: str, setting: Setting, causal: bool = True, train_length: int = 512) -> Encoding:
    """One encoding with drawn parameters."""
    geometry = Geometry(setting.heads, setting.width, setting.heads * setting.width, train_length, causal)
    encodings = build_encodings(SPECS[name], geometry, 1)
    initialise(encodings, torch.Generator().manual_seed(3))
    return encodings[0].to(setting.device)


def inputs(setting: Setting, length: int, dtype: torch.dtype, rows: int | None = None, batch: int = 1) -> list[Tensor]:
    """Queries, keys and values."""
    draw = torch.Generator(setting.device).manual_seed(length)
    shape = (setting.heads, length, setting.width)
    q, k, v = (
        torch.randn(batch, *shape, generator=draw, device=setting.device, dtype=torch.float32).to(dtype)
        for _ in range(3)
    )
    return [q[:, :, length - (rows or length) :].contiguous(), k, v]


def wait(setting: Setting) -> None:
    """Until the device has done what it was given."""
    if setting.device.type == "cuda":
        torch.cuda.synchronize()
