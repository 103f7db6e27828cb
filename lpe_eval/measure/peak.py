"""Memory of one pass through a model, beyond what holding the model costs.

On CUDA it is the allocator's peak during a pass less what was allocated before. A processor keeps no
such count, and a process never gives back its highest mark, so there each number comes from a process
of its own: it makes the model, does one pass of 16 tokens (libraries load, threads start), notes the
highest memory it has had, does the pass in question, and reports by how much the mark rose. Memory
below the mark of the small pass is not seen, which matters only where a pass needs a few MiB.

The mark is that of `peak_memory_mib`. The numbers include what the C library's allocator keeps for
itself, as a user's machine has to.
"""

import gc
import json
import subprocess
import sys
from typing import NamedTuple

import torch

from lpe_eval.errors import LengthError, one_sentence
from lpe_eval.measure.determinism import is_not_deterministic
from lpe_eval.measure.memory import begin_peak, peak_memory_mib
from lpe_eval.measure.speed import Case, Passes
from lpe_eval.out_of_memory import out_of_memory

_WARM_TOKENS = 16


class Peak(NamedTuple):
    """What a pass needed, or why there is no such number."""

    mib: float | None
    status: str = "ok"
    note: str = ""


def peak_of(case: Case, device: torch.device) -> Peak:
    """Memory of one pass beyond the model's, in MiB; `n/a` where the encoding cannot run at this length."""
    if device.type == "cuda":
        return _on_cuda(case, device)
    # In a session of its own, so that Ctrl-C reaches us alone; `run` ends the process on the way out.
    command = [sys.executable, "-m", "lpe_eval.measure.peak", case.model_dump_json(), str(device)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, start_new_session=True)
    if done.returncode < 0:
        return Peak(None, "failed", f"the process was killed (signal {-done.returncode}), likely for want of memory")
    if done.returncode > 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Peak(None, "failed", last[:300])
    # An encoding of somebody else may print; what is ours stands in the last line.
    return Peak(*json.loads((done.stdout.strip().splitlines() or ['[null, "failed", "it said nothing"]'])[-1]))


def without_value(error: Exception, case: Case) -> Peak:
    """Why a pass has no number; encodings and kernels may be anybody's, so it may be anything.

    Raises:
        RuntimeError: a step is not deterministic where that is demanded.
    """
    if is_not_deterministic(error):
        raise error
    if isinstance(error, LengthError):
        return Peak(None, "n/a", str(error))
    if out_of_memory(error):
        return Peak(None, "failed", f"out of memory with {case.windows} windows of {case.length} tokens")
    return Peak(None, "failed", " ".join(one_sentence(error).split())[:300])


def _on_cuda(case: Case, device: torch.device) -> Peak:
    found = _pass_on_cuda(case, device)
    # Not where the error was caught, which held all that had been computed.
    gc.collect()
    torch.cuda.empty_cache()
    return found


def _pass_on_cuda(case: Case, device: torch.device) -> Peak:
    try:
        passes = Passes(case, device)
        passes.once(min(_WARM_TOKENS, case.length), 1)
        passes.once(case.length, case.windows)
        gc.collect()
        torch.cuda.synchronize(device)
        begin_peak(device)
        before = torch.cuda.memory_allocated(device)
        passes.once(case.length, case.windows)
        torch.cuda.synchronize(device)
    except Exception as error:
        return without_value(error, case)
    return Peak(peak_memory_mib(device) - before / 2**20)


def _on_processor(case: Case, device: torch.device) -> Peak:
    try:
        passes = Passes(case, device)
        passes.once(min(_WARM_TOKENS, case.length), 1)
        before = peak_memory_mib(device)
        passes.once(case.length, case.windows)
    except Exception as error:
        return without_value(error, case)
    return Peak(peak_memory_mib(device) - before)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_on_processor(Case.model_validate_json(sys.argv[1]), torch.device(sys.argv[2]))))
