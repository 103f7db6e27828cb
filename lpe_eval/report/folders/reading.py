"""Reading a finished or interrupted run back, with the column types that `table.py` declares."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.plain import Unreadable, json_of, yaml_of
from lpe_eval.table import Column

MARKER = "run.json"
"""Says which run a folder holds, and in which version of the table."""


UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What is raised where a stored value is not of the kind that its column declares."""


_KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "Int64": (int,), "float64": (int, float), "boolean": (bool,)}


class Run(NamedTuple):
    """Everything a run left behind."""

    rows: pd.DataFrame
    cost: pd.DataFrame
    by_document: pd.DataFrame
    by_position: pd.DataFrame
    spec: dict
    provenance: dict


def read_run(directory: Path) -> Run:
    """Reads the folder of a run.

    Raises:
        OutputError: it is no run, lacks a file, or was written in another version of the table.
    """
    if read_marker(directory) is None:
        raise OutputError(f"{directory} holds no run: it has no {MARKER}; give the folder that a run was written to")
    return Run(
        rows=read_csv(directory / "rows.csv", table.ROWS),
        cost=read_csv(directory / "cost.csv", table.COST),
        by_document=read_parquet(directory / "by_document.parquet", table.BY_DOCUMENT),
        by_position=read_parquet(directory / "by_position.parquet", table.BY_POSITION),
        spec=read_mapping(directory / "spec.yaml"),
        provenance=_read_provenance(directory / "provenance.json"),
    )


def read_marker(directory: Path) -> str | None:
    """The id of the run in a folder, or None where there is no run.

    Raises:
        OutputError: the marker is damaged, or the run is of another version of the table.
    """
    path = directory / MARKER
    try:
        marker = json_of(path.read_bytes())
        run, schema = marker["run"], marker["schema"]
        if type(run) is not str or type(schema) is not int:
            raise ValueError("a run has an id and the number of a schema")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}") from error
    except UNFIT as error:
        raise OutputError(f"{path} is damaged; choose another folder or write the run anew with --overwrite") from error
    if schema != table.SCHEMA:
        age = "a newer" if schema > table.SCHEMA else "an older"
        remedy = "update lpe-eval" if schema > table.SCHEMA else "measure anew, with --overwrite or another --out"
        raise OutputError(f"{directory} was written by {age} lpe-eval (table {schema}, here {table.SCHEMA}); {remedy}")
    return run


def read_csv(path: Path, columns: tuple[Column, ...]) -> pd.DataFrame:
    """A table of numbers and text; empty means missing in a column of numbers, and "" in one of text.

    Raises:
        OutputError: the file is missing or has other columns.
    """
    text = _read(path).decode("utf-8", errors="replace")
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
        told = " ".join(str(error).split())[:200]
        raise OutputError(f"{path} is damaged ({told}); run the same command again to write it anew") from error
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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise OutputError(f"{path} is missing; run the same command again to complete the run") from error
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}") from error


def read_parquet(path: Path, columns: tuple[Column, ...]) -> pd.DataFrame:
    """The declared columns of a table, with their types.

    Raises:
        OutputError: the file is missing or damaged.
    """
    content = _read(path)
    try:
        frame = pd.read_parquet(io.BytesIO(content), columns=[column.name for column in columns])
        return frame.astype({column.name: column.kind for column in columns})
    except (*UNFIT, OSError, MemoryError, pyarrow.ArrowException) as error:
        raise OutputError(f"{path} is damaged; run the same command again to write it anew") from error


def _read_provenance(path: Path) -> dict:
    found = read_mapping(path)
    models = found.get("models", {})
    if not isinstance(models, dict) or not all(isinstance(each, dict) for each in models.values()):
        raise OutputError(f"{path} is damaged; run the same command again to write it anew")
    return found


def read_mapping(path: Path) -> dict:
    """A YAML or JSON file that holds a mapping.

    Raises:
        OutputError: it is missing, damaged, or holds something else.
    """
    text = _read(path).decode("utf-8", errors="replace")
    try:
        found = yaml_of(text) if path.suffix == ".yaml" else json_of(text)
    except Unreadable as error:
        raise OutputError(f"{path} is damaged; run the same command again to write it anew") from error
    if not isinstance(found, dict):
        raise OutputError(f"{path} holds no mapping; run the same command again to write it anew")
    return found
