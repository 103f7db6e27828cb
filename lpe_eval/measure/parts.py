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
from lpe_eval.part_records import CellPart, PartName, PartSums, PlacedTokens, numbered
from lpe_eval.records import BlockColumns
from lpe_eval.table import CellKey, Cost, Facts, Measurement, PositionSum

PART_WORK = 1 << 22
"""Work of a part, in the units of `measure.plan.work`: 1.4 million tokens at length 4096, and at 131,072 half a window,
of which a part has at least one. A model of 7 billion parameters takes about a minute or two on a large card. A release
that changes it may change the last digits of long cells."""

_AT_ONCE = 1 << 16
"""Sums of parts that are held before they are added up; more where the cell has more."""

_Sums = tuple[NDArray[np.int64], NDArray[np.float64]]

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
        sums = numbered((document, block) for (document, _), block in blocks.items())
        cells.append(CellPart(key, sums, positions, spent.seconds, spent.tokens, len(mine), spent.shared))
    return PartSums(
        part.name, facts, passed.attention, "ok", passed.note, leak, passed.peak, passed.forward.batch_tokens,
        tuple(cells),
    )  # fmt: skip


def put_together(parts: Iterable[PartSums], keys: Iterable[CellKey]) -> Iterator[Measurement]:
    """The cells of a length from its parts; memory holds a few of them, and the sums of the cells.

    Args:
        parts: in their order; all of them, or those up to the first that has no value.
        keys: of the cells that are asked for.
    """
    wanted = {key: _Running() for key in keys}
    told: list[tuple[float, int]] = []
    paths: dict[str, None] = {}
    notes: dict[str, None] = {}
    facts = None
    for each in parts:
        if each.status != "ok":
            yield from (without_value(key, each.facts, each.attention, each.status, each.note) for key in wanted)
            return
        facts = facts or each.facts
        told.append((each.peak_memory_mib, each.batch_tokens))
        paths |= dict.fromkeys(each.attention.split("+"))
        notes |= {each.note: None} if each.note else {}
        for cell in each.cells:
            if cell.key in wanted:
                wanted[cell.key].add(cell)
    assert facts is not None, "a length has a part"
    for key, cell in wanted.items():
        cost = Cost(
            seconds=sum(cell.seconds, 0.0),
            n_forward_tokens=round(sum(cell.n_forward_tokens)),
            n_windows=cell.n_windows,
            n_shared_windows=cell.n_shared,
            peak_memory_mib=max(peak for peak, _ in told),
            batch_tokens=min(tokens for _, tokens in told),
        )
        yield with_value(key, facts, "+".join(paths), cell.blocks(), cell.positions(), cost, "; ".join(notes))


def with_leak(measurement: Measurement, leak: str) -> str:
    """The note of a cell of a model that may see the future."""
    notes = (leak, measurement.note) if measurement.status == "ok" else (measurement.note,)
    return "; ".join(filter(None, notes))


class _Running:
    """The sums of a cell while its parts come in. Each sum grows by one part after the other, in their order."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.n_forward_tokens: list[float] = []
        self.n_windows = self.n_shared = 0
        self._documents: dict[int, tuple[str, str]] = {}
        # Keys (document and block, or ends of a range of contexts) beside sums, of several parts.
        self._blocks: list[_Sums] = [(np.zeros((0, 2), np.int64), np.zeros((0, 4)))]
        self._positions: list[_Sums] = [(np.zeros((0, 2), np.int64), np.zeros((0, 2)))]

    def add(self, cell: CellPart) -> None:
        """Adds what a part says of the cell."""
        self.seconds.append(cell.seconds)
        self.n_forward_tokens.append(cell.n_forward_tokens)
        self.n_windows += cell.n_windows
        self.n_shared += cell.n_shared
        self._documents |= {number: (name, digest) for number, name, digest in cell.blocks.documents}
        own = cell.blocks
        sums = own.nll_nats, own.n_tokens, own.n_bytes, own.n_nonfinite
        keys = np.array([own.document, own.block], np.int64).T
        self._blocks = _held([*self._blocks, (keys, np.array(sums, np.float64).T)])
        found = np.array(cell.positions, np.float64).reshape(-1, 4)
        self._positions = _held([*self._positions, (found[:, :2].astype(np.int64), found[:, 2:])])

    def blocks(self) -> BlockColumns:
        """The blocks in the order of documents and of their text."""
        keys, sums = _added_up(self._blocks)
        places: dict[tuple[str, str], int] = {}
        numbers, text = np.unique(keys[:, 0], return_inverse=True)
        of = [places.setdefault(self._documents[number], len(places)) for number in numbers.tolist()]
        counts = sums[:, 1:].T.astype(np.int64)
        return BlockColumns(tuple(places), np.array(of, np.int64)[text], keys[:, 1].copy(), sums[:, 0].copy(), *counts)

    def positions(self) -> tuple[PositionSum, ...]:
        """The sizes of context, rising."""
        keys, sums = _added_up(self._positions)
        rows = zip(keys.tolist(), sums.tolist(), strict=True)
        return tuple(PositionSum(low, high, nats, int(count)) for (low, high), (nats, count) in rows)


def _held(pieces: list[_Sums]) -> list[_Sums]:
    first, *others = (len(keys) for keys, _ in pieces)
    return pieces if sum(others) < max(first, _AT_ONCE) else [_added_up(pieces)]


def _added_up(pieces: Sequence[_Sums]) -> _Sums:
    """The sums of each key, keys rising; what comes first is added first. Whole numbers to 2 ** 53 stay exact."""
    keys, sums = (np.concatenate(columns) for columns in zip(*pieces, strict=True))
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    keys, sums = keys[order], sums[order]
    new = np.append(True, (keys[1:] != keys[:-1]).any(axis=1))[: len(keys)]
    found = sums[new]
    with np.errstate(invalid="ignore", over="ignore"):
        np.add.at(found, np.cumsum(new)[~new] - 1, sums[~new])
    return keys[new], found


def _placed(
    own: Sequence[tuple[int, Window]], texts: Texts, losses: Mapping[Span, NDArray[np.float64]]
) -> Iterator[PlacedTokens]:
    told = token_losses(texts.documents, [window for _, window in own], losses)
    for (place, window), tokens in zip(own, told, strict=True):
        yield place, window.document, tokens
