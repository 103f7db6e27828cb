"""The checkpoints that ship with the package."""

from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "released"
_MEASURED = (
    *("alibi", "dape-kerple-log", "fire", "fox", "kerple-log", "learned", "mep", "nope", "rope", "sinusoidal"),
    *("t5", "xpos"),
)
"""What is measured unless somebody asks for more: one of each kind, in three minutes on two cores."""


def measured_names() -> list[str]:
    """Names of the released checkpoints that are measured where nobody names a model, sorted."""
    return [name for name in released_names() if name in _MEASURED]


def released_names() -> list[str]:
    """Names of all released checkpoints, sorted."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/model.safetensors"))


def released_folder(name: str) -> Path | None:
    """Where the released checkpoint `name` lies; dashes and underscores are the same. None if there is none."""
    wanted = name.replace("_", "-")
    return _FOLDER / wanted if wanted in released_names() else None
