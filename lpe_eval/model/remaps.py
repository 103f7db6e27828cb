"""Other distances for RoPE at inference: near ones as they are, far ones mapped to what training has shown.

RoPE's logits depend on a distance. Each method here keeps the distance of near keys and gives far keys a smaller one,
always as a difference of a number of the query and a number of the key, so that two rotations make it:

    ReRoPE             i - j < w                near
                       else                     w - 0
    leaky ReRoPE       i - j < w                near
                       else                     (i + w (s - 1)) / s - j / s
    Self-Extend        i - j < W                near
                       else                     i // G + W - W // G - j // G
    dual chunk (DCA)   the query's own chunk    near
    c = size - local   the chunk before it      min(i % c + c, size) - j % c
                       older chunks             min(2 c - 1, size) - j % c

Sources: bojone/rerope at acfe788 (`rerope_patch.py`, `leaky_rerope_patch.py`); datamllab/LongLM at cdbbb06 (Jin et al.
2024, arXiv 2401.01325); HKUNLP/ChunkLlama at 2add4d7 (An et al. 2024, arXiv 2402.17463).
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lpe_eval.model.positions import known_of

Division = Literal["floor", "real"]
LengthFactor = Literal["none", "chunkllama", "vllm"]
Positions = Int[Tensor, " n"]


class KeyRange(NamedTuple):
    """The keys at positions first(i) <= j < beyond(i) of a query at i, all at the distance query(i) - key(j).

    Attributes:
        first: where the keys begin; it grows by 0 or by 1 from one query to the next, but for jumps at `period`.
        beyond: where they end, exclusive; likewise.
        query: the query's number, in float64.
        key: a key's number, in float64.
        mapped: False where the distance is i - j itself, so that nothing has to be turned.
    """

    first: Callable[[Positions], Positions]
    beyond: Callable[[Positions], Positions]
    query: Callable[[Positions], Float[Tensor, " n"]]
    key: Callable[[Positions], Float[Tensor, " n"]]
    mapped: bool = True


class DistanceMap(NamedTuple):
    """Ranges that hold every key of the past, and the query's own, exactly once.

    Attributes:
        ranges: the near one first.
        period: between two multiples of it, the bounds of a range go with the query or stay.
    """

    ranges: tuple[KeyRange, ...]
    period: int


def unmapped() -> DistanceMap:
    """Every distance as it is."""
    near = KeyRange(torch.zeros_like, lambda i: i + 1, _itself, _itself, mapped=False)
    return DistanceMap((near,), 1 << 40)


def rectified(window: int, factor: float = math.inf) -> DistanceMap:
    """Leaky ReRoPE, and ReRoPE for an infinite factor: beyond `window`, distances grow `factor` times more slowly."""

    def query(i: Positions) -> Float[Tensor, " n"]:
        return i.double() / factor + (window - window / factor)

    return _banded(window, query, lambda j: j.double() / factor)


def self_extend(window: int, group: int, division: Division = "floor") -> DistanceMap:
    """Self-Extend: beyond `window`, positions are counted in groups; `division` is that of the shift W - W / G."""
    shift = window - (window // group if division == "floor" else window / group)

    def in_groups(at: Positions) -> Float[Tensor, " n"]:
        return at.div(group, rounding_mode="floor").double()

    return _banded(window, lambda i: in_groups(i) + shift, in_groups)


def dual_chunk(size: int, local: int) -> DistanceMap:
    """Dual chunk attention with chunks of `size` - `local` tokens, and no distance beyond `size`."""
    length = size - local

    def begin(i: Positions) -> Positions:
        return i - i % length

    def within(at: Positions) -> Float[Tensor, " n"]:
        return (at % length).double()

    def before(i: Positions) -> Positions:
        return (begin(i) - length).clamp(min=0)

    return DistanceMap(
        (
            KeyRange(begin, lambda i: i + 1, _itself, _itself, mapped=False),
            KeyRange(before, begin, lambda i: (within(i) + length).clamp(max=size), within),
            KeyRange(
                torch.zeros_like,
                before,
                lambda i: torch.full_like(i, min(2 * length - 1, size), dtype=torch.float64),
                within,
            ),
        ),
        length,
    )


def in_range(keys: KeyRange, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Bool[Tensor, "q k"]:
    """Which keys are in a range of each query."""
    return (k_at >= keys.first(q_at)[:, None]) & (k_at < keys.beyond(q_at)[:, None])


def mirrored(keys: KeyRange, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Bool[Tensor, "q k"]:
    """Which keys of the future have the query in their range, as if they were the query and it a key."""
    return in_range(keys, k_at, q_at).T & (k_at > q_at[:, None])


def keys_within(keys: KeyRange, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> slice:
    """From the first key that is in a range of some query to the last; more where nobody knows without asking.

    Positions on a device are not asked: known ones that run on one by one are counted on the host.
    """
    everything, rows, columns = slice(0, len(k_at)), known_of(q_at), known_of(k_at)
    if q_at.device.type == "cpu":
        found = in_range(keys, q_at, k_at).any(dim=0).nonzero()
        return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)
    if rows is None or not rows.step or columns is None or columns.step != 1:
        return everything
    queries = torch.arange(rows.lowest, rows.highest + 1)
    start = max(0, int(keys.first(queries).min()) - columns.first)
    stop = min(len(k_at), int(keys.beyond(queries).max()) - columns.first)
    return slice(start, stop) if start < stop else slice(0, 0)


def mapped_distances(distances: DistanceMap, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, "q k"]:
    """The distance of each pair in float64, for reading and for tests; keys of the future have NaN."""
    found = torch.full((len(q_at), len(k_at)), math.nan, dtype=torch.float64, device=q_at.device)
    for each in distances.ranges:
        value = each.query(q_at)[:, None] - each.key(k_at)
        found = torch.where(in_range(each, q_at, k_at), value, found)
    return found


def log_n(at: Int[Tensor, " n"], original: int) -> Float[Tensor, " n"]:
    """What Su's rule multiplies the query at a position with: max(1, log(i + 1) / log(L0))."""
    return ((at + 1).float().log() / math.log(original)).clamp(min=1)


def length_factor(rule: LengthFactor, length: int, original: int) -> float:
    """What multiplies every logit of a text of `length` tokens, where the model was trained on `original`.

    `chunkllama` is (0.05 log(T / L0) + 1)^2 beyond L0, `vllm` is max(1, 0.1 log(T / L0) + 1)^2.
    """
    if rule == "none" or length <= original:
        return 1.0
    return (1 + (0.05 if rule == "chunkllama" else 0.1) * math.log(length / original)) ** 2


def _banded(
    window: int,
    query: Callable[[Positions], Float[Tensor, " n"]],
    key: Callable[[Positions], Float[Tensor, " n"]],
) -> DistanceMap:
    """Keys less than `window` away as they are, all others at query(i) - key(j)."""

    def border(i: Positions) -> Positions:
        return (i - window + 1).clamp(min=0)

    near = KeyRange(border, lambda i: i + 1, _itself, _itself, mapped=False)
    return DistanceMap((near, KeyRange(torch.zeros_like, border, query, key)), window)


def _itself(at: Positions) -> Float[Tensor, " n"]:
    return at.double()
