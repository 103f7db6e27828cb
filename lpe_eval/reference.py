"""Settings at the end of a checkpoint's address: `ADDRESS?key=value&key=value`."""

from typing import Any, NamedTuple

from lpe_eval.errors import SpecError
from lpe_eval.plain import Unreadable, yaml_of


class Reference(NamedTuple):
    """An address and the settings behind its question mark."""

    address: str
    settings: dict[str, Any]


def split_settings(text: str) -> Reference:
    """Takes `?key=value&key=value` off the end of `text`; values are read as YAML.

    Raises:
        SpecError: a part is no key and value, or a value is not YAML.
    """
    address, question, rest = text.partition("?")
    if question and not rest:
        raise SpecError(f"{text} ends in a question mark; write {address}?key=value, or leave it out")
    settings: dict[str, Any] = {}
    for part in rest.split("&") if question else []:
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier():
            raise SpecError(f"{text}: {part!r} is not key=value; several are joined by &")
        if key in settings:
            raise SpecError(f"{text} gives {key} twice")
        try:
            settings[key] = yaml_of(value)
        except Unreadable as error:
            raise SpecError(f"{text[:200]}: the value of {key} {error}") from error
    return Reference(address, settings)
