"""`lpe-eval che` as it is typed, and a table that it wrote."""

import csv
from pathlib import Path

from typer.testing import CliRunner

from lpe_eval.cli import app


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def command(*flags: object):
    return CliRunner().invoke(app, ["che", *map(str, flags)], env={"COLUMNS": "400"})
