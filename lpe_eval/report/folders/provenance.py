"""`provenance.json`: one writer for every kind of run, and one reader that understands all that was ever written.

    kind  run                 what was run, and its id
    task  corpus              which task and which text, where there was one
    models                    by name: reference, digest, tokenizer, documents; under `opened` what opening it told:
                              format, encoding with its options, train length, parameters, attention path
    dtype  attention  seeds   of the whole run; `attention` lists the paths taken
    opened_with               flags that changed how models were opened
    environment  starts       machine and libraries; every start with its command and wall time
    cost                      tokens, seconds, tokens a second, peak memory, of all starts together

`lpe_eval.measure.provenance` makes the content. Provenances written before there was one shape are read all the same:
`models` may hold digests alone, `attention` may be a mapping, and keys may be missing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lpe_eval.errors import OutputError
from lpe_eval.plain import Unreadable, json_of, read_plain

NAME = "provenance.json"

_MAPPINGS = ("environment", "models", "task", "corpus", "seeds", "cost", "opened_with")


def provenance_bytes(content: Mapping[str, Any]) -> bytes:
    """The file; what stands for a byte that is not UTF-8 becomes JSON's own escape for it."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    return f"{text}\n".encode("utf-8", "backslashreplace")


def read_provenance(directory: Path, name: str = NAME) -> dict[str, Any]:
    """The provenance of a run, in today's shape; empty where none was written yet.

    Args:
        directory: of the run.
        name: of the file; that of a shard has another one.

    Raises:
        OutputError: it is damaged, or no provenance.
    """
    path = directory / name
    if not path.exists():
        return {}
    again = "run the same command again to write it anew"
    try:
        found = json_of(read_plain(path))
    except Unreadable as error:
        raise OutputError(f"{path} {error}; {again}") from error
    if not isinstance(found, dict):
        raise OutputError(f"{path} holds no mapping; {again}")
    try:
        return _shaped(found)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise OutputError(f"{path} is damaged: {error}, and this program did not write it so; {again}") from error


def earlier_provenance(directory: Path, name: str = NAME) -> dict[str, Any]:
    """The provenance of the start that another one goes on with; empty where it cannot be read."""
    try:
        return read_provenance(directory, name)
    except OutputError:
        return {}


def _shaped(found: dict[str, Any]) -> dict[str, Any]:
    shaped: dict[str, Any] = {**found}
    for key in _MAPPINGS:
        if found.get(key) is None:
            shaped.pop(key, None)
        elif not isinstance(found[key], dict):
            raise ValueError(f"{key} is a mapping")
    models = {
        name: {"digest": facts} if isinstance(facts, str) else facts for name, facts in shaped.get("models", {}).items()
    }
    starts = found.get("starts", [])
    if not isinstance(starts, list) or not all(isinstance(each, dict) for each in [*models.values(), *starts]):
        raise ValueError("models and starts hold mappings")
    attention = found.get("attention")
    if isinstance(attention, dict):
        shaped["attention"] = list(dict.fromkeys(attention.values()))
    return {**shaped, **({"models": models} if "models" in found else {})}
