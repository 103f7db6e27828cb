"""Where a training has got to, as bytes and back."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from lpe_eval.out_of_memory import out_of_memory


class SnapshotError(ValueError):
    """A snapshot is damaged, or of another training."""


def snapshot_of(state: Mapping[str, Any]) -> bytes:
    """Tensors and plain values, for `opened_snapshot`."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


@contextmanager
def opened_snapshot(snapshot: bytes, device: torch.device) -> Iterator[Mapping[str, Any]]:
    """The state of a snapshot, its tensors on the device.

    PyTorch reads a file without looking at its checksums, so that a weight with one wrong bit would be trained on.

    Raises:
        SnapshotError: the bytes are damaged, or what is done inside `with` finds that the state does not fit.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(snapshot)) as held:
            damaged = held.testzip()
        if damaged is not None:
            raise SnapshotError(f"{damaged} has another checksum")
        yield torch.load(io.BytesIO(snapshot), map_location=device, weights_only=True)
    except Exception as error:
        # Of what is not as it was written, torch.load, the modules and the optimisers raise almost anything.
        if out_of_memory(error):
            raise
        raise SnapshotError(str(error)) from error


def refuse_misfit(optimizer: torch.optim.Adam) -> None:
    """Raises SnapshotError where an optimiser was given a state that is none of its parameters'.

    PyTorch takes any, and fails in the next step or goes on with the wrong numbers.
    """
    for parameter, state in optimizer.state.items():
        shapes = {"step": torch.Size([]), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        found = {name: each.shape if isinstance(each, torch.Tensor) else None for name, each in state.items()}
        if found != shapes or not state["step"] >= 1:
            raise SnapshotError(f"the optimiser's state does not fit a parameter of {list(parameter.shape)}")
