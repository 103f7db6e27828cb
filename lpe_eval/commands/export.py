"""The values of a run as files that other programs read."""

from collections.abc import Sequence
from pathlib import Path

from lpe_eval.errors import OutputError, SpecError, UnknownName
from lpe_eval.registry import EXPORTERS
from lpe_eval.report.exporter import Exporter
from lpe_eval.report.folders.atomic import write_atomically
from lpe_eval.report.frames import UNFIT
from lpe_eval.report.kind import open_folder


def export(folder: Path, form: str, out: Path, options: Sequence[str] = ()) -> list[Path]:
    """Writes a run in a format; gives the files.

    Args:
        folder: of the run.
        form: one of `EXPORTERS`.
        out: the folder that the files lie below; what is there already is replaced.
        options: of the format, each `NAME=VALUE`.

    Raises:
        UnknownName: there is no such format, or no such option of it.
        SpecError: the run has no values, or the format has no place for them.
        OutputError: the run is damaged, or a file cannot be written.
    """
    exporter: type[Exporter] = EXPORTERS.load(form)
    given: dict[str, str] = {}
    for each in options:
        name, equals, value = each.partition("=")
        if not equals:
            raise SpecError(f"--option {each!r} is not NAME=VALUE")
        if name not in exporter.options:
            raise UnknownName(f"option of {form}", name, exporter.options)
        given[name] = value
    found = open_folder(folder)
    try:
        files = exporter.files(found, given)
    except UNFIT as error:
        raise OutputError(f"{folder} holds what this program did not write ({error}); measure anew") from error
    written: list[Path] = []
    for name, content in files.items():
        path = out / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; choose another --out") from error
        written.append(path)
    return written
