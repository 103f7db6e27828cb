"""Where a training has got to, as bytes and back."""

import io
import pickle
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

_UNREADABLE = (
    *(RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError),
    *(pickle.UnpicklingError, struct.error),
)
"""What `torch.load`, the modules and the optimisers raise on a damaged or a foreign snapshot."""


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

    Raises:
        SnapshotError: the bytes are damaged, or what is done inside `with` finds that the state does not fit.
    """
    try:
        yield torch.load(io.BytesIO(snapshot), map_location=device, weights_only=True)
    except _UNREADABLE as error:
        raise SnapshotError(str(error)) from error
