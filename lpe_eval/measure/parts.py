"""The windows of a long length, cut into parts: what a process that was killed need not measure again.

A part is a number of whole batches in the order in which they are fed, as many as a fixed budget of work allows. So
neither the number of processes nor their speed has a say in what a part is. Each is summed by itself in float64, and
the sums of a cell are those of its parts in their order: the same bits, whoever measured them and however often
somebody was killed. A length within the budget is one part, and its sums are those of its windows, one after another.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpe_eval.data.windows import Window
from lpe_eval.measure.batches import Plan, Span, Texts, batches_of, fed, span_of, spans_of
from lpe_eval.measure.by_length import longest_of, spent_on, sums_by_block, users_of, with_value, without_value
from lpe_eval.measure.passing import highest_id, pass_through
from lpe_eval.measure.plan import tokens_of, work, work_per_token
from lpe_eval.measure.progress import Advance
from lpe_eval.measure.token_losses import token_losses
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.part_records import CellPart, PartName, PartSums, PlacedTokens
from lpe_eval.table import BlockSum, CellKey, Cost, Facts, Measurement, PositionSum

PART_WORK = 1 << 22
"""Work of a part, in the units of `measure.plan.work`: 1.4 million tokens at length 4096, and at 131,072 half a window,
of which a part has at least one. A model of 7 billion parameters takes about a minute or two on a large card. A release
that changes it may change the last digits of long cells."""

KeepPart = Callable[[PartName, CellKey, Iterable[PlacedTokens]], None]
"""Is handed the targets of each cell of a part, before the part itself."""


def may_be_long(plan: Plan) -> bool:
    """False of a length that is one part for sure, told without listing its windows."""
    many = sum(map(len, plan.whole.windows.values()))
    return many * plan.length * work_per_token(plan.length) > PART_WORK


class Part(NamedTuple):
    """Some spans of a plan.

    Attributes:
        work: in the units of `measure.plan.work`.
        tokens: fed.
    """

    name: PartName
    spans: Mapping[Span, int]
    work: int
    tokens: int


def parts_of(model: str, plan: Plan, batch_tokens: int) -> list[Part]:
    """The parts of a length, in their order; of one that is not long a single one, whose spans are not listed.

    Args:
        model: its name.
        plan: the windows of the length, those that are finished too.
        batch_tokens: token budget of a batch.
    """
    plan, cut = plan.whole, f"{batch_tokens}x{PART_WORK}"
    whole = work(plan)
    if whole <= PART_WORK:
        return [Part(PartName(model, plan.length, 0, 1, cut), {}, whole, tokens_of(plan))]
    wanted, each_token = spans_of(plan), work_per_token(plan.length)
    groups: list[list[Span]] = [[]]
    room = PART_WORK
    for (tokens, _), spans in batches_of(wanted).items():
        size = max(1, batch_tokens // tokens)
        for first in range(0, len(spans), size):
            batch = spans[first : first + size]
            needed = round(len(batch) * tokens * each_token)
            if groups[-1] and needed > room:
                groups, room = [*groups, []], PART_WORK
            groups[-1] += batch
            room -= needed
    sizes = [sum(map(fed, group)) for group in groups]
    return [
        Part(
            PartName(model, plan.length, number, len(groups), cut),
            {span: wanted[span] for span in group},
            round(size * each_token),
            size,
        )
        for number, (group, size) in enumerate(zip(groups, sizes, strict=True))
    ]


def long_lengths(
    planned: Iterable[tuple[str, Plan]], budget: Callable[[int], int]
) -> dict[tuple[str, int], list[Part]]:
    """The parts of every length that has several, by model and length.

    Args:
        planned: names of models, with their plans.
        budget: tokens of a batch at a length.
    """
    found: dict[tuple[str, int], list[Part]] = {}
    for model, plan in planned:
        if may_be_long(plan) and len(parts := parts_of(model, plan, budget(plan.length))) > 1:
            found[model, plan.length] = parts
    return found


def measure_part(
    model: LanguageModel,
    texts: Texts,
    plan: Plan,
    part: Part,
    facts: Facts,
    leak: str,
    batch_tokens: int,
    advance: Advance,
    adapt: bool,
    keep: KeepPart | None,
) -> PartSums:
    """Measures one part of a length.

    Args:
        model: what is measured.
        texts: what it is fed from, with the seed of this length.
        plan: all windows of the length.
        part: which of them.
        facts: what every row of the model repeats.
        leak: what is said of a model that may see the future.
        batch_tokens: token budget of a batch.
        advance: told of tokens.
        adapt: whether a batch that is slower than its windows one by one may shrink.
        keep: handed the losses of the targets of each cell, before the part is given.
    """
    plan, highest = plan.whole, highest_id(texts.documents)
    passed = pass_through(model, texts, plan, part.spans, highest, batch_tokens, advance, adapt)
    if passed.forward is None:
        return PartSums(part.name, facts, passed.attention, passed.status, passed.note, leak, 0.0, batch_tokens, ())
    losses, users, cells = passed.forward.losses, users_of(plan), []
    for key, windows in plan.windows.items():
        own = [(place, window) for place, window in enumerate(windows) if span_of(window) in part.spans]
        mine = [window for _, window in own]
        blocks, positions = sums_by_block(texts.documents, mine, losses, longest_of(windows))
        if keep is not None and blocks:
            keep(part.name, key, _placed(own, texts, passed.forward.losses))
        spent = spent_on(mine, users, passed.forward)
        numbered = tuple((document, block) for (document, _), block in blocks.items())
        cells.append(CellPart(key, numbered, positions, spent.seconds, spent.tokens, len(mine), spent.shared))
    return PartSums(
        part.name, facts, passed.attention, "ok", passed.note, leak, passed.peak, passed.forward.batch_tokens,
        tuple(cells),
    )  # fmt: skip


def put_together(parts: Sequence[PartSums], keys: Iterable[CellKey]) -> Iterator[Measurement]:
    """The cells of a length from its parts.

    Args:
        parts: in their order; all of them, or those up to the first that has no value.
        keys: of the cells that are asked for.
    """
    first = parts[0]
    broken = next((each for each in parts if each.status != "ok"), None)
    for key in keys:
        if broken is not None:
            yield without_value(key, broken.facts, broken.attention, broken.status, broken.note)
            continue
        cells = [cell for each in parts for cell in each.cells if cell.key == key]
        attention = "+".join(dict.fromkeys(path for each in parts for path in each.attention.split("+")))
        note = "; ".join(dict.fromkeys(each.note for each in parts if each.note))
        cost = Cost(
            seconds=sum((cell.seconds for cell in cells), 0.0),
            n_forward_tokens=round(sum(cell.n_forward_tokens for cell in cells)),
            n_windows=sum(cell.n_windows for cell in cells),
            n_shared_windows=sum(cell.n_shared for cell in cells),
            peak_memory_mib=max(each.peak_memory_mib for each in parts),
            batch_tokens=min(each.batch_tokens for each in parts),
        )
        yield with_value(key, first.facts, attention, _blocks(cells), _positions(cells), cost, note)


def with_leak(measurement: Measurement, leak: str) -> str:
    """The note of a cell of a model that may see the future."""
    notes = (leak, measurement.note) if measurement.status == "ok" else (measurement.note,)
    return "; ".join(filter(None, notes))


def _blocks(cells: Iterable[CellPart]) -> tuple[BlockSum, ...]:
    found: dict[tuple[int, int], BlockSum] = {}
    for cell in cells:
        for document, block in cell.blocks:
            place = (document, block.block)
            found[place] = block if place not in found else _added(found[place], block)
    return tuple(found[place] for place in sorted(found))


def _added(one: BlockSum, other: BlockSum) -> BlockSum:
    return one._replace(
        nll_nats=one.nll_nats + other.nll_nats,
        n_tokens=one.n_tokens + other.n_tokens,
        n_bytes=one.n_bytes + other.n_bytes,
        n_nonfinite=one.n_nonfinite + other.n_nonfinite,
    )


def _positions(cells: Iterable[CellPart]) -> tuple[PositionSum, ...]:
    found: dict[int, PositionSum] = {}
    for cell in cells:
        for each in cell.positions:
            before = found.get(each.context_from)
            found[each.context_from] = each if before is None else before._replace(
                nll_nats=before.nll_nats + each.nll_nats, n_tokens=before.n_tokens + each.n_tokens
            )  # fmt: skip
    return tuple(found[place] for place in sorted(found))


def _placed(
    own: Sequence[tuple[int, Window]], texts: Texts, losses: Mapping[Span, NDArray[np.float64]]
) -> Iterator[PlacedTokens]:
    told = token_losses(texts.documents, [window for _, window in own], losses)
    for (place, window), tokens in zip(own, told, strict=True):
        yield place, window.document, tokens
