"""Baselines: small run folders that later runs are compared with.

    results/baselines/<name>/
        what its kind keeps              of perplexity rows.csv and by_document.parquet (and empty cost.csv and
                                         by_position.parquet), of `che` che.csv and by_string.parquet
        provenance.json  spec.yaml       where it was made, of what; `lpe-eval run spec.yaml` measures the same again
        run.json                         which run it is

It is a run folder in every respect, so whatever reads runs reads baselines. A name is looked up below
`results/baselines` and then among the baselines that come with the package. What has a slash is the path of any run's
folder, and so are `.`, `..` and what begins with `~`: a folder that happens to lie in the current directory is never
taken for the baseline of that name.

Refused as a baseline: a run that was interrupted, and one with a cell that failed, since a failure is an accident of
one day and not what later runs should be held to. `n/a` and `error` are answers and are kept.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from lpe_eval.errors import OutputError, SpecError, UnknownName
from lpe_eval.report.folders.atomic import put_back, write_folder
from lpe_eval.report.folders.folder import SPEC
from lpe_eval.report.folders.marker import MARKER, read_marker
from lpe_eval.report.folders.provenance import NAME as PROVENANCE
from lpe_eval.report.frames import read_bytes
from lpe_eval.spec.released import BASELINES, baseline_names, shipped_baselines

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def find_baseline(text: str) -> Path:
    """The folder of the baseline called `text`, or of the run at that path.

    Raises:
        OutputError: there is a folder at that path, and it holds no run.
        UnknownName: there is no baseline of that name.
        SpecError: there is no folder at that path, or the name is that of a folder and of no baseline.
    """
    if {"/", os.sep} & set(text) or text in (".", "..") or text.startswith("~"):
        return _run_at(Path(text).expanduser())
    places = (BASELINES, *shipped_baselines())
    if _NAME.fullmatch(text):
        with contextlib.suppress(OSError):
            put_back(BASELINES / text)
        for place in places:
            if read_marker(place / text) is not None:
                return place / text
    if read_marker(Path(text)) is not None:
        raise SpecError(f"there is no baseline named {text!r}; for the folder of that name write ./{text}")
    if Path(text).is_dir():
        way = f"make one with lpe-eval compare RUN --bless {text}"
        raise SpecError(f"there is no baseline named {text!r}; {way}")
    raise UnknownName("baseline", text, baseline_names() or {"none; make one with lpe-eval compare RUN --bless NAME"})


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
    target = BASELINES / name
    taken = SpecError(f"there is a baseline {target}; replace it with --overwrite or choose another name")
    kept = {each: read_bytes(folder / each) for each in (PROVENANCE, SPEC, MARKER)}

    def fill(partial: Path) -> None:
        for each, bytes_ in {**content, **kept}.items():
            (partial / each).write_bytes(bytes_)

    try:
        put_back(target)
        if target.exists() and not overwrite:
            raise taken
        if target.exists() and read_marker(target) is None:
            raise OutputError(f"{target} holds files that are no baseline; choose another name")
        write_folder(target, fill, overwrite)
    except OSError as error:
        if isinstance(error, FileExistsError) and target.is_dir():
            raise taken from error
        raise OutputError(f"cannot write {target}: {error.strerror}; the run itself is untouched") from error
    return target


def _run_at(path: Path) -> Path:
    if read_marker(path) is not None:
        return path
    if path.is_dir():
        raise OutputError(f"{path} holds no run: it has no {MARKER}; give the folder that a run was written to")
    raise SpecError(f"there is no folder {path}; give the folder that a run was written to, or a baseline's name")
