"""The folder of a speed measurement.

    speed.csv     one case a row, with the columns that `table.SPEED` declares
    figures/      time relative to plain attention, and memory, against length

`speed.csv` is written whole after each length, so an interrupted measurement keeps what it has and
the same command goes on from there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpe_eval import table
from lpe_eval.report.folders.folder import Layout, RunFolder
from lpe_eval.report.frames import csv_bytes, read_csv, records

LAYOUT = Layout(files=("speed.csv",), folders=("figures",), unmarked=True)


class SpeedFolder(RunFolder):
    """One folder, held by this process until `close` or the end of `with`.

    Args:
        directory: made if it is not there.
        run: id of the run.
        spec_text: the resolved spec.
        overwrite: discard the measurement that the folder holds.

    Raises:
        OutputError: as `RunFolder`.
    """

    def __init__(self, directory: Path, run: str, spec_text: str, overwrite: bool = False) -> None:
        super().__init__(directory, LAYOUT, "speed", run, spec_text, overwrite)

    def rows(self) -> list[dict[str, Any]]:
        """What an earlier start has measured; missing numbers are None.

        Raises:
            OutputError: `speed.csv` is damaged or of another version.
        """
        path = self.directory / "speed.csv"
        return records(read_csv(path, table.SPEED)) if path.exists() else []

    def write_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes all cases measured so far.

        Raises:
            OutputError: they cannot be written; those written before are kept.
        """
        self._write("speed.csv", csv_bytes(table.SPEED, [[row[each.name] for each in table.SPEED] for row in rows]))
