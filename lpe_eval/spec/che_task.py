"""A task of the Chomsky-hierarchy evaluation: one algorithmic problem, and what its scores are compared with."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.spec.fingerprint import fingerprint
from lpe_eval.spec.task_files import problem_task_names, tasks_folder
from lpe_eval.spec.tasks import read_yaml

Level = Literal["regular", "dcf", "cs"]
"""Level of the Chomsky hierarchy: regular, deterministic context-free, context-sensitive."""


class ProblemTask(BaseModel):
    """A file of `tasks/che/`: a problem, as a person reads it in a table.

    Attributes:
        name: the file's name.
        version: grows with every change that moves a value; a test holds the content of each version.
        title: one line for `list tasks`.
        problem: the member of `data/problems/` that makes the strings.
        level: its level in the Chomsky hierarchy.
        classes: answers to choose from at each place.
        chance: accuracy of a uniform guess.
        ceilings: accuracies that need no skill, means over the lengths 41 to 500, by what the guesser
            knows; `data/problem.py` defines them and computes them for any length.
        permutation_invariant: whether the order of the input does not matter to the answer.
        source: the paper and the code that the problem comes from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int = Field(ge=1)
    title: str
    problem: str
    level: Level
    classes: int = Field(ge=2)
    chance: float = Field(gt=0, lt=1)
    ceilings: dict[str, float]
    permutation_invariant: bool = False
    source: str = ""

    @property
    def fingerprint(self) -> str:
        """Hash of everything but the title."""
        return fingerprint(self.model_dump(mode="json", exclude={"title"}))


def read_problem_task(name: str) -> ProblemTask:
    """The task called `name`; dashes and underscores are the same.

    Raises:
        UnknownName: no task has that name.
        SpecError: the file is not a task.
    """
    wanted = name.strip().replace("-", "_")
    if wanted not in problem_task_names():
        raise UnknownName("task", name, problem_task_names())
    path = tasks_folder() / "che" / f"{wanted}.yaml"
    task = read_yaml(path, ProblemTask)
    if task.name != path.stem:
        raise SpecError(f"{path} calls itself {task.name!r}; a task is named like its file")
    return task
