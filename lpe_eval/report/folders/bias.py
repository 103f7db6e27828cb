"""The files that tell what each head adds: no run, since nothing is resumed or compared.

    bias.json             what was asked, of which model, where and with what it was made; written first
    bias.csv              a row a layer, head and octave of distance
    by_distance.parquet   a row a layer, head and distance
    figures/              a panel a layer

Another question's files are replaced only where that is asked for. Other files in the folder are never touched.
"""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from lpe_eval import bias_tables, table
from lpe_eval.errors import OutputError
from lpe_eval.plain import Unreadable, json_of, read_plain
from lpe_eval.records import LayerBias
from lpe_eval.report.folders.atomic import write_atomically
from lpe_eval.report.folders.provenance import provenance_bytes
from lpe_eval.report.frames import csv_bytes

FACTS, ROWS, BY_DISTANCE = "bias.json", "bias.csv", "by_distance.parquet"


class BiasFolder:
    """The folder of one question.

    Args:
        directory: made if it is not there.
        identity: hash of what is asked.
        overwrite: replace the files of another question.

    Raises:
        OutputError: it cannot be written, or holds the answer to another question.
    """

    def __init__(self, directory: Path, identity: str, overwrite: bool) -> None:
        self.directory = directory
        held = [name for name in (FACTS, ROWS, BY_DISTANCE) if (directory / name).exists()]
        if held and not overwrite and _identity(directory / FACTS) != identity:
            raise OutputError(
                f"{directory} holds {held[0]} of another model, text or position; choose another --out or replace it "
                "with --overwrite"
            )
        nearest = next(each for each in (directory, *directory.absolute().parents) if each.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise OutputError(f"cannot write to {directory}: {nearest} is no folder that can be written to")

    def write(self, rows: Sequence[Mapping[str, Any]], layers: Sequence[LayerBias], facts: Mapping[str, Any]) -> None:
        """Writes what made the tables, and then the tables.

        Args:
            rows: of `bias.csv`.
            layers: what they were made from.
            facts: with the id that the folder was opened with.

        Raises:
            OutputError: a file cannot be written.
        """
        for name in (ROWS, BY_DISTANCE):
            # Numbers of another question never stand beside the facts of this one.
            self._remove(name)
        self._write(FACTS, provenance_bytes(facts))
        lines = [[row[column.name] for column in bias_tables.BIAS] for row in rows]
        self._write(ROWS, csv_bytes(bias_tables.BIAS, lines))
        model, position = rows[0][table.MODEL.name], rows[0][bias_tables.QUERY.name]
        self._write(BY_DISTANCE, _parquet(layers, model, position))

    def _write(self, name: str, content: bytes) -> None:
        path = self.directory / name
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; choose another --out") from error

    def _remove(self, name: str) -> None:
        try:
            (self.directory / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {self.directory / name}: {error.strerror}") from error


def _identity(path: Path) -> str | None:
    try:
        found = json_of(read_plain(path))
    except Unreadable:
        return None
    return str(found.get("run")) if isinstance(found, dict) else None


def _parquet(layers: Sequence[LayerBias], model: str, position: int) -> bytes:
    """One row group for each layer, so that a model of many heads is never held twice."""
    content, writer = io.BytesIO(), None
    for layer in layers:
        found = pyarrow.Table.from_pandas(_frame(layer, model, position), preserve_index=False)
        writer = writer or pyarrow.parquet.ParquetWriter(content, found.schema)
        writer.write_table(found)
    assert writer is not None
    writer.close()
    return content.getvalue()


def _frame(layer: LayerBias, model: str, position: int) -> pd.DataFrame:
    heads, keys = layer.added.shape
    missing = np.full((heads, keys), np.nan)
    decay = missing if layer.decay is None else np.broadcast_to(layer.decay, (heads, keys))
    values: dict[str, Any] = {
        table.MODEL.name: pd.Categorical.from_codes(np.zeros(heads * keys, np.int8), [model]),
        bias_tables.QUERY.name: np.full(heads * keys, position),
        bias_tables.LAYER.name: np.full(heads * keys, layer.layer),
        bias_tables.HEAD.name: np.repeat(np.arange(heads), keys),
        table.DISTANCE.name: np.tile(layer.distance, heads),
        bias_tables.CONTENT.name: layer.content.ravel(),
        bias_tables.STATIC.name: (missing if layer.static is None else layer.static).ravel(),
        bias_tables.ADDED.name: layer.added.ravel(),
        bias_tables.ADDED_STDERR.name: layer.added_stderr.ravel(),
        bias_tables.OF_MEAN_KEY.name: (missing if layer.of_mean_key is None else layer.of_mean_key).ravel(),
        bias_tables.DECAY.name: decay.ravel(),
    }
    return pd.DataFrame({column.name: values[column.name] for column in bias_tables.BY_DISTANCE})
