"""Commands of kinds of run that have no file here: their flags are the fields of their spec.

So a kind from another package, or a new one of ours, is typed like any other as soon as it is registered.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import typer
from typer.core import TyperGroup

from lpe_eval.cli import completion
from lpe_eval.cli.help_pages import laid_out
from lpe_eval.registry import KINDS
from lpe_eval.screen import visible

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from lpe_eval.report.kind import Kind


_OFFERED: dict[str, completion.Completer] = {
    "models": completion.models, "device": completion.devices, "dtype": completion.precisions,
    "attention": completion.attentions, "task": completion.tasks, "data": completion.corpora,
    "tokenizer": completion.tokenizers, "encodings": completion.encodings,
}  # fmt: skip
"""What a shell is offered behind flags of these names."""
_DEFAULTS = {"overwrite": False, "dry_run": False, "quiet": False}
_UsageError: Any = typer.BadParameter.__bases__[0]
"""Of click, whose copy inside typer has no public name."""


class Commands(TyperGroup):
    """The commands that have a file, and those of all other kinds of run."""

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        # A study is only ever said in a file: a recipe does not fit into flags.
        return [*own, *(name for name in KINDS.names() if name not in (*own, "study"))]

    def make_context(self, *given: Any, **more: Any) -> Any:
        with _printable():
            return super().make_context(*given, **more)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            _take_as_typed(self, ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _printable():
            return super().invoke(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found: Any = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in self.list_commands(ctx):
            found = _derived(KINDS.load(cmd_name))
        if found is not None and ctx.resilient_parsing:
            _take_as_typed(found, ctx)
            return found
        return found if found is None else laid_out(found, cmd_name, ctx)


def _take_as_typed(command: Any, ctx: Any) -> None:
    """While a shell waits for names, values stay as they were typed, and names are all that is told.

    typer would import pydantic to check a value, and rich for each description, which it folds at the width of the
    terminal; a shell would take each line for one more name.
    """
    command.help = None
    for parameter in command.get_params(ctx):
        parameter.process_value = lambda ctx, value: value
        parameter.help = None


@contextmanager
def _printable() -> Iterator[None]:
    """What typer itself refuses may be a name that somebody else chose, a file's for instance."""
    try:
        yield
    except _UsageError as error:
        error.message = visible(error.message)
        raise


def _derived(kind: type["Kind"]) -> Any:
    """The command of a kind, as typer makes one of a function with these parameters."""
    from lpe_eval.spec.fields import fields_of

    fields = {name: field for name, field in kind.spec.model_fields.items() if name != "kind"}
    meanings = {each.name: each.meaning for each in fields_of(kind.spec)}
    typed: dict[str, Any] = {name: _flag(name, field, meanings.get(name, "")) for name, field in fields.items()}
    typed |= {
        "out": Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results, used exactly.")],
        "overwrite": Annotated[bool, typer.Option("--overwrite", help="Discard another run that the folder holds.")],
        "dry_run": Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")],
        "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no notes.")],
        "baseline": Annotated[
            list[str] | None,
            typer.Option(
                help="Then compare with this baseline, or with the run at ./PATH.", autocompletion=completion.baselines
            ),
        ],
    }
    command = _callback(kind, fields)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name), annotation=of)
        for name, of in typed.items()
    ]
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = typed
    command.__doc__ = inspect.cleandoc(kind.spec.__doc__ or kind.title)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(kind.name, rich_help_panel="Measure")(command)
    return typer.main.get_command(alone)


def _flag(name: str, field: "FieldInfo", text: str) -> Any:
    if not field.is_required():
        text = f"{text} Default: {field.get_default(call_default_factory=True)}.".strip()
    # Models are typed as everywhere; several values with commas, or the flag again.
    flags = ["--model", "-m"] if name == "models" else [f"--{name.replace('_', '-')}"]
    return Annotated[list[str] | None, typer.Option(*flags, help=text, autocompletion=_OFFERED.get(name))]


def _callback(kind: type["Kind"], fields: "dict[str, FieldInfo]") -> Callable[..., None]:
    def command(**typed: Any) -> None:
        from lpe_eval.cli.running import foresee, run_spec
        from lpe_eval.cli.sentences import sentence_for_errors
        from lpe_eval.spec.tasks import parse_spec

        with sentence_for_errors():
            given = {name: _value(name, field, typed[name]) for name, field in fields.items() if typed[name]}
            spec = parse_spec(given, kind.spec, kind.name)
            if typed["dry_run"]:
                foresee(spec, typed["quiet"])
                return
            run_spec(spec, typed["out"], typed["overwrite"], typed["quiet"], typed["baseline"] or ())

    return command


def _value(name: str, field: "FieldInfo", texts: list[str]) -> Any:
    """What was typed: several values for a field that holds several, else one, read as YAML reads it."""
    from lpe_eval.cli.models import language_models
    from lpe_eval.errors import SpecError
    from lpe_eval.plain import Unreadable, yaml_of
    from lpe_eval.spec.ppl_spec import parse_lengths

    if name == "lengths":
        return parse_lengths(",".join(texts))
    if name == "models":
        return language_models(part.strip() for text in texts for part in text.split(",") if part.strip())
    flag = f"--{name.replace('_', '-')}"
    try:
        values = [yaml_of(part) for text in texts for part in text.split(",") if part.strip()]
    except Unreadable as error:
        raise SpecError(f"{flag} {error}") from error
    if get_origin(field.annotation) in (tuple, list):
        return values
    if len(values) != 1:
        raise SpecError(f"{flag} takes one value, not {len(values)}")
    return values[0]
