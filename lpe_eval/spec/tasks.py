"""Tasks: YAML files that say what counts as the same measurement."""

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.fingerprint import fingerprint
from lpe_eval.spec.protocol_spec import ProtocolSpec

Bos = Literal["auto", "always", "first-window", "never"]
Tail = Literal["score", "drop"]
Spec = TypeVar("Spec", bound=BaseModel)


class PerplexityTask(BaseModel):
    """A file of `tasks/perplexity/`: some text, how much of it, and how it is cut.

    Attributes:
        name: the file's name.
        version: grows with every change that moves a value; a test holds the content of each version.
        title: one line for `list tasks`.
        corpus: the text; its split included.
        protocols: those measured when nothing else is asked for.
        lengths: likewise.
        max_tokens: how much text is measured at every length.
        bos: which windows start with BOS; "auto" does what the tokenizer does.
        pack: documents joined into one stream, as some papers do.
        tail: whether a document's last, shorter window counts.
        seed: of the choice of documents.
        source: the paper or page that the protocol comes from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int = Field(ge=1)
    title: str
    corpus: CorpusSpec
    protocols: tuple[ProtocolSpec, ...]
    lengths: tuple[int, ...]
    max_tokens: int = Field(ge=1)
    bos: Bos = "auto"
    pack: bool = False
    tail: Tail = "score"
    seed: int = 0
    source: str = ""

    @property
    def fingerprint(self) -> str:
        """Hash of everything but the title."""
        return fingerprint(self.model_dump(mode="json", exclude={"title"}))


def tasks_folder() -> Path:
    """`tasks/`: inside an installed package, beside it in a source checkout."""
    package = Path(__file__).parent.parent
    inside = package / "tasks"
    return inside if inside.is_dir() else package.parent / "tasks"


def task_names() -> list[str]:
    """Names of all perplexity tasks, sorted."""
    return sorted(path.stem for path in (tasks_folder() / "perplexity").glob("*.yaml"))


def read_task(name: str) -> PerplexityTask:
    """The task called `name`, or the one in the YAML file at that path.

    Raises:
        UnknownName: no task has that name.
        SpecError: the file is not a task.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        wanted = name.replace("_", "-")
        if wanted not in task_names():
            raise UnknownName("task", name, task_names())
        path = tasks_folder() / "perplexity" / f"{wanted}.yaml"
    task = read_yaml(path, PerplexityTask)
    if task.name != path.stem:
        raise SpecError(f"{path} calls itself {task.name!r}; a task is named like its file")
    return task


def read_yaml(path: Path, kind: type[Spec]) -> Spec:
    """A YAML file as a spec.

    Raises:
        SpecError: it is missing, not YAML, or does not fit; the first wrong key is named.
    """
    return parse_spec(load_yaml(path), kind, str(path))


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; tags, aliases and documents beyond the first are refused.

    Raises:
        SpecError: it is missing, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from error
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise SpecError(f"{path} uses a YAML alias (*name); write the value out")
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise SpecError(f"{path} must hold a mapping of keys to values")
    return raw


def parse_spec(raw: Any, kind: type[Spec], where: str) -> Spec:
    """A plain value as a spec.

    Raises:
        UnknownName: a key does not exist; near ones are offered.
        SpecError: a value does not fit.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        # A misspelt key is told before the right one that is then missing.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UnknownName(f"key of {where}", place, kind.model_fields) from error
        told = first["msg"].removeprefix("Value error, ")
        raise SpecError(f"{where}{', ' + place if place else ''}: {told}") from error
