"""The base of every folder of results: held by one process, refusing other people's files, resumable.

    run.json           the marker: which run, of which kind, in which version of the tables; written last of a start
    spec.yaml          what was asked, fully resolved
    provenance.json    where and with what it was made
    .lock              held by the process that writes

Choices:
    * A folder without a marker that holds anything but the beginnings of a start is somebody else's: it is never
      written to. A folder with a marker may hold other files beside the run; they are never touched.
    * Trainings and speed measurements had no marker at first. A folder with their spec, word for word, is theirs.
    * Discarding a run removes its folders first and the marker last, so that a discarding that was cut short leaves
      a folder that is still known as a run's.
    * A run that ended before it had anything to keep gives its folder to the next, whatever that asks.
    * The lock is the kernel's (flock), so it goes with the process, whatever ends it.
    * Shards of one run fill a folder together and without a lock; see `shared.py`. They discard nothing.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lpe_eval import table
from lpe_eval.errors import OutputError, SpecError
from lpe_eval.lock import LOCK, hold, release
from lpe_eval.report.folders.atomic import PARTIAL, write_atomically
from lpe_eval.report.folders.marker import MARKER, read_marker
from lpe_eval.report.folders.provenance import NAME as PROVENANCE
from lpe_eval.report.folders.provenance import earlier_provenance, provenance_bytes
from lpe_eval.report.folders.shared import PARTS, Sharing, agree

SPEC = "spec.yaml"
_PROBE = ".probe"
Held = TypeVar("Held", bound="RunFolder")


class Layout(NamedTuple):
    """What a kind of run writes into its folder, beside the marker, the spec and the provenance.

    Attributes:
        files: removed with the run.
        folders: removed with the run, before the files.
        early: folders that a start makes before the marker is there.
        unmarked: folders of this kind were once written without a marker.
    """

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    unmarked: bool = False

    @property
    def all_files(self) -> tuple[str, ...]:
        """In the order of removal: while the marker (or at least the spec) is there, the folder is a run's."""
        return (*self.files, PROVENANCE, SPEC, MARKER)


class RunFolder:
    """A folder that this process writes to, alone unless it shares it, until `close` or the end of `with`.

    Args:
        directory: made if it is not there.
        layout: what a run of this kind writes.
        kind: name of the kind.
        run: id of the run.
        spec_text: the resolved spec, stored as `spec.yaml`.
        overwrite: discard the run that the folder holds, this one or another.
        begun: more names that an unmarked folder may hold.
        sharing: how this process takes part where several fill the folder; None where it is alone.

    Raises:
        OutputError: the folder cannot be written, another process writes to it, or it holds another run or files that
            are no run.
        SpecError: shards that planned something else fill it.
    """

    def __init__(
        self,
        directory: Path,
        layout: Layout,
        kind: str,
        run: str,
        spec_text: str,
        overwrite: bool = False,
        begun: tuple[str, ...] = (),
        sharing: Sharing | None = None,
    ) -> None:
        self.directory, self.run, self._layout, self._sharing = directory, run, layout, sharing
        self._lock: int | None = None
        try:
            with _explained(directory):
                directory.mkdir(parents=True, exist_ok=True)
                _refuse_foreign(directory, layout, spec_text, begun if sharing is None else (*begun, PARTS))
            if sharing is None:
                self._lock = hold(directory)
                with _explained(directory):
                    _prove_writable(directory)
                    self._make_room(spec_text, overwrite)
            else:
                _refuse_other(directory, run)
                with _explained(directory):
                    agree(directory, sharing.plan)
            with _explained(directory):
                for name in layout.early:
                    (directory / name).mkdir(exist_ok=True)
                    for left in (directory / name).glob(f".*{PARTIAL}") if sharing is None else ():
                        left.unlink()
            self._write(SPEC, self._spec_to_store(spec_text).encode("utf-8"))
            self._write(MARKER, json.dumps({"kind": kind, "run": run, "schema": table.SCHEMA}).encode())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets another process write to the folder."""
        if self._lock is not None:
            release(self._lock, self.directory)
            self._lock = None

    def __enter__(self: Held) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def earlier_provenance(self) -> dict[str, Any]:
        """The provenance of the start that this one goes on with; empty if there is none that can be read."""
        return earlier_provenance(self.directory, self._provenance)

    def write_provenance(self, content: Mapping[str, Any]) -> None:
        """Writes where and with what the run was made.

        Raises:
            OutputError: it cannot be written.
        """
        self._write(self._provenance, provenance_bytes(content))

    @property
    def shared(self) -> bool:
        """Whether other processes may write to the folder meanwhile."""
        return self._sharing is not None

    @property
    def _provenance(self) -> str:
        return f"{PARTS}/shard-{self._sharing.name}.json" if self._sharing and self._sharing.name else PROVENANCE

    def _spec_to_store(self, spec_text: str) -> str:
        return spec_text

    def _kept(self) -> str:
        """What a full disk does not cost."""
        return "what was written before is kept"

    def _write(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all."""
        path = self.directory / name
        try:
            write_atomically(path, content, self.shared)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; {self._kept()}") from error

    def _make_room(self, spec_text: str, overwrite: bool) -> None:
        if overwrite:
            _discard(self.directory, self._layout)
            return
        found = read_marker(self.directory)
        if found not in (None, self.run) and _is_bare(self.directory, self._layout):
            _discard(self.directory, self._layout)
            return
        other = found is None and self._layout.unmarked and _spec_of(self.directory) not in (None, spec_text)
        remedy = "choose another --out or discard it with --overwrite"
        if found not in (None, self.run):
            raise OutputError(f"{self.directory} holds another run ({found}, not {self.run}); {remedy}")
        if other:
            raise OutputError(f"{self.directory} holds another run, of another spec; {remedy}")


def _refuse_other(directory: Path, run: str) -> None:
    found = read_marker(directory)
    if found not in (None, run):
        raise SpecError(
            f"{directory} holds another run ({found}, not {run}); give every shard the same flags, models, text and "
            "version, or another --out"
        )


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write to {directory}: {error.strerror}; choose another --out") from error


def _refuse_foreign(directory: Path, layout: Layout, spec_text: str, more: tuple[str, ...]) -> None:
    present = {path.name for path in directory.iterdir() if not path.name.endswith(PARTIAL)}
    if MARKER in present:
        return
    begun = {LOCK, _PROBE, SPEC, *layout.early, *more}
    if layout.unmarked:
        # Of an earlier version: all of the files that belong to such a run, or its very spec.
        begun |= {*layout.all_files, *layout.folders} if SPEC in present else set()
        begun |= present if _spec_of(directory) == spec_text else set()
    foreign = sorted(present - begun)
    if foreign:
        raise OutputError(f"{directory} holds files that are no run ({foreign[0]}); choose another --out")


def _spec_of(directory: Path) -> str | None:
    try:
        return (directory / SPEC).read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def _prove_writable(directory: Path) -> None:
    probe = directory / _PROBE
    write_atomically(probe, b"written to see whether results can be\n")
    probe.unlink()


def _is_bare(directory: Path, layout: Layout) -> bool:
    """Whether a run ended before it had anything to keep; never of a kind that keeps its work elsewhere."""
    if not layout.files:
        return False
    inside = (path for name in {*layout.folders, *layout.early} for path in (directory / name).rglob("*"))
    kept = any(path.is_file() and not path.name.endswith(PARTIAL) for path in inside)
    return not kept and not any((directory / name).exists() for name in layout.files)


def _discard(directory: Path, layout: Layout) -> None:
    try:
        for name in layout.folders:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(directory / name)
        for name in layout.all_files:
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove the earlier run in {directory}: {error.strerror}") from error
