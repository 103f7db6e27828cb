"""Where the parts of a model lie: a word, by which a library chooses, or a place for each part by its name."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from lpe_eval.errors import SpecError
from lpe_eval.plain import Unreadable, at_home, has_utf8_form, json_of, printable, read_plain
from lpe_eval.screen import visible

CHOSEN = ("auto", "balanced", "sequential")
"""Words by which a library fills cards, then main memory, then disk; `balanced` and `auto` fill cards evenly."""

STORED = ("cpu", "disk")
"""Places whose parts are computed where the others are: on the first card that is named, else on the processor."""

_CARD = re.compile(r"(?!(?:cpu|disk|meta)\b)[a-z]{2,20}(?::\d{1,3})?")


def checked(value: Any) -> Any:
    """A device map as a spec holds it: one of `CHOSEN`, or places by names of parts; a whole number n is `cuda:n`.

    Raises:
        ValueError: it is neither.
    """
    if value is None or (isinstance(value, str) and value in CHOSEN):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"a device map is {', '.join(CHOSEN)}, or a place for each part of a model, not {value!r}")
    if not value:
        raise ValueError('a device map without parts places nothing; {"": "cpu"} places all of a model')
    return {_part(name): _place(name, place) for name, place in value.items()}


DeviceMap = Annotated[str | dict[str, str], BeforeValidator(checked)]
"""The type of a field."""


def parse_device_map(text: str) -> str | dict[str, Any]:
    """A device map as people type it: one of `CHOSEN`, JSON, or the path of a file with JSON.

    Raises:
        SpecError: it is none of these.
    """
    if text in CHOSEN:
        return text
    shown = visible(printable(text[:200]))
    try:
        found = json_of(text if text.lstrip().startswith("{") else read_plain(Path(at_home(text))))
    except Unreadable as error:
        raise SpecError(
            f"--device-map {shown} {error}; write {', '.join(CHOSEN)}, the path of a file with JSON, or JSON such as "
            '\'{"model.layers.0": "cpu", "": "disk"}\''
        ) from error
    if not isinstance(found, dict):
        raise SpecError(f"--device-map {shown} holds {type(found).__name__}, and not a place for each part of a model")
    return found


def cards_of(device_map: str | Mapping[str, str] | None) -> list[str]:
    """The cards that a map names, each once, in its order."""
    if not isinstance(device_map, Mapping):
        return []
    return [place for place in dict.fromkeys(device_map.values()) if place not in STORED]


def _part(name: Any) -> str:
    if not isinstance(name, str) or not has_utf8_form(name):
        raise ValueError(f"parts of a model have names such as model.layers.0, not {name!r}")
    return name


def _place(name: str, place: Any) -> str:
    if isinstance(place, int) and not isinstance(place, bool) and 0 <= place < 1000:
        return f"cuda:{place}"
    if isinstance(place, str) and (place in STORED or _CARD.fullmatch(place)):
        return place
    raise ValueError(f"{name or 'all'} cannot lie on {place!r}; a place is cpu, disk, or a card such as cuda:0")
