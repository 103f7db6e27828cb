"""Small files and texts that others wrote, read without surprises: bounded, and never as a program.

Whoever writes a YAML or JSON file may be careless or hostile, and the libraries answer with a dozen
kinds of exception, endless waiting (a named pipe) or all of the memory (aliases of aliases). Here
everything becomes `Unreadable`, whose message continues a sentence that begins with the file's name.

Choices:
    * Only regular files are read: a pipe without a writer would wait for ever, a device has no end.
    * A key that stands twice in a mapping is refused, since YAML's readers take the last in silence; where
      another program's file is read, as that program reads it.
    * YAML is read with `yaml.safe_load`. Aliases (`*name`) are refused, because nine lines of them
      make a structure of a billion parts, and so is what is nested deeper than 64 levels or longer
      than 256 KiB, since the parser is slow and a configuration is short.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

_DEEPEST = 64
_MOST_YAML = 1 << 18
_OPENING = (yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken, yaml.FlowMappingStartToken,
            yaml.FlowSequenceStartToken)  # fmt: skip
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_MANY = 1 << 28
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
"""Opening a pipe would wait for someone to write to it. Windows has no pipes among its files, and no such flag."""
_IRREGULAR = "cannot be read: it is no regular file; save its content to one and name that"
_TELLING = (yaml.YAMLError, ValueError, RecursionError)
_ODD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Unreadable(ValueError):
    """A file or a text cannot be read; the message is the second half of a sentence: "is not YAML: ..."."""


def read_plain(path: Path, most: int = _MANY) -> str:
    """The text of a regular file of at most `most` bytes.

    Raises:
        Unreadable: it is missing, no regular file, too large, or not UTF-8.
    """
    try:
        # Not every system opens a folder.
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with os.fdopen(os.open(path, os.O_RDONLY | _AT_ONCE), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unreadable(_IRREGULAR)
            # In pieces, because one that is asked for is allocated, and files below /proc say that they have no bytes.
            content = b"".join(_chunks(file, most))
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"cannot be read: {error}") from error
    if len(content) > most:
        raise Unreadable(f"cannot be read: it has more than {most} bytes, which no such file needs")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"cannot be read: it is not UTF-8 (byte {error.start})") from error


def yaml_of(text: str, keys_once: bool = True) -> Any:
    """The value that a YAML text holds.

    Args:
        text: the YAML.
        keys_once: whether a key that stands twice in a mapping is refused.

    Raises:
        Unreadable: it is not YAML, or uses aliases, or is too long or too deep.
    """
    if len(text) > _MOST_YAML:
        raise Unreadable(f"is too long for a configuration: more than {_MOST_YAML} characters")
    depth = 0
    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken):
                raise Unreadable("uses a YAML alias (*name); write the value out")
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            if depth > _DEEPEST:
                raise Unreadable(f"is nested more than {_DEEPEST} levels deep; nothing that is asked for needs that")
        return yaml.load(text, _KeysOnce if keys_once else yaml.SafeLoader)
    except Unreadable:
        raise
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # PyYAML lets through whatever int, date and the like say of `!!int ''` or of 2020-99-99.
        detail = " ".join(str(error).split())[:300] if isinstance(error, _TELLING) else "a value does not fit its tag"
        raise Unreadable(f"is not YAML: {detail}") from error


def _chunks(file: BinaryIO, most: int) -> Iterator[bytes]:
    left = most + 1
    while left > 0 and (chunk := file.read(min(left, 1 << 20))):
        left -= len(chunk)
        yield chunk


class _KeysOnce(yaml.SafeLoader):
    """`yaml.SafeLoader` that refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            seen = [key.value for key, _ in node.value]
            twice = next((key for key in seen if seen.count(key) > 1), "a key")
            raise Unreadable(f"gives {str(twice)[:100]!r} twice; leave one out")
        return found


def endless_number(value: Any) -> str | None:
    """The first whole number in a plain value that no 64-bit computer counts to, as a few characters; else None."""
    parts: list[Any] = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, int) and not -(1 << 63) <= part < 1 << 63:
            digits = int(part.bit_length() * 0.30103)
            return f"of about {digits} digits" if digits > 300 else f"{part:.3g}"
        if isinstance(part, dict):
            parts += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            parts += part
    return None


def json_of(text: str | bytes) -> Any:
    """The value that a JSON text holds.

    Raises:
        Unreadable: it is not JSON, or too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise Unreadable("is not JSON: it is nested too deep") from error
    except ValueError as error:
        raise Unreadable(f"is not JSON: {str(error)[:300]}") from error


def has_utf8_form(value: Any) -> bool:
    """Whether every text in a plain value, keys included, can be written as UTF-8; half a surrogate pair cannot."""
    match value:
        case str():
            return printable(value) == value
        case dict():
            return all(has_utf8_form(part) for pair in value.items() for part in pair)
        case list() | tuple():
            return all(has_utf8_form(part) for part in value)
        case _:
            return True


def printable(text: str) -> str:
    """A text that has a UTF-8 form: what stands for a byte that is not UTF-8 becomes an escape such as `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def at_home(path: str) -> str:
    """A path with `~` or `~someone` at its beginning written out; unchanged where the machine knows no such home."""
    if not path.startswith("~"):
        return path
    someone, slash, rest = path.partition("/")
    try:
        return f"{Path(someone).expanduser()}{slash}{rest}"
    except RuntimeError:
        return path


def first_line(error: BaseException) -> str:
    """The first line of what another library says went wrong, and the next where the first only announces it."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    return (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0]).rstrip(".")
