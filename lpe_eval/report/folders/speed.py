"""The folder of a speed measurement, and its figures.

    spec.yaml          what was asked, fully resolved
    speed.csv          one case a row, with the columns that `table.SPEED` declares
    provenance.json    code, libraries, machine
    figures/           time relative to plain attention, and memory, against length

`speed.csv` is written whole after each length, so an interrupted measurement keeps what it has and
the same command goes on from there.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.report.figures.ppl import save
from lpe_eval.report.figures.style import STYLE, looks_of
from lpe_eval.report.figures.ticks import readable, readable_ticks, short_length, thinned
from lpe_eval.report.folders.atomic import PARTIAL
from lpe_eval.report.folders.lock import LOCK, HeldFolder
from lpe_eval.report.folders.reading import csv_bytes, read_csv
from lpe_eval.table import LABELS

_FILES = ("speed.csv", "provenance.json", "spec.yaml")


class SpeedFolder(HeldFolder):
    """One folder, held by this process until `close` or the end of `with`; writes are whole or not at all.

    Args:
        directory: made if it is not there.
        spec_text: the resolved spec.
        overwrite: discard the measurement that the folder holds.

    Raises:
        OutputError: the folder holds another measurement or other files, cannot be written, or another process writes
            to it.
    """

    def __init__(self, directory: Path, spec_text: str, overwrite: bool = False) -> None:
        super().__init__(directory)
        spec = directory / "spec.yaml"
        try:
            present = {path.name for path in directory.iterdir() if not path.name.endswith(PARTIAL)}
            foreign = sorted(present - {*_FILES, "figures", LOCK})
            if foreign:
                raise OutputError(f"{directory} holds other files ({foreign[0]}); choose another --out")
            if overwrite:
                for name in _FILES:
                    (directory / name).unlink(missing_ok=True)
            elif spec.exists() and spec.read_bytes() != spec_text.encode():
                raise OutputError(f"{directory} holds another measurement; choose another --out or add --overwrite")
            self._write("spec.yaml", spec_text.encode("utf-8"))
        except OSError as error:
            self.close()
            raise OutputError(f"cannot write to {directory}: {error.strerror}; choose another --out") from error
        except BaseException:
            self.close()
            raise

    def rows(self) -> list[dict[str, Any]]:
        """What an earlier start has measured; missing numbers are None.

        Raises:
            OutputError: `speed.csv` is damaged or of another version.
        """
        path = self.directory / "speed.csv"
        if not path.exists():
            return []
        frame = read_csv(path, table.SPEED).astype(object)
        return frame.where(frame.notna(), None).to_dict("records")

    def write_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes all cases measured so far.

        Raises:
            OutputError: they cannot be written; those written before are kept.
        """
        self._write("speed.csv", csv_bytes(table.SPEED, [[row[each.name] for each in table.SPEED] for row in rows]))

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Writes where and with what it was measured.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps(provenance, indent=2, sort_keys=True, ensure_ascii=False)
        self._write("provenance.json", f"{text}\n".encode())


def draw_speed(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draws time relative to plain attention, then memory.

    Raises:
        OutputError: a file cannot be written.
    """
    columns = {"speed": "times_plain", "memory": "pass_memory_mib"}
    return [path for name, column in columns.items() for path in save(speed_figure(rows, column), folder, name)]


def speed_figure(rows: Sequence[Mapping[str, Any]], column: str) -> Figure:
    """A column against length, both logarithmic: a panel a mode, a line an encoding.

    Args:
        rows: rows of `speed.csv`.
        column: `times_plain` or `pass_memory_mib`; values that are missing or zero have no point.
    """
    shown = [row for row in rows if row[column] is not None and math.isfinite(row[column]) and row[column] > 0]
    looks = looks_of(str(row["encoding"]) for row in shown)
    modes = list(dict.fromkeys(str(row["mode"]) for row in shown)) or [""]
    values = [float(row[column]) for row in shown] or [1.0]
    low, high = min(values) / 1.15, max(values) * 1.15
    if column == "times_plain":
        # Differences of a few per cent are noise, and must not fill the panel.
        low, high = min(low, 0.6), max(high, 2.0)
    lengths = thinned(sorted({int(row["length"]) for row in shown}))
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(2.4 + 2.8 * len(modes), 3.2), layout="constrained")
        panels = list(figure.subplots(1, len(modes), sharey=True, squeeze=False).flat)
        for mode, axes in zip(modes, panels, strict=True):
            axes.set(title=mode, xscale="log", yscale="log", ylim=(low, high), xlabel=LABELS["speed_length"])
            for encoding, look in looks.items():
                own = [row for row in shown if row["mode"] == mode and row["encoding"] == encoding]
                places = sorted((int(row["length"]), float(row[column])) for row in own)
                axes.plot([x for x, _ in places], [y for _, y in places], **look._asdict(), label=encoding)
            axes.xaxis.set_major_locator(FixedLocator([float(length) for length in lengths]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_length(value)))
            axes.yaxis.set_major_locator(FixedLocator(readable_ticks(low, high)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_minor_locator(NullLocator())
        panels[0].set_ylabel(LABELS[column])
        handles, names = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside right upper", frameon=False, handlelength=2.6)
    return figure
