"""Tables with the columns that `table.py` declares, as frames and as bytes: CSV and parquet, read back and written."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.table import Column

UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What is raised where a stored value is not of the kind that its column declares."""

_KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "Int64": (int,), "float64": (int, float), "boolean": (bool,)}


def read_csv(path: Path, columns: tuple[Column, ...]) -> pd.DataFrame:
    """A table of numbers and text; empty means missing in a column of numbers, and "" in one of text.

    Raises:
        OutputError: the file is missing or has other columns.
    """
    text = read_bytes(path).decode("utf-8", errors="replace")
    try:
        first, *lines = list(csv.reader(io.StringIO(text))) or [[]]
    except csv.Error as error:
        raise OutputError(f"{path} is damaged ({error}); run the same command again to write it anew") from error
    names = [column.name for column in columns]
    if first != names or any(len(line) != len(names) for line in lines):
        raise OutputError(f"{path} does not have the columns of this version of lpe-eval; measure anew")
    try:
        found = typed_frame(columns, [[_value(*pair) for pair in zip(columns, line, strict=True)] for line in lines])
    except UNFIT as error:
        detail = " ".join(str(error).split())[:200]
        raise OutputError(f"{path} is damaged ({detail}); run the same command again to write it anew") from error
    schemas = (
        set(found[table.SCHEMA_COLUMN.name].dropna()) - {table.SCHEMA} if table.SCHEMA_COLUMN in columns else set()
    )
    if schemas:
        raise OutputError(
            f"{path} was written in version {sorted(map(str, schemas))[0]} of the table, here it is {table.SCHEMA}; "
            "measure anew, with --overwrite or another --out"
        )
    return found


def typed_frame(columns: tuple[Column, ...], records: Iterable[Iterable[Any]]) -> pd.DataFrame:
    """A frame with the declared columns and types, also when there are no records."""
    values = list(zip(*records, strict=True)) or [()] * len(columns)
    pairs = zip(columns, values, strict=True)
    return pd.DataFrame({column.name: pd.Series(list(found), dtype=column.kind) for column, found in pairs})


def require_kinds(columns: tuple[Column, ...], records: Iterable[Sequence[Any]]) -> None:
    """Nothing, if a table can be made of the records and read back; missing values are None.

    Raises:
        ValueError: a value is not of its column's type, or of those in `UNFIT`.
    """
    records = list(records)
    typed_frame(columns, records)
    for record in records:
        for column, value in zip(columns, record, strict=True):
            if value is not None and type(value) not in _KINDS[column.kind]:
                raise ValueError(f"{column.name} cannot be {value!r}")


def csv_bytes(columns: tuple[Column, ...], records: Iterable[Iterable[Any]]) -> bytes:
    """The same records give the same bytes: full precision, missing as empty, newline line ends."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    writer.writerows([[_text(value) for value in record] for record in records])
    return text.getvalue().encode("utf-8")


def read_parquet(path: Path, columns: tuple[Column, ...]) -> pd.DataFrame:
    """The declared columns of a table, with their types.

    Raises:
        OutputError: the file is missing or damaged.
    """
    content = read_bytes(path)
    try:
        frame = pd.read_parquet(io.BytesIO(content), columns=[column.name for column in columns])
        return frame.astype({column.name: column.kind for column in columns})
    except (*UNFIT, OSError, MemoryError, pyarrow.ArrowException) as error:
        raise OutputError(f"{path} is damaged; run the same command again to write it anew") from error


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as mappings; missing values are None."""
    plain = frame.astype(object)
    return [
        {str(name): value for name, value in row.items()} for row in plain.where(plain.notna(), None).to_dict("records")
    ]


def plain_csv(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> bytes:
    """A CSV file whose columns nobody declared; None is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    return text.getvalue().encode("utf-8")


def read_bytes(path: Path) -> bytes:
    """The content of a file of a run.

    Raises:
        OutputError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise OutputError(f"{path} is missing; run the same command again to complete the run") from error
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}") from error


def _text(value: str | int | float | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def _value(column: Column, text: str) -> str | int | float | None:
    if column.kind == "string":
        return text
    if column.kind == "Int64":
        return int(text) if text else None
    return float(text) if text else math.nan
