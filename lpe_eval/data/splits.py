"""Which files of a folder belong to which split, told by their names as people and the Hugging Face Hub give them.

A split is a folder of its name at the top or one folder down (below `data/`, or a subset's); or a file called
`test.txt`, `test-00000-of-00003.parquet`, `wiki.test.txt`, `shakespeare_test.jsonl`. `valid`, `validation`, `val` and
`dev` are one split, as are `train` and `training`, and `test`, `testing` and `eval`.

Where a folder holds training text, what is measured must be chosen: `test` if there is one, else `valid`. A folder
without training text is read whole, and one with training text alone only where a split is named.
"""

import re
from collections.abc import Sequence

_ALIKE = (("train", "training"), ("valid", "validation", "val", "dev"), ("test", "testing", "eval"))
_SHARD = r"(?:[-_.]?\d+(?:[-_.]of[-_.]\d+)?)?(?:-[0-9a-f]{16})?"


def files_of(paths: Sequence[str], split: str) -> list[str]:
    """The files of a split; where no file has that very name, those of another name for it.

    Args:
        paths: of files in their folder, with slashes.
        split: any name.
    """
    names = next((alike for alike in _ALIKE if split in alike), (split,))
    for name in (split, *names):
        found = [path for path in paths if _named(path, name)]
        if found:
            return found
    return []


def held(paths: Sequence[str]) -> list[str]:
    """The splits that a folder holds, each by its usual name, the training text first."""
    return [names[0] for names in _ALIKE if files_of(paths, names[0])]


def choose(paths: Sequence[str]) -> str | None:
    """The split of a folder where none was named: `all` where nothing says that a part is training text.

    Returns:
        A split, or None where there is training text and nothing held out.
    """
    found = held(paths)
    if "train" not in found:
        return "all"
    return next((split for split in ("test", "valid") if split in found), None)


def _named(path: str, name: str) -> bool:
    if name not in path:
        return False
    *above, file = path.split("/")
    if name in above[:2]:
        return True
    first = file.partition(".")[0]
    stem = first if first == name else _stem(file)
    return re.fullmatch(rf"(?:.*[-_.])?{re.escape(name)}{_SHARD}", stem) is not None


def _stem(file: str) -> str:
    """A file's name without the endings of its kind."""
    return re.sub(r"(?:\.(?:txt|jsonl|json|parquet|arrow|gz|zst))+$", "", file)
