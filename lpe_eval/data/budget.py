"""How a budget of tokens is shared out among documents that together have more than it.

One level for all, as water finds it between walls of different heights: a document gives its tokens up to the level.
The level rises in steps of a block, or of the least that a document gives where that is less. What is left below a step
goes to the first documents, a step each, until it is used up. So a document that changes moves the share of one or two
others, and not of all, and two runs on texts that differ a little still have nearly all of their blocks in common.
"""

from collections.abc import Sequence

_BLOCK = 1024
"""Tokens; the targets of a block, by which runs are compared."""


def shares_of(sizes: Sequence[int], whole: Sequence[bool], budget: int, least: int) -> list[int]:
    """How many tokens each document gives.

    Args:
        sizes: tokens known of each document.
        whole: whether a document has no more than those.
        budget: tokens in all; at least what the documents give up to `least`.
        least: the lowest level.

    Returns:
        A number for each document, in sum at most the budget. It is above a document's size where more of that document
        has to be known.
    """
    left, sharing = budget, len(sizes)
    for size in sorted(size for size, all_known in zip(sizes, whole, strict=True) if all_known):
        if size * sharing > left:
            break
        left, sharing = left - size, sharing - 1
    if not sharing:
        return list(sizes)
    step = min(least, _BLOCK)
    level = least + max(0, left // sharing - least) // step * step
    given = [min(size, level) if all_known else level for size, all_known in zip(sizes, whole, strict=True)]
    rest = max(0, budget - sum(given))
    for at, all_known in enumerate(whole):
        more = min(step, rest, sizes[at] - given[at] if all_known else step)
        given[at] += more
        rest -= more
    return given
