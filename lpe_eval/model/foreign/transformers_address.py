"""Addresses of models of `transformers`: `PLACE?key=value&key=value`, where a place is a folder, a file or a model id.

Settings: `rope_scaling`, `rope_theta`, `remap`, `revision` and `tokenizer` do what the flags of these names do; `gguf`
names a file of a repository, and `base` the model under an adapter.
"""

from pathlib import Path
from typing import NamedTuple

from lpe_eval.errors import SpecError
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.rope_changes import with_setting
from lpe_eval.reference import split_settings

_KNOWN = ("base", "gguf", "remap", "revision", "rope_scaling", "rope_theta", "tokenizer")


class Address(NamedTuple):
    """Where a model is, with every setting taken off."""

    place: str
    options: LoadOptions
    gguf: str | None
    base: str | None


def address_of(path: str, options: LoadOptions) -> Address:
    """Reads an address.

    Raises:
        SpecError: a setting is unknown, or its value cannot be.
    """
    if Path(path).exists():
        return Address(path, options, None, None)
    place, settings = split_settings(path)
    named: dict[str, str | None] = {"gguf": None, "base": None}
    for key, value in settings.items():
        match key:
            case "rope_scaling" | "rope_theta" | "remap":
                options = with_setting(options, key, value, f"hf:{path}")
            case "revision" | "tokenizer":
                options = options._replace(**{key: str(value)})
            case "gguf" | "base":
                named[key] = str(value)
            case _:
                raise SpecError(f"hf:{path}: there is no setting {key}; known: {', '.join(_KNOWN)}")
    return Address(place, options, **named)
