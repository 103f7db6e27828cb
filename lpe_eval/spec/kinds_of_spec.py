"""Which specs there are, without what runs them: our own by their files, and those of other packages by their kind."""

import importlib
import inspect

from pydantic import BaseModel

from lpe_eval.errors import UnknownName
from lpe_eval.registry import KINDS

FILES = {"task": "lpe_eval.spec.tasks.PerplexityTask", "protocol": "lpe_eval.spec.che_spec.CheProtocol"}
"""Specs of files that are no run: what `--task FILE.yaml` and `che --protocol FILE.yaml` take."""


def spec_of(kind: str) -> type[BaseModel]:
    """The spec of a kind of run, or of one of `FILES`.

    Raises:
        UnknownName: there is no such kind.
    """
    if kind in FILES:
        module, _, name = FILES[kind].rpartition(".")
        return getattr(importlib.import_module(module), name)
    if kind not in KINDS.names():
        raise UnknownName("kind of spec", kind, [*KINDS.names(), *FILES])
    if KINDS.source(kind) is None:
        return KINDS.load(kind).spec
    # The record of a kind of ours imports what draws its figures.
    module = importlib.import_module(f"lpe_eval.spec.{kind}_spec")
    for found in vars(module).values():
        if inspect.isclass(found) and issubclass(found, BaseModel) and found.__module__ == module.__name__:
            told = found.model_fields.get("kind")
            if told is not None and told.default == kind:
                return found
    return KINDS.load(kind).spec
