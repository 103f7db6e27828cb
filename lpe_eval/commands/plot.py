"""What `lpe-eval plot` draws: the figures of one run again, or of several runs of one kind together."""

from collections.abc import Sequence
from pathlib import Path

from lpe_eval.errors import OutputError, SpecError
from lpe_eval.report.kind import open_folder


def plot(folders: Sequence[Path], out: Path) -> list[Path]:
    """Draws into `out` and gives the files.

    Raises:
        SpecError: a folder holds no run, or the runs cannot be drawn together.
        OutputError: a run is damaged, or a figure cannot be written.
    """
    found = [open_folder(folder) for folder in folders]
    other = next((each for each in found if each.kind is not found[0].kind), None)
    if other is not None:
        raise SpecError(f"{folders[0]} and {other.path} hold runs of different kinds; draw each kind by itself")
    try:
        return found[0].kind.draw(found, out)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Tables of the right columns may hold any numbers: a length of zero, one that no axis has room for.
        names = ", ".join(map(str, folders))
        raise OutputError(
            f"{names}: a table holds numbers that this program did not write; run it once more"
        ) from error
