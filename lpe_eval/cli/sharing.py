"""Ranks of torchrun that hold one model together, as a command begins them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lpe_eval.errors import SpecError

if TYPE_CHECKING:
    from pydantic import BaseModel


@contextmanager
def shared(spec: "BaseModel", shard: str | None, environ: Mapping[str, str]) -> Iterator[bool]:
    """Joins the ranks of a launch. Gives true in the first one; in the others the body has nothing to do.

    Args:
        spec: what is run, the same on all ranks.
        shard: what `--shard` says.
        environ: the environment.

    Raises:
        SpecError: torchrun did not start this process, or its cards do not suffice.
        LaunchLost: a rank is gone.
    """
    import torch

    from lpe_eval.measure.denormals import denormals_as_zero
    from lpe_eval.model.checkpoints.huggingface import HuggingFace
    from lpe_eval.model.foreign.library_log import repeats_left_out
    from lpe_eval.model.tensor_parallel import follow, joined
    from lpe_eval.shard import asked_shard

    part = asked_shard(shard, environ)
    if part is None or part.local is None:
        raise SpecError(
            "--tensor-parallel needs ranks that share a model: torchrun --nproc-per-node 2 -m lpe_eval ppl ..."
        )
    if getattr(spec, "device_map", None) is not None:
        raise SpecError("--tensor-parallel and --device-map both divide a model; leave one out")
    cards, named = torch.cuda.is_available(), str(getattr(spec, "device", "auto"))
    if named not in ("auto", "cuda" if cards else "cpu"):
        raise SpecError(f"--device {named}: with --tensor-parallel each rank takes a card of its own; leave it out")
    if cards and part.local >= torch.cuda.device_count():
        raise SpecError(
            f"--tensor-parallel: this machine has {torch.cuda.device_count()} cards and more ranks; start a rank a card"
        )
    device = torch.device("cuda", part.local) if cards else torch.device("cpu")
    with joined(device) as leads:
        yield leads
        if not leads:
            with denormals_as_zero(), repeats_left_out():
                follow(device, HuggingFace.opened)
