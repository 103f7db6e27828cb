"""Rooms: folders whose every file is a member, plus entry points of third parties.

A member is imported only when asked for, so listing names costs nothing. A member's file name
is its registry name, and its file holds exactly one public class. Dashes and underscores are
the same to a caller: `kerple-log` finds `kerple_log.py`.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpe_eval.errors import SpecError, UnknownName

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_PACKAGE_ROOT = Path(__file__).parent
_FAILURES = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError,
             RuntimeError, SyntaxError, TypeError, ValueError)  # fmt: skip
"""What the import of somebody else's module may end in."""


@dataclass(frozen=True)
class Room:
    """One folder of members.

    Attributes:
        noun: what a member is called in messages ("encoding").
        package: dotted path of the folder.
        group: entry-point group through which third parties add members.
    """

    noun: str
    package: str
    group: str

    def names(self) -> list[str]:
        """Sorted names of all members, without importing any of them."""
        return sorted({*self._own(), *(point.name for point in self._points())})

    def source(self, name: str) -> Path | None:
        """The file of one of our own members, which can be read without importing it; None for those of others."""
        wanted = name.strip().replace("-", "_")
        return _folder(self.package) / f"{wanted}.py" if wanted in self._own() else None

    def load(self, name: str) -> type:
        """The class of the member called `name`.

        Raises:
            UnknownName: no file and no entry point has that name.
            SpecError: two members claim the name, or an entry point cannot be imported.
        """
        wanted = name.strip().replace("-", "_")
        own = wanted in self._own()
        points = [point for point in self._points() if point.name.replace("-", "_") == wanted]
        if own + len(points) > 1:
            raise SpecError(f"the {self.noun} {name!r} is provided {own + len(points)} times; uninstall all but one")
        if own:
            return self._public_class(f"{self.package}.{wanted}")
        if points:
            return _loaded(points[0], self.noun, name)
        raise UnknownName(self.noun, name, self.names())

    def function(self, name: str, called: str) -> Callable[..., Any]:
        """The function `called` of the member's module, for rooms whose members are modules.

        Raises:
            UnknownName: no file and no entry point has that name.
            SpecError: an entry point cannot be imported, or the module has no such function.
        """
        found = getattr(self._module(name), called, None)
        if not callable(found):
            raise SpecError(f"the {self.noun} {name!r} has no function {called}")
        return found

    def has(self, name: str, called: str) -> bool:
        """Whether the member's module has the function `called`.

        Raises:
            UnknownName: no file and no entry point has that name.
            SpecError: an entry point cannot be imported.
        """
        return callable(getattr(self._module(name), called, None))

    def _module(self, name: str) -> Any:
        wanted = name.strip().replace("-", "_")
        points = [point for point in self._points() if point.name.replace("-", "_") == wanted]
        if wanted in self._own():
            return importlib.import_module(f"{self.package}.{wanted}")
        if points:
            return _loaded(points[0], self.noun, name)
        raise UnknownName(self.noun, name, self.names())

    def _own(self) -> tuple[str, ...]:
        return _files(self.package)

    def _points(self) -> "tuple[EntryPoint, ...]":
        return _entry_points(self.group)

    def _public_class(self, module_name: str) -> type:
        module = importlib.import_module(module_name)
        found = [
            value
            for name, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module_name and not name.startswith("_")
        ]
        if len(found) != 1:
            raise SpecError(f"{module_name} must hold exactly one public class, not {len(found)}")
        return found[0]


def _loaded(point: "EntryPoint", noun: str, name: str) -> Any:
    try:
        return point.load()
    except _FAILURES as error:
        raise SpecError(f"the {noun} {name!r} is registered by {point.value}, which fails: {error}") from error


@functools.cache
def _files(package: str) -> tuple[str, ...]:
    return tuple(found.name for found in pkgutil.iter_modules([str(_folder(package))]))


def _folder(package: str) -> Path:
    return _PACKAGE_ROOT.joinpath(*package.split(".")[1:])


@functools.cache
def _entry_points(group: str) -> "tuple[EntryPoint, ...]":
    # Its import costs more than a help page may.
    from importlib import metadata

    return tuple(metadata.entry_points(group=group))


ENCODINGS = Room("encoding", "lpe_eval.model.encodings", "lpe_eval.encodings")
ATTENTIONS = Room("attention path", "lpe_eval.model.attentions", "lpe_eval.attentions")
CHECKPOINTS = Room("checkpoint format", "lpe_eval.model.checkpoints", "lpe_eval.checkpoints")
CORPORA = Room("corpus", "lpe_eval.data.corpora", "lpe_eval.corpora")
TOKENIZERS = Room("tokenizer", "lpe_eval.data.tokenizers", "lpe_eval.tokenizers")
PROBLEMS = Room("problem", "lpe_eval.data.problems", "lpe_eval.problems")
COMMANDS = Room("command", "lpe_eval.commands", "lpe_eval.commands")
KINDS = Room("kind of run", "lpe_eval.report.kinds", "lpe_eval.kinds")
IMPORTERS = Room("format of results", "lpe_eval.report.importers", "lpe_eval.importers")
EXPORTERS = Room("format to export", "lpe_eval.report.exporters", "lpe_eval.exporters")
TRACKERS = Room("tracker", "lpe_eval.report.trackers", "lpe_eval.trackers")
