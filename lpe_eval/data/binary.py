"""Binary numbers as rows of bits: how they are drawn, and exact arithmetic on a whole batch.

Two ways are exact at every length. Numbers of up to 62 bits are packed into int64 and stay on the
device. Longer ones become Python integers, a whole row at a time through its bytes: 500 bits cost about
a microsecond there, which limb arithmetic in torch, with its hundreds of small operations, does not
reach.

Numbers are uniform in 1 .. 2^n - 1, as in the released code. Uniform bits would also give zero, so the
first one is drawn from its exact distribution, P(first one at k) = 2^-(k+1) / (1 - 2^-n), and the bits
behind it are uniform. The place of the first one comes from a float64, which holds that distribution to
1 in 2^53.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lpe_eval.data.problem import Answer, uniform_below, uniform_tokens, with_end

_PACKED = 62
"""Most bits that are packed: results of one bit more still fit int64."""
OPERATOR = 2


def draw_operands(batch: int, length: int, generator: torch.Generator, device: torch.device) -> Int[Tensor, "b t"]:
    """Two little-endian numbers with the operator between them.

    The first has n digits, n uniform in 1 .. length-2, the second the rest; each is uniform in
    1 .. 2^digits - 1, so that it may end with zeros. Without room for an operator the row is one number,
    uniform in 0 .. 2^length - 2: the released code leaves out the largest.
    """
    at = torch.arange(length, device=device)
    if length <= 2:
        return uniform_below(2**length - 1, batch, generator, device)[:, None] >> at & 1
    place = 1 + uniform_below(length - 2, batch, generator, device)[:, None]
    ones = _first_one(torch.cat((place, place.neg().add_(length - 1)), dim=1), generator)
    ones[:, 1:].add_(place).add_(1)
    bits = uniform_tokens(batch, length, 2, generator, device)
    bits.mul_(at >= torch.where(at < place, ones[:, :1], ones[:, 1:]))
    return bits.scatter_(1, ones, 1).scatter_(1, place, OPERATOR)


def nonzero_bits(batch: int, length: int, generator: torch.Generator, device: torch.device) -> Int[Tensor, "b t"]:
    """Rows of bits, uniform among all but zero."""
    at = torch.arange(length, device=device)
    first = _first_one(torch.full((batch, 1), length, device=device), generator)
    bits = uniform_tokens(batch, length, 2, generator, device)
    return bits.mul_(at >= first).scatter_(1, first, 1)


def combine(inputs: Int[Tensor, "b t"], operation: Callable[[Any, Any], Any], output_length: int) -> Answer:
    """The result of an operation on two numbers, without superfluous zeros, and an end token.

    A row without an operator is one number, and combined with nothing. `operation` serves tensors and
    Python's integers alike.
    """
    length = inputs.shape[1]
    bits = inputs & 1  # the operator becomes a zero
    if length <= 2:
        result = torch.nn.functional.pad(bits, (0, output_length - length))
    else:
        place = inputs.argmax(1)
        if length <= _PACKED:
            numbers = _packed(bits)
            rest = numbers >> place
            result = _unpacked(operation(numbers - (rest << place), rest >> 1), output_length)
        else:
            wholes, places = _integers(bits), place.tolist()
            results = [
                operation(whole & ((1 << at) - 1), whole >> (at + 1)) for whole, at in zip(wholes, places, strict=True)
            ]
            result = _digits(results, output_length, inputs.device)
    at = torch.arange(1, output_length + 1, device=inputs.device)
    return with_end(result, (result * at).amax(1).clamp_(min=1))


def each_number(
    bits: Int[Tensor, "b t"],
    places: int,
    packed: Callable[[Int[Tensor, " b"]], Int[Tensor, " b"]],
    whole: Callable[[int], int],
) -> Int[Tensor, "b o"]:
    """A function of each little-endian number, in `places` little-endian digits.

    Args:
        bits: the numbers.
        places: digits of each result.
        packed: the function for all numbers at once, where they are below 2^62.
        whole: the function of one number of any size.
    """
    if bits.shape[1] <= _PACKED:
        return _unpacked(packed(_packed(bits)), places)
    return _digits([whole(number) for number in _integers(bits)], places, bits.device)


def _first_one(sizes: Int[Tensor, "b n"], generator: torch.Generator) -> Int[Tensor, "b n"]:
    """Draws the place of the first one in `sizes` bits that are not all zero, by inversion."""
    uniform = torch.rand(sizes.shape, dtype=torch.float64, generator=generator, device=sizes.device)
    # 1 - uniform * (1 - 2^-sizes), in place: what a call costs is all that counts at this size.
    tail = sizes.double().neg_().exp2_().neg_().add_(1).mul_(uniform).neg_().add_(1)
    return torch.minimum(tail.log2_().neg_().long(), sizes - 1)


def _packed(bits: Int[Tensor, "b t"]) -> Int[Tensor, " b"]:
    return (bits << torch.arange(bits.shape[1], device=bits.device)).sum(1)


def _unpacked(numbers: Int[Tensor, " b"], places: int) -> Int[Tensor, "b o"]:
    return (numbers[:, None] >> torch.arange(places, device=numbers.device)).bitwise_and_(1)


def _integers(bits: Int[Tensor, "b t"]) -> list[int]:
    rows = np.packbits(bits.cpu().numpy().astype(np.uint8), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


def _digits(numbers: list[int], places: int, device: torch.device) -> Int[Tensor, "b o"]:
    size = -(-places // 8)
    raw = b"".join([number.to_bytes(size, "little") for number in numbers])
    rows = np.frombuffer(raw, dtype=np.uint8).reshape(len(numbers), size)
    bits = np.unpackbits(rows, axis=1, count=places, bitorder="little")
    return torch.from_numpy(bits.astype(np.int64)).to(device)
