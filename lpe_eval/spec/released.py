"""The checkpoints that ship with the package."""

from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "released"


def released_names() -> list[str]:
    """Names of all released checkpoints, sorted."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/model.safetensors"))


def released_folder(name: str) -> Path | None:
    """Where the released checkpoint `name` lies; dashes and underscores are the same. None if there is none."""
    wanted = name.replace("_", "-")
    return _FOLDER / wanted if wanted in released_names() else None
