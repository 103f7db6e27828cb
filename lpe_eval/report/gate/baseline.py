"""Baselines: small run folders that later runs are compared with.

    results/baselines/<name>/
        what its kind keeps              of perplexity rows.csv and by_document.parquet (and empty cost.csv and
                                         by_position.parquet), of `che` che.csv and by_string.parquet
        provenance.json  spec.yaml       where it was made, of what; `lpe-eval run spec.yaml` measures the same again
        run.json                         which run it is

It is a run folder in every respect, so whatever reads runs reads baselines. A name is looked up below the current
directory and then among the baselines that come with the package; a path is any run's folder.

Refused as a baseline: a run that was interrupted, and one with a cell that failed, since a failure is an accident of
one day and not what later runs should be held to. `n/a` and `error` are answers and are kept.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import lpe_eval
from lpe_eval.errors import OutputError, SpecError, UnknownName
from lpe_eval.report.folders.atomic import PARTIAL, write_atomically
from lpe_eval.report.folders.folder import SPEC
from lpe_eval.report.folders.marker import MARKER, read_marker
from lpe_eval.report.folders.provenance import NAME as PROVENANCE
from lpe_eval.report.frames import read_bytes

FOLDER = Path("results/baselines")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def find_baseline(text: str) -> Path:
    """The folder of a run at the path `text`, or of the baseline called so.

    Raises:
        OutputError: there is a folder at that path, and it holds no run.
        UnknownName: there is neither a folder nor a baseline.
    """
    path = Path(text).expanduser()
    if read_marker(path) is not None:
        return path
    places = (FOLDER, *_shipped())
    if _NAME.fullmatch(text):
        for place in places:
            if read_marker(place / text) is not None:
                return place / text
    if path.is_dir():
        raise OutputError(f"{path} holds no run: it has no {MARKER}; give the folder that a run was written to")
    known = {found.parent.name for place in places for found in place.glob(f"*/{MARKER}")}
    raise UnknownName("run or baseline", text, known or {"none; make one with lpe-eval compare RUN --bless NAME"})


def write_baseline(folder: Path, content: Mapping[str, bytes], name: str, overwrite: bool) -> Path:
    """Writes what later runs are compared with to `results/baselines/<name>`; it appears whole or not at all.

    Args:
        folder: where the run is, which is fit to be a baseline.
        content: what its kind keeps beside marker, spec and provenance.
        name: letters, digits, dots, dashes and underscores.
        overwrite: replace a baseline of that name.

    Raises:
        SpecError: the name is no name, is taken, or runs of this kind are never compared.
        OutputError: the baseline cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise SpecError(f"a baseline cannot be called {name!r}; use letters, digits, dots, dashes and underscores")
    target = FOLDER / name
    if target.exists() and not overwrite:
        raise SpecError(f"there is a baseline {target}; replace it with --overwrite or choose another name")
    if target.exists() and read_marker(target) is None:
        raise OutputError(f"{target} holds files that are no baseline; choose another name")
    kept = {each: read_bytes(folder / each) for each in (PROVENANCE, SPEC, MARKER)}
    partial, old = FOLDER / f".{name}{PARTIAL}", FOLDER / f".{name}.old{PARTIAL}"
    try:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        # The marker comes last, so that a folder that was cut short is no run's.
        for each, bytes_ in {**content, **kept}.items():
            write_atomically(partial / each, bytes_)
        if target.exists():
            target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}; the run itself is untouched") from error
    return target


def _shipped() -> list[Path]:
    """`results/baselines/` of the package: inside an installed one, beside it in a source checkout."""
    package = Path(lpe_eval.__file__).parent
    return [place for place in (package / "baselines", package.parent / FOLDER) if place.is_dir()]
