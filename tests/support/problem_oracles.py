"""The fifteen problems one string at a time, in plain Python: what the batched code is compared with.

`DRAW[name](length, rng)` is a string, `ANSWER[name](tokens)` its answer and how much of it counts.
Expressions are evaluated by Python's own `eval`, equations by trying every digit, numbers as integers.
"""

import itertools
import math
import random
from collections.abc import Callable


def bits(length: int, rng: random.Random) -> list[int]:
    return [rng.randint(0, 1) for _ in range(length)]


def cycle(length: int, rng: random.Random) -> list[int]:
    return [rng.randint(0, 2) for _ in range(length)]


def symbols(length: int, rng: random.Random) -> list[int]:
    return [rng.randint(0, 4) for _ in range(length)]


def simple_arithmetic(length: int, rng: random.Random) -> list[int]:
    odd = length if length % 2 else length - 1
    return [rng.randint(5, 7) if at % 2 else rng.randint(0, 4) for at in range(odd)]


def stack(length: int, rng: random.Random) -> list[int]:
    if length == 1:
        return bits(1, rng)
    content = rng.randint(1, length - 1)
    return bits(content, rng) + [rng.randint(2, 4) for _ in range(length - content)]


def expression(length: int, rng: random.Random, operators: str) -> str:
    if length < 5:
        return {1: "{}", 2: "-{}", 3: "({})", 4: "(-{})"}[length].format(rng.randint(0, 4))
    left = rng.randint(1, length - 4)
    first = expression(left, rng, operators)
    second = expression(length - 3 - left, rng, operators)
    return f"({first}{rng.choice(operators)}{second})"


def bracketed(length: int, rng: random.Random) -> list[int]:
    return ["01234+-*()".index(character) for character in expression(length, rng, "+-*")]


def equation(length: int, rng: random.Random) -> list[int]:
    if length < 3:
        return [0] * length
    text = expression(length - 2, rng, "+-")
    value = eval(text) % 5
    at = rng.randrange(len(text))
    while not text[at].isdigit():
        at = (at + 1) % len(text)
    return ["01234+-()x=".index(character) for character in f"{text[:at]}x{text[at + 1 :]}={value}"]


def missing(length: int, rng: random.Random) -> list[int]:
    if length == 1:
        return [1]
    twice = bits(length // 2, rng) * 2
    twice[rng.randrange(len(twice))] = 2
    return twice + [3] * (length % 2)


def little_endian(number: int, places: int) -> list[int]:
    return [int(digit) for digit in reversed(f"{number:b}".zfill(places))]


def operands(length: int, rng: random.Random) -> list[int]:
    if length <= 2:
        return little_endian(rng.randrange(2**length - 1), length)
    size = rng.randint(1, length - 2)
    first, second = (rng.randint(1, 2**each - 1) for each in (size, length - 1 - size))
    return [*little_endian(first, size), 2, *little_endian(second, length - 1 - size)]


def big_endian(length: int, rng: random.Random) -> list[int]:
    return little_endian(rng.randint(1, 2**length - 1), length)[::-1]


def number(tokens: list[int]) -> int:
    """A little-endian number."""
    return int("".join(map(str, reversed(tokens))), 2)


def whole(target: list[int]) -> tuple[list[int], int]:
    return target, len(target)


def ended(digits: list[int], places: int) -> tuple[list[int], int]:
    return [*digits, 2] + [0] * (places - len(digits) - 1), len(digits) + 1


def run_stack(tokens: list[int]) -> tuple[list[int], int]:
    content: list[int] = []
    for token in tokens:
        if token == 2:
            content = content[:-1]
        else:
            content.append(token % 3)
    return ended(content[::-1], len(tokens) + 1)


def solve(tokens: list[int]) -> tuple[list[int], int]:
    if len(tokens) < 3:
        return [0], 1
    left, right = "".join("01234+-()x="[token] for token in tokens).split("=")
    (solution,) = [x for x in range(5) if eval(left.replace("x", str(x))) % 5 == int(right)]
    return [solution], 1


def find_missing(tokens: list[int]) -> tuple[list[int], int]:
    if len(tokens) == 1:
        return [1], 1
    half = len(tokens) // 2
    pair = {tokens[tokens.index(2) % half], tokens[tokens.index(2) % half + half]} - {2}
    return [pair.pop()], 1


def add(tokens: list[int]) -> tuple[list[int], int]:
    if len(tokens) <= 2:
        return ended(little_endian(number(tokens), 0), len(tokens) + 1)
    at = tokens.index(2)
    return ended(little_endian(number(tokens[:at]) + number(tokens[at + 1 :]), 0), len(tokens) + 1)


def multiply(tokens: list[int]) -> tuple[list[int], int]:
    if len(tokens) <= 2:
        return ended([0] * (len(tokens) - 1), len(tokens))
    at = tokens.index(2)
    return ended(little_endian(number(tokens[:at]) * number(tokens[at + 1 :]), 0), len(tokens))


def square_root(tokens: list[int]) -> tuple[list[int], int]:
    places = math.ceil(len(tokens) / 2)
    return whole(little_endian(math.isqrt(number(tokens[::-1])), places)[::-1])


def evaluate(tokens: list[int]) -> tuple[list[int], int]:
    return [eval("".join("01234+-*()"[token] for token in tokens)) % 5], 1


DRAW: dict[str, Callable[[int, random.Random], list[int]]] = {
    "even_pairs": bits,
    "modular_arithmetic": simple_arithmetic,
    "parity_check": bits,
    "cycle_navigation": cycle,
    "stack_manipulation": stack,
    "reverse_string": bits,
    "modular_arithmetic_brackets": bracketed,
    "solve_equation": equation,
    "duplicate_string": bits,
    "missing_duplicate_string": missing,
    "odds_first": bits,
    "binary_addition": operands,
    "binary_multiplication": operands,
    "compute_sqrt": big_endian,
    "bucket_sort": symbols,
}

ANSWER: dict[str, Callable[[list[int]], tuple[list[int], int]]] = {
    "even_pairs": lambda tokens: whole([sum(a != b for a, b in itertools.pairwise(tokens)) % 2]),
    "modular_arithmetic": evaluate,
    "parity_check": lambda tokens: whole([tokens.count(1) % 2]),
    "cycle_navigation": lambda tokens: whole([(tokens.count(2) - tokens.count(0)) % 5]),
    "stack_manipulation": run_stack,
    "reverse_string": lambda tokens: whole(tokens[::-1]),
    "modular_arithmetic_brackets": evaluate,
    "solve_equation": solve,
    "duplicate_string": lambda tokens: whole(tokens + tokens),
    "missing_duplicate_string": find_missing,
    "odds_first": lambda tokens: whole([tokens[at] for start in (1, 0) for at in range(start, len(tokens), 2)]),
    "binary_addition": add,
    "binary_multiplication": multiply,
    "compute_sqrt": square_root,
    "bucket_sort": lambda tokens: whole(sorted(tokens)),
}


def one_by_one(name: str, batch: int, length: int, rng: random.Random) -> tuple[list, list, list]:
    """A batch as the released code makes most of its own: a string, its answer, the next string."""
    inputs, targets, masks = [], [], []
    for _ in range(batch):
        tokens = DRAW[name](length, rng)
        target, counted = ANSWER[name](tokens)
        inputs.append(tokens)
        targets.append(target)
        masks.append([at < counted for at in range(len(target))])
    return inputs, targets, masks
