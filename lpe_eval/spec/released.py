"""What ships with the package, by names alone: checkpoints, encoders of algorithmic problems, baselines."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_FOLDER, _ENCODERS = _PACKAGE / "released", _PACKAGE / "released_che"
_MEASURED = (
    *("alibi", "dape-kerple-log", "fire", "fox", "kerple-log", "learned", "mep", "nope", "rope", "sinusoidal"),
    *("t5", "xpos"),
)
"""What is measured unless somebody asks for more: one of each kind, in three minutes on two cores."""

BASELINES = Path("results/baselines")
"""Where baselines are written and looked for, from the current directory."""


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


def released_encoders() -> dict[str, Path]:
    """The folders of encoders that ship with the package, by their names, sorted."""
    return {path.parent.name: path.parent for path in sorted(_ENCODERS.glob("*/config.yaml"))}


def shipped_baselines() -> list[Path]:
    """`results/baselines/` of the package: inside an installed one, beside it in a source checkout."""
    return [place for place in (_PACKAGE / "baselines", _PACKAGE.parent / BASELINES) if place.is_dir()]


def baseline_names() -> list[str]:
    """Names of all baselines, those of the current directory and those that ship, sorted."""
    places = (BASELINES, *shipped_baselines())
    return sorted({found.parent.name for place in places for found in place.glob("*/run.json")})
