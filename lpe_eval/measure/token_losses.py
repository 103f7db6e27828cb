"""The scored targets of a cell one by one, for those who keep their losses: a window at a time, never all at once."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.windows import Window
from lpe_eval.measure.batches import Span, span_of
from lpe_eval.records import TokenPart


def token_losses(
    documents: Sequence[EncodedDocument], windows: Sequence[Window], losses: Mapping[Span, NDArray[np.float64]]
) -> Iterator[TokenPart]:
    """The targets of each window, document by document and from left to right.

    Args:
        documents: what the windows count in.
        windows: of one cell.
        losses: nats of the last targets of each span.
    """
    of, ends = -1, np.zeros(0, dtype=np.int64)
    for window in windows:
        document = documents[window.document]
        if window.document != of:
            of, ends = window.document, np.cumsum(document.n_bytes)
        targets = np.arange(window.score_from, window.stop)
        n_bytes = document.n_bytes[targets]
        yield TokenPart(
            document=document.name,
            digest=document.digest,
            position=targets,
            token=document.tokens[targets],
            context=targets - window.start + window.bos,
            byte_from=ends[targets] - n_bytes,
            n_bytes=n_bytes,
            # They were computed in float32, and become float64 for sums alone.
            loss=losses[span_of(window)][-window.n_scored :].astype(np.float32),
        )
