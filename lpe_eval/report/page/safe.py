"""Other people's words on a page: always text, never markup.

Names of models and documents and notes come from anywhere. What a terminal would obey or hide (controls, directions of
writing) becomes escapes such as `\\x1b`, as in every table of this program; the rest is escaped for where it stands.
Sources: the HTML standard, 13.2.5 (which characters end a text, a quoted attribute and a script), and RFC 8259, 7
(every character of a JSON string may be written as `\\uXXXX`).
"""

import html
import json
from typing import Any

from lpe_eval.screen import visible

_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def escaped(text: object) -> str:
    """A text between tags or inside a quoted attribute."""
    return html.escape(visible(str(text)), quote=True)


def escaped_lines(text: str) -> str:
    """The same for a text of several lines, whose line ends stay."""
    return "\n".join(map(escaped, text.split("\n")))


def json_inside(value: Any) -> str:
    """JSON inside a script element; texts in it are made visible first."""
    text = json.dumps(_visible(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return "".join(_IN_SCRIPT.get(letter, letter) for letter in text)


def _visible(value: Any) -> Any:
    match value:
        case str():
            return visible(value)
        case dict():
            return {key: _visible(each) for key, each in value.items()}
        case list() | tuple():
            return [_visible(each) for each in value]
        case _:
            return value
