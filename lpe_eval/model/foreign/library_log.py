"""What the libraries behind somebody else's model log.

A warning of each layer in each pass (bitsandbytes casts, and says so) would be a hundred thousand lines of a run.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def repeats_left_out() -> Iterator[None]:
    """Inside, a warning that a library logs is printed once, however often it comes with the same words."""
    handler, seen = logging.lastResort, set[str]()
    if handler is None:
        yield
        return

    def first_time(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in seen
        seen.add(message)
        return new

    handler.addFilter(first_time)
    try:
        yield
    finally:
        handler.removeFilter(first_time)
