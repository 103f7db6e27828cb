"""Finished parts of long lengths, on disk until their cells are: `parts/<name>.json`, with losses of tokens beside.

A damaged file counts as not made, and so does one of another run, or of a length that was cut otherwise. Numbers are
written so that the same ones are read back.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.part_records import CellPart, NumberedBlocks, PartName, PartSums, Piece, PlacedTokens, numbered
from lpe_eval.plain import Unreadable, json_of, printable
from lpe_eval.records import TokenPart
from lpe_eval.report.folders.atomic import opened_atomically, write_atomically
from lpe_eval.report.folders.shared import PARTS
from lpe_eval.report.frames import UNFIT
from lpe_eval.table import BlockSum, CellKey, Facts, PositionSum

_NUMBERS = ("position", "token", "context", "byte_from", "n_bytes", "loss")
_TARGET = np.dtype(
    [("place", "i4"), ("document", "i4"), ("position", "i8"), ("token", "i8"), ("context", "i4"), ("byte_from", "i8"),
     ("n_bytes", "i4"), ("loss", "f4")]
)  # fmt: skip


class MissingParts(Exception):
    """Parts of a length are not there, or damaged.

    Attributes:
        numbers: of them.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(f"{len(numbers)} parts are missing")
        self.numbers = numbers


class PartStore:
    """The parts of one run in its folder.

    Args:
        directory: of the run.
        run: its id.
        private: whether other processes write to the folder meanwhile.
    """

    def __init__(self, directory: Path, run: str, private: bool) -> None:
        self._folder, self._run, self._private = directory / PARTS, run, private

    def path(self, name: PartName) -> Path:
        """The file of a part."""
        readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{name.model[-60:]}-{name.length}").strip("-")
        digest = hashlib.sha256(json.dumps(list(name)).encode()).hexdigest()[:12]
        return self._folder / f"{readable}-{name.number + 1}-of-{name.total}-{digest}.json"

    def read(self, name: PartName) -> PartSums | None:
        """A finished part; None where there is none."""
        try:
            content = json_of(self.path(name).read_bytes())
            if content["schema"] != table.SCHEMA or content["run"] != self._run:
                return None
            found = _decoded(content)
            return found if found.name == name else None
        except (Unreadable, FileNotFoundError, *UNFIT):
            return None
        except OSError as error:
            raise OutputError(f"cannot read {self.path(name)}: {error.strerror}") from error

    def of_length(self, piece: Piece) -> Iterator[PartSums]:
        """The parts of a length in their order, up to one without a value; memory holds one of them.

        Where one without a value comes before all that are missing, nothing is: the length has no value.

        Raises:
            MissingParts: at the first that is missing.
        """
        names = [PartName(piece.model, piece.length, at, piece.parts, piece.cut) for at in range(piece.parts)]
        for name in names:
            sums = self.read(name)
            if sums is None:
                others = (each.number for each in names[name.number + 1 :] if not self.has(each))
                raise MissingParts([name.number, *others])
            yield sums
            if sums.status != "ok":
                return

    def has(self, name: PartName) -> bool:
        """Whether the file of a part is there."""
        return self.path(name).exists()

    def save(self, sums: PartSums) -> None:
        """Writes a part to disk, durably, before it returns.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.path(sums.name)
        cells = [cell._replace(blocks=cell.blocks._asdict()) for cell in sums.cells]
        content = {"schema": table.SCHEMA, "run": self._run, **vars(sums), "facts": vars(sums.facts), "cells": cells}
        text = printable(json.dumps(content, ensure_ascii=False))
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomically(path, text.encode(), self._private)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; the parts before it are kept") from error

    def save_tokens(self, name: PartName, key: CellKey, targets: Iterable[PlacedTokens]) -> None:
        """Writes the losses of the targets of a cell in a part that is saved next.

        Raises:
            OutputError: they cannot be written.
        """
        path = self._tokens_of(name, key)
        try:
            self._folder.mkdir(exist_ok=True)
            with opened_atomically(path, self._private) as file:
                np.save(file, _joined(targets), allow_pickle=False)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; the parts before it are kept") from error

    def tokens(self, parts: Iterable[PartSums], key: CellKey) -> Iterator[TokenPart]:
        """The targets of a cell from its parts, window by window in the order of the cell; memory holds one window.

        Raises:
            OutputError: a file is missing or damaged.
        """
        pieces: list[tuple[int, np.ndarray, dict[int, tuple[str, str]]]] = []
        for each in parts:
            for cell in each.cells:
                if cell.key != key or not cell.blocks.block:
                    continue
                names = {number: (name, digest) for number, name, digest in cell.blocks.documents}
                held = self._mapped(each.name, key)
                ends = [0, *(np.flatnonzero(np.diff(held["place"])) + 1).tolist(), len(held)]
                pieces += [(int(held["place"][start]), held[start:stop], names) for start, stop in pairwise(ends)]
        for _, held, names in sorted(pieces, key=lambda piece: piece[0]):
            document, digest = names[int(held["document"][0])]
            yield TokenPart(document, digest, **{name: np.array(held[name]) for name in _NUMBERS})

    def remove(self, names: Iterable[PartName]) -> None:
        """Forgets parts whose cells are on disk, and the folder where nothing is left in it."""
        for path in map(self.path, names):
            for each in [*path.parent.glob(f"{path.stem}.*.npy"), path]:
                each.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _mapped(self, name: PartName, key: CellKey) -> np.ndarray:
        path = self._tokens_of(name, key)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise OutputError(f"{path} is missing or damaged; remove it and run the same command again") from error
        if found.dtype != _TARGET:
            raise OutputError(f"{path} is of another version of lpe-eval; remove it and run the same command again")
        return found

    def _tokens_of(self, name: PartName, key: CellKey) -> Path:
        path = self.path(name)
        digest = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:12]
        return path.with_name(f"{path.stem}.{digest}.npy")


def _joined(targets: Iterable[PlacedTokens]) -> np.ndarray:
    pieces = [np.zeros(0, _TARGET)]
    for place, document, each in targets:
        piece = np.zeros(len(each.position), _TARGET)
        piece["place"], piece["document"] = place, document
        for name in _NUMBERS:
            piece[name] = getattr(each, name)
        pieces.append(piece)
    return np.concatenate(pieces)


def _decoded(content: dict[str, Any]) -> PartSums:
    fields = {name: content[name] for name in PartSums.__dataclass_fields__}
    cells = []
    for key, blocks, positions, *numbers in content["cells"]:
        found = tuple(PositionSum(*each) for each in positions)
        cells.append(CellPart(CellKey(*key), _numbered(blocks), found, *numbers))
    return PartSums(
        **{**fields, "name": PartName(*content["name"]), "facts": Facts(**content["facts"]), "cells": tuple(cells)}
    )


def _numbered(blocks: dict[str, list[Any]] | list[list[Any]]) -> NumberedBlocks:
    if isinstance(blocks, list):
        # The form of earlier versions: a block was a list of its own, beside the number of its document.
        return numbered((document, BlockSum(*block)) for document, block in blocks)
    documents, *columns = (blocks[name] for name in NumberedBlocks._fields)
    if len(set(map(len, columns))) > 1:
        raise ValueError("columns of blocks have one length")
    return NumberedBlocks(tuple(map(tuple, documents)), *map(tuple, columns))
