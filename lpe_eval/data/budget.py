"""How a budget of tokens is shared out among documents, and what each then gives.

One level for all: a document gives its tokens up to the level, and the level is the highest at which all together stay
within the budget, as water finds it between walls of different heights. What is left over below one token a document
goes to the first ones.
"""

from collections.abc import Sequence


def level_of(sizes: Sequence[int], whole: Sequence[bool], budget: int) -> list[int]:
    """How many tokens each document gives.

    Args:
        sizes: tokens known of each document.
        whole: whether a document has no more than those.
        budget: tokens in all.

    Returns:
        A number for each document, in sum at most the budget. It is above a document's size where more of that document
        has to be known.
    """
    ends = sorted(size for size, all_known in zip(sizes, whole, strict=True) if all_known)
    left, sharing = budget, len(sizes)
    for size in ends:
        if size * sharing > left:
            break
        left, sharing = left - size, sharing - 1
    if not sharing:
        return list(sizes)
    level, over = divmod(left, sharing)
    given: list[int] = []
    for size, all_known in zip(sizes, whole, strict=True):
        if all_known and size <= level:
            given.append(size)
            continue
        given.append(level + (over > 0))
        over -= over > 0
    return given
