"""How the work of a run is shared out among processes: a list of pieces, and which of them are whose."""

from collections.abc import Callable, Mapping, Sequence

from lpe_eval.measure.optimum import Best, Scored
from lpe_eval.measure.parts import Part, parts_of
from lpe_eval.measure.plan import tokens_of
from lpe_eval.part_records import PartName, Piece
from lpe_eval.shard import Shard, shares
from lpe_eval.table import CellKey

_FASTER = 50
"""Times as fast as a model the best possible guess of a text is taken to be."""


def pieces_of(
    planned: Sequence[Scored], long: Mapping[tuple[str, int], Sequence[Part]], budget: Callable[[int], int]
) -> list[Piece]:
    """The pieces of a perplexity run: a model at a length each, with all of its protocols.

    Args:
        planned: the models, and the best guess.
        long: the parts of lengths that have several.
        budget: tokens of a batch at a length.
    """
    found = []
    for each in planned:
        for plan in each.plans:
            name = each.peek.name
            parts = long.get((name, plan.length)) or parts_of(name, plan, budget(plan.length))
            work = [part.work // _FASTER if isinstance(each, Best) else part.work for part in parts]
            targets = [sum(window.n_scored for window in windows) for windows in plan.windows.values()]
            cells = [list(key) for key in plan.windows]
            found.append(Piece(name, plan.length, cells, targets, len(parts), parts[0].name.cut, work))
    return found


def own_share(
    planned: Sequence[Scored], long: Mapping[tuple[str, int], Sequence[Part]], pieces: Sequence[Piece], shard: Shard
) -> tuple[list[Scored], dict[tuple[str, int], list[Part]]]:
    """Of the plans and of the parts of long lengths, those that a shard measures."""
    own = {(each.model, each.length): numbers for each, numbers in zip(pieces, own_parts(pieces, shard), strict=True)}
    mine = [each._replace(plans=[plan for plan in each.plans if own[each.peek.name, plan.length]]) for each in planned]
    parts = {
        place: [part for part in each if part.name.number in own[place]] for place, each in long.items() if own[place]
    }
    return mine, parts


def tokens_left(
    todo: Sequence[Scored], long: Mapping[tuple[str, int], Sequence[Part]], has: Callable[[PartName], bool]
) -> dict[tuple[str, int], int]:
    """How many tokens there are to feed, by model and length.

    Args:
        todo: what is left of the plans.
        long: the parts of lengths that have several.
        has: whether a part is on disk.
    """
    found: dict[tuple[str, int], int] = {}
    for each in todo:
        for plan in each.plans:
            parts = long.get((each.peek.name, plan.length))
            left = None if parts is None else sum(part.tokens for part in parts if not has(part.name))
            found[each.peek.name, plan.length] = tokens_of(plan) if left is None else left
    return found


def work_of_others(
    planned: Sequence[Scored],
    mine: Sequence[Scored],
    every: Mapping[tuple[str, int], Sequence[Part]],
    own: Mapping[tuple[str, int], Sequence[Part]],
) -> dict[PartName | CellKey, int]:
    """What a shard does not measure: parts, and of other lengths the first cell, each with its tokens.

    Args:
        planned: everything.
        mine: what the shard measures.
        every: the parts of all long lengths.
        own: those that the shard measures.
    """
    places = {(each.peek.name, plan.length) for each in mine for plan in each.plans}
    names = {part.name for parts in own.values() for part in parts}
    found: dict[PartName | CellKey, int] = {}
    for each in planned:
        for plan in each.plans:
            place = each.peek.name, plan.length
            if parts := every.get(place):
                found |= {part.name: part.tokens for part in parts if part.name not in names}
            elif place not in places:
                found[next(iter(plan.windows))] = tokens_of(plan)
    return found


def own_parts(pieces: Sequence[Piece], shard: Shard) -> list[set[int]]:
    """Of each piece, the numbers of the parts that a shard measures."""
    places = iter(shares([work for each in pieces for work in each.work], shard.total))
    return [{number for number in range(each.parts) if next(places) == shard.number - 1} for each in pieces]
