"""Which files of `tasks/` there are, by their names alone: nothing is read, so a shell can ask while somebody types."""

from pathlib import Path


def tasks_folder() -> Path:
    """`tasks/`: inside an installed package, beside it in a source checkout."""
    package = Path(__file__).parent.parent
    inside = package / "tasks"
    return inside if inside.is_dir() else package.parent / "tasks"


def task_names() -> list[str]:
    """Names of all perplexity tasks, sorted."""
    return _stems("perplexity")


def problem_task_names() -> list[str]:
    """Names of all tasks that are an algorithmic problem, sorted."""
    return _stems("che")


def protocol_names() -> list[str]:
    """Names of all protocols by which encoders are trained and tested on algorithmic problems, sorted."""
    return _stems("protocols")


def _stems(folder: str) -> list[str]:
    return sorted(path.stem for path in (tasks_folder() / folder).glob("*.yaml"))
