"""The source code of the running interpreter's standard library: a corpus that is on every machine.

Files are those ending in .py below the two folders of `sysconfig` (`stdlib` and `platstdlib`), those of
the base interpreter where a virtual environment is active. Left out are installed packages
(site-packages, dist-packages), tests, bytecode, pip's bundle in ensurepip, files that the distributor
writes for one build (`_sysconfigdata*`, `sitecustomize`, `usercustomize`), and `encodings`: its 122 files
are mostly character tables written by one program, so alike that those in train would give away those in
test. Links to folders are not followed.

A file belongs to a split by the first four bytes of the SHA-256 of its relative path, read as a fraction:
below 0.80 train, below 0.85 valid, else test. So it keeps its split when Python adds other files. Test is
larger than usual because only long files can be measured at long lengths: in Python 3.11.7 train has 509
files and 8.9 MB, valid 21 and 0.46 MB, test 81 and 1.3 MB, of which 40 files are longer than 8192 bytes and
25 longer than 16384. The text depends on the Python version, which `describe` gives; the hash of the
chosen documents shows any difference.
"""

import hashlib
import os
import platform
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lpe_eval.data.corpus import Corpus, Document
from lpe_eval.errors import DataError, SpecError
from lpe_eval.spec.corpus_spec import CorpusSpec

_LEFT_OUT_FOLDERS = {
    "test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_bundled", "encodings",
}  # fmt: skip
_LEFT_OUT_FILES = ("_sysconfigdata", "sitecustomize.", "usercustomize.")
_SPLITS = {"train": (0.0, 0.80), "valid": (0.80, 0.85), "test": (0.85, 1.0)}


class PythonStdlib(Corpus):
    """See the module's docstring."""

    def __init__(self, spec: CorpusSpec) -> None:
        super().__init__(spec)
        if spec.options:
            raise SpecError(f"the corpus python-stdlib has no options; leave {', '.join(spec.options)} out")
        base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
        found = (sysconfig.get_path(key, vars=base) for key in ("stdlib", "platstdlib"))
        self._folders = list(dict.fromkeys(Path(each).resolve() for each in found))

    def documents(self, split: str) -> Iterator[Document]:
        if split not in _SPLITS:
            raise DataError(f"python-stdlib has no split {split!r}; it has {', '.join(_SPLITS)}")
        low, high = _SPLITS[split]
        files = self._files()
        if not files:
            raise DataError(
                f"this Python has no source files below {self._folders[0]}; use another interpreter or corpus"
            )
        for name, path in sorted(files.items()):
            if low <= _fraction(name) < high:
                yield Document(name, path.read_bytes().decode("utf-8", "surrogateescape"))

    def describe(self) -> dict[str, str]:
        return {
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
        }

    def _files(self) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for root in self._folders:
            for folder, inside, names in os.walk(root):
                inside[:] = [each for each in inside if each not in _LEFT_OUT_FOLDERS]
                for name in names:
                    path = Path(folder, name)
                    if path.suffix == ".py" and not name.startswith(_LEFT_OUT_FILES) and path.is_file():
                        files.setdefault(path.relative_to(root).as_posix(), path)
        return files


def _fraction(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:4], "big") / 2**32
