"""Rows of a block whose hidden layer stays in the cache of a core."""

_HIDDEN_NUMBERS = 1 << 18
"""Numbers of a hidden layer held at once without gradients: 1 MiB of float32, what a core keeps close."""


def rows_at_once(rows: int, columns: int, hidden: int) -> int:
    """How many of `rows` rows of `columns` pairs are computed at once, where each pair has `hidden` numbers."""
    return min(rows, max(1, _HIDDEN_NUMBERS // (hidden * columns)))
