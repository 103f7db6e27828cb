"""Tasks: YAML files that say what counts as the same measurement."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.plain import Unreadable, endless_number, read_plain, yaml_of
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.fingerprint import fingerprint
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.spec.task_files import task_names, tasks_folder

Bos = Literal["auto", "always", "first-window", "never"]
Tail = Literal["score", "drop"]
Spec = TypeVar("Spec", bound=BaseModel)

LARGEST_SEED = 1 << 40
"""Seeds are multiplied and added to before a 64-bit generator takes them."""


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
        protocol_bibtex: what to cite for the protocols above, as BibTeX.
        text_bibtex: what to cite for the text, as BibTeX, where its corpus has no entry of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int = Field(ge=1)
    title: str
    corpus: CorpusSpec
    protocols: tuple[ProtocolSpec, ...] = Field(min_length=1)
    lengths: tuple[int, ...] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    bos: Bos = "auto"
    pack: bool = False
    tail: Tail = "score"
    seed: int = Field(default=0, ge=-LARGEST_SEED, le=LARGEST_SEED)
    source: str = ""
    protocol_bibtex: str = ""
    text_bibtex: str = ""

    @property
    def fingerprint(self) -> str:
        """Hash of everything but the title and the citations, which move no value."""
        return fingerprint(self.model_dump(mode="json", exclude={"title", "protocol_bibtex", "text_bibtex"}))


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
        raw = yaml_of(read_plain(path))
    except Unreadable as error:
        raise SpecError(f"{path} {error}") from error
    if not isinstance(raw, dict):
        raise SpecError(f"{path} must hold a mapping of keys to values")
    for key in raw:
        if not isinstance(key, str):
            raise SpecError(f"{path} has the key {key!r}, which is no name; put it in quotes if it is meant as one")
    return raw


def parse_spec(raw: Any, kind: type[Spec], where: str) -> Spec:
    """A plain value as a spec.

    Raises:
        UnknownName: a key does not exist; near ones are offered.
        SpecError: a value does not fit.
    """
    try:
        found = kind.model_validate(raw)
    except ValidationError as error:
        # A misspelt key is told before the right one that is then missing.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            *around, wrong = first["loc"]
            holder = f"{where}, {'.'.join(map(str, around))}" if around else where
            raise UnknownName(f"key of {holder}", str(wrong), _known(kind, around)) from error
        detail = first["msg"].removeprefix("Value error, ")
        raise SpecError(f"{where}{', ' + place if place else ''}: {detail}") from error
    for key, value in raw.items() if isinstance(raw, dict) else ():
        # A budget beyond all text is all of the text.
        if key != "max_tokens" and (number := endless_number(value)) is not None:
            raise SpecError(f"{where}, {key}: a number is too large ({number})")
    return found


def _known(kind: type[BaseModel], around: Sequence[int | str]) -> list[str]:
    """The keys of the model that lies at `around`; those of `kind` where the way to it cannot be told."""
    held: Any = kind
    for part in around:
        if isinstance(part, int):
            continue
        field = held.model_fields.get(part)
        inner = _models(field.annotation) if field is not None else []
        if len(inner) != 1:
            return list(kind.model_fields)
        held = inner[0]
    return list(held.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
