"""The marker of a folder of results: the file that says which run it holds, written last."""

from pathlib import Path

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.plain import json_of
from lpe_eval.report.frames import UNFIT

MARKER = "run.json"


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
