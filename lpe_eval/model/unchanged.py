"""Is a checkpoint still what it was? Hashing reads all of its weights, so files are looked at first."""

from pathlib import Path

Stamps = list[tuple[str, int, int, int]]

_DEEPEST = 2
"""Folders below a checkpoint that hold files of it: GPT-NeoX writes `global_step*/`."""


def stamps(path: str | Path) -> Stamps:
    """Name, size, time of the last change in nanoseconds, and inode of each file at a path, sorted.

    Equal stamps before and after mean that no file was replaced or written to in between. What is no path of this
    machine (an address of the Hub, a function) has none; settings behind a question mark are no part of the path.
    """
    found: Stamps = []
    layer = [Path(path) if Path(path).exists() else Path(str(path).partition("?")[0])]
    for _ in range(_DEEPEST + 1):
        below: list[Path] = []
        for each in layer:
            try:
                if each.is_dir():
                    below += each.iterdir()
                    continue
                facts = each.stat()
            except OSError:
                # Gone, or not to be read: a stamp less, so it is not equal.
                continue
            found.append((str(each), facts.st_size, facts.st_mtime_ns, facts.st_ino))
        layer = below
    return sorted(found)
