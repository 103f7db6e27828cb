"""A folder whose run is made cell by cell: each finished cell is on disk at once, so an interrupted run goes on.

    cells/<name>.json    one finished cell each; the durable unit
    tables               made anew from the cells after each of them, in the order of the plan

A cell survives the death of the process at any moment; a table is always whole. A run that was interrupted and
resumed has the tables of one that was not, byte for byte.

Choices:
    * A cell file is JSON with `NaN` and `Infinity`, as Python writes them: only this class reads it.
    * A cell that failed is kept and shown, and made again on resume. `n/a` and `error` are answers and stay.
    * A damaged cell file counts as not made, and so does one of another run or of another version of the tables.
"""

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.plain import Unreadable, json_of, printable
from lpe_eval.report.folders.folder import Layout, RunFolder
from lpe_eval.report.folders.shared import Sharing
from lpe_eval.report.frames import UNFIT

CELLS = "cells"
Key = TypeVar("Key", bound=tuple)
Cell = TypeVar("Cell")


class CellFolder(RunFolder, Generic[Key, Cell]):
    """One folder of cells; a kind says what a cell holds and which tables come of them.

    Args:
        directory: made if it is not there.
        layout: what a run of this kind writes.
        kind: name of the kind.
        run: id of the run.
        spec_text: the resolved spec.
        overwrite: discard the run that the folder holds.
        sharing: how this process takes part where several fill the folder.

    Raises:
        OutputError, SpecError: as `RunFolder`.
    """

    def __init__(
        self,
        directory: Path,
        layout: Layout,
        kind: str,
        run: str,
        spec_text: str,
        overwrite: bool = False,
        sharing: Sharing | None = None,
    ) -> None:
        self._cells: dict[Key, Cell] = {}
        super().__init__(directory, layout, kind, run, spec_text, overwrite, sharing=sharing)
        try:
            self._cells = dict(cell for path in sorted((directory / CELLS).glob("*.json")) for cell in self._read(path))
        except BaseException:
            self.close()
            raise

    def finished(self) -> set[Key]:
        """Cells that need not be made again."""
        return {key for key, cell in self._cells.items() if not self._failed(cell)}

    def cells(self, order: Iterable[Key]) -> dict[Key, Cell]:
        """All cells, those of `order` first and in it."""
        places = {key: place for place, key in enumerate(dict.fromkeys(order))}
        keys = sorted(self._cells, key=lambda key: (places.get(key, len(places)), [str(part) for part in key]))
        return {key: self._cells[key] for key in keys}

    def cell_file(self, key: Key) -> Path:
        """The file of a cell, whether it is there or not."""
        return self.directory / CELLS / f"{self._file_name(key)}.json"

    def _save(self, key: Key, content: Mapping[str, Any]) -> None:
        """Writes one cell to disk, durably, before it returns.

        Raises:
            OutputError: it cannot be written; the cells saved before are kept.
        """
        head = {"schema": table.SCHEMA, "run": self.run, "key": list(key)}
        text = printable(json.dumps({**head, **content}, ensure_ascii=False))
        self._write(f"{CELLS}/{self._file_name(key)}.json", text.encode("utf-8"))
        # Read back as it will be after a restart, so that both give the same tables.
        self._cells |= dict([self._decoded(json.loads(text))])

    def _kept(self) -> str:
        return f"the {len(self._cells)} cells saved before are kept, and the same command goes on from there"

    def _file_name(self, key: Key) -> str:
        parts = [str(part)[-60:] for part in key if part is not None]
        readable = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(parts)).strip("-")[-120:]
        return f"{readable}-{hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:12]}"

    def _read(self, path: Path) -> list[tuple[Key, Cell]]:
        try:
            content = json_of(path.read_bytes())
            if content["schema"] != table.SCHEMA or content["run"] != self.run:
                return []
            return [self._decoded(content)]
        except (Unreadable, *UNFIT):
            return []
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror}") from error

    @abstractmethod
    def _failed(self, cell: Cell) -> bool:
        """Whether a cell has to be made again."""

    @abstractmethod
    def _decoded(self, content: Mapping[str, Any]) -> tuple[Key, Cell]:
        """A cell from its file; raises one of `UNFIT` where it is damaged."""
