"""What ships with the package, by names alone: checkpoints, encoders of algorithmic problems, baselines.

Checkpoints of one text lie in one folder. What is measured where nobody names a model, and what `all` means, are the
models of the text that is measured then; models of other text, such as `urn-alibi` of `urn`, are named one by one.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_FOLDER, _OF_OTHER_TEXT = _PACKAGE / "released", (_PACKAGE / "released_urn",)
_ENCODERS = _PACKAGE / "released_che"
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
    """Names of all released checkpoints of the default text, sorted."""
    return sorted(_in(_FOLDER))


def names_of_other_text() -> list[str]:
    """Names of the released checkpoints of other text, sorted."""
    return sorted(name for folder in _OF_OTHER_TEXT for name in _in(folder))


def released_folder(name: str) -> Path | None:
    """Where the released checkpoint `name` lies; dashes and underscores are the same. None if there is none."""
    wanted = name.replace("_", "-")
    return next((folder / wanted for folder in (_FOLDER, *_OF_OTHER_TEXT) if wanted in _in(folder)), None)


def _in(folder: Path) -> list[str]:
    return [path.parent.name for path in folder.glob("*/model.safetensors")]


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
