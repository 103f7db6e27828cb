"""Windows of text as a batch: what a causal model is fed, what it should say next, and which places count."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.windows import Window
from lpe_eval.errors import SpecError


class Batch(NamedTuple):
    """What a model is fed, what it should predict at each place, and which places count; `b` windows of `t` tokens."""

    tokens: Int[Tensor, "b t"]
    targets: Int[Tensor, "b t"]
    """Already shifted: `targets[:, i]` is what the model should say after `tokens[:, : i + 1]`."""
    scored: Bool[Tensor, "b t"]


def batch_of(
    windows: Sequence[Window], documents: Sequence[EncodedDocument], bos_id: int | None, device: torch.device
) -> Batch:
    """The batch of some windows that all feed equally many tokens, so that nothing is ever padded.

    Args:
        windows: at least one, all with the same `n_input`.
        documents: what `Window.document` counts in.
        bos_id: the token of windows with BOS.
        device: where the tensors go.

    Raises:
        SpecError: a window wants BOS, and there is no such token.
    """
    n_input = windows[0].n_input
    assert all(window.n_input == n_input for window in windows), "windows of one batch feed equally many tokens"
    tokens = np.empty((len(windows), n_input), dtype=np.int64)
    targets = np.empty_like(tokens)
    scored = np.zeros(tokens.shape, dtype=np.bool_)
    for row, window in enumerate(windows):
        document = documents[window.document].tokens
        if window.bos:
            if bos_id is None:
                raise SpecError("windows are to start with BOS, but the tokenizer has no such token; use --bos never")
            tokens[row, 0] = bos_id
        tokens[row, window.bos :] = document[window.start : window.stop - 1]
        targets[row] = document[window.stop - n_input : window.stop]
        scored[row, n_input - window.n_scored :] = True
    return Batch(*(torch.from_numpy(each).to(device) for each in (tokens, targets, scored)))
