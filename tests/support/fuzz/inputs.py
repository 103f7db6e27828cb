"""Inputs that nobody wrote on purpose, and the readers that get them."""

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hypothesis import strategies as st

from lpe_eval.errors import LpeEvalError

ODD = st.sampled_from(
    ["", " ", "\0", "\n", "０", "1e3", "nan", "-1", "~", "=", ":", "?", "&", "/", ".", "..", "*a", "&a", "!!int ''",
     "<<", "\ud800", "\udcff", "😀", "x" * 3000, "9" * 5000, "(" * 50, "[" * 300, "{", "}", "%", "None", "null",
     "true", "2020-99-99", "!!python/name:os.system", "alibi", "dape(alibi)", "last", "L/2", "512", "1:8:x2", "bytes"]
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(), st.integers(-9, 99), st.floats(), st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30, 0, 1])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, ODD, st.text(max_size=12)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(ODD | st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def altered(draw: st.DrawFn, valid: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """A valid structure of which up to three parts are replaced, left out or added."""
    held = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        inside, place = [held], held
        while True:
            children = list(place.values()) if isinstance(place, dict) else list(place)
            children = [each for each in children if isinstance(each, dict | list) and each]
            if not children or draw(st.booleans()):
                break
            place = draw(st.sampled_from(children))
            inside.append(place)
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        how = draw(st.sampled_from(["replace", "replace", "drop", "add"]))
        if how == "add" or not keys:
            if isinstance(place, dict):
                place[draw(ODD | st.text(max_size=6))] = draw(values)
            else:
                place.append(draw(values))
        elif how == "replace":
            place[draw(st.sampled_from(keys))] = draw(values)
        else:
            del place[draw(st.sampled_from(keys))]
    return held


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Valid bytes of which up to four pieces are overwritten, cut out, doubled or followed by others."""
    held = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(held) - 1)))
        size = draw(st.integers(1, 9))
        match draw(st.sampled_from(["flip", "write", "cut", "double", "insert", "end"])):
            case "flip" if held:
                held[at] ^= 1 << draw(st.integers(0, 7))
            case "write":
                piece = draw(st.binary(min_size=1, max_size=9))
                held[at : at + len(piece)] = piece
            case "cut":
                del held[at : at + size]
            case "double":
                held[at:at] = held[at : at + 8 * size]
            case "insert":
                held[at:at] = draw(st.binary(max_size=9) | ODD.map(lambda text: text.encode("utf-8", "replace")))
            case _:
                del held[at:]
    return bytes(held)


def anything(valid: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(damaged(valid), damaged(valid), st.binary(max_size=60), st.just(b""))


class Reader(NamedTuple):
    """A reader, what it is given, and a weight: how large a share of the inputs it gets."""

    name: str
    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], object]
    weight: float = 1.0


def in_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def in_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def each(*reads: Callable[[], object]) -> None:
    """Calls all of them, whatever the ones before came to."""
    for read in reads:
        with contextlib.suppress(LpeEvalError):
            read()
