"""A text of which only the beginning may be needed: held in memory, or read from a file as far as is asked.

A budget of tokens reads some kilobytes of a file that may have many gigabytes. Its digest is over the whole file all
the same, in pieces, so memory does not grow with it.

Choices:
    * A byte-order mark of UTF-8 at the beginning is no part of a text: it is dropped, and the digest is without it.
    * UTF-16 and UTF-32 are refused by name, and so are zero bytes, which no text has.
"""

import codecs
import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lpe_eval.errors import DataError
from lpe_eval.plain import first_line

_PIECE = 1 << 20
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_MARK = codecs.BOM_UTF8


class Text:
    """A text that is held in memory.

    Args:
        text: all of it; bytes that are not UTF-8 may stand in it as surrogate escapes.
    """

    def __init__(self, text: str = "") -> None:
        self._text = text
        self._bytes: bytes | None = None

    def start(self, most: int) -> str:
        """The first `most` characters; fewer where the text has no more."""
        return self._text[:most]

    def whole(self) -> str:
        """All of it."""
        return self._text

    @property
    def n_bytes(self) -> int:
        """How many bytes it has."""
        return len(self._content())

    @property
    def digest(self) -> str:
        """SHA-256 of all its bytes."""
        return hashlib.sha256(self._content()).hexdigest()

    def _content(self) -> bytes:
        if self._bytes is None:
            self._bytes = text_bytes(self._text)
        return self._bytes


class FileText(Text):
    """A text that stays in its file.

    Args:
        open_file: opens the file's bytes; called once for each time it is read from its beginning.
        where: the file, for messages.
        size: its bytes, or None where that is known only when all was read.
    """

    def __init__(self, open_file: Callable[[], Any], where: str, size: int | None = None) -> None:
        super().__init__()
        self._open, self._where, self._size = open_file, where, size
        self._sum: str | None = None

    def start(self, most: int) -> str:
        if len(self._text) < most:
            decoder = codecs.getincrementaldecoder("utf-8")()
            parts: list[str] = []
            left = most
            with reading(self._where), self._open() as file:
                while left > 0:
                    piece = file.read(min(max(left, 4096), _PIECE))
                    found = self._decoded(decoder, piece, first=not parts)
                    parts.append(found)
                    left -= len(found)
                    if not piece:
                        break
            self._text = "".join(parts)
        return self._text[:most]

    def whole(self) -> str:
        with reading(self._where), self._open() as file:
            return decoded(file.read(), self._where)

    @property
    def n_bytes(self) -> int:
        if self._size is None:
            self._read_all()
        return self._size or 0

    @property
    def digest(self) -> str:
        if self._sum is None:
            self._read_all()
        return self._sum or ""

    def _read_all(self) -> None:
        summed, decoder, size = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")(), 0
        with reading(self._where), self._open() as file:
            while True:
                piece = file.read(_PIECE)
                self._decoded(decoder, piece, first=size == 0)
                content = piece.removeprefix(_MARK) if size == 0 else piece
                summed.update(content)
                size += len(piece)
                if not piece:
                    break
        self._sum, self._size = summed.hexdigest(), size

    def _decoded(self, decoder: codecs.IncrementalDecoder, piece: bytes, first: bool) -> str:
        refuse_other(piece, self._where, first)
        try:
            found = decoder.decode(piece.removeprefix(_MARK) if first else piece, final=not piece)
        except UnicodeDecodeError as error:
            raise DataError(f"{self._where} is not UTF-8 ({error.reason}); convert it to UTF-8") from error
        return found


def decoded(content: bytes, where: str) -> str:
    """The text of some bytes, without a byte-order mark.

    Raises:
        DataError: they are not UTF-8.
    """
    refuse_other(content, where, first=True)
    try:
        return content.removeprefix(_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 (byte {error.start}); convert it to UTF-8") from error


def refuse_other(content: bytes, where: str, first: bool) -> None:
    """Refuses bytes that are no UTF-8 text, and says what they look like.

    Raises:
        DataError: they begin with the mark of another encoding, or hold a zero byte.
    """
    if first:
        for mark, name in _MARKS.items():
            if content.startswith(mark):
                raise DataError(f"{where} is {name}, not UTF-8; convert it: iconv -f {name} -t UTF-8")
    if b"\0" not in content:
        return
    even, odd = (content[:4096][side::2].count(0) for side in (0, 1))
    if (even == 0) != (odd == 0) and 6 * (even + odd) >= len(content[:4096]):
        order = "LE" if odd else "BE"
        raise DataError(f"{where} looks like UTF-16, not UTF-8; convert it: iconv -f UTF-16{order} -t UTF-8")
    raise DataError(f"{where} looks like binary data, not text; token ids belong in a .bin file")


def text_bytes(text: str) -> bytes:
    """The bytes of a text; escaped ones come back as they were in the file."""
    return text.encode("utf-8", "surrogateescape")


@contextmanager
def reading(where: str) -> Iterator[None]:
    """One sentence for a file that cannot be read or decompressed.

    Raises:
        DataError: with what the library says.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or first_line(error)}") from error
    except (EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{where} cannot be read: {first_line(error)}; it may be cut short or damaged") from error
