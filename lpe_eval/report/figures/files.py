"""A figure becomes files: the same figure, the same bytes."""

import io
import warnings
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from lpe_eval.errors import OutputError
from lpe_eval.report.folders.atomic import write_atomically


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes `name.png` (200 dots an inch) and `name.svg`; the same figure gives the same bytes.

    Raises:
        OutputError: a file cannot be written.
    """
    paths = []
    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        content = io.BytesIO()
        with rc_context({"svg.hashsalt": "lpe-eval"}), warnings.catch_warnings():
            # A model's name may have characters that the font lacks; a box stands for them.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(content, format=ending, dpi=200, metadata=metadata)
        path = folder / f"{name}.{ending}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content.getvalue())
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; choose another folder") from error
        paths.append(path)
    return paths
