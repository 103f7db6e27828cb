"""What a browser would find in a page of HTML, by Python's own parser."""

import json
from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "input", "br", "img", "link"}


class PageReader(HTMLParser):
    """Tags with their attributes, tables as lists of cells, and the content of scripts.

    Attributes:
        tags: name and attributes of every element, in order.
        tables: of each table its rows, of each row its cells: text and attributes.
        scripts: attributes and content of every script.
        texts: what is read, scripts and styles left out.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[tuple[str, dict[str, str | None]]]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID and not self._in_svg():
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(("", dict(attrs)))
        elif tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if self._in_svg() and tag != "svg":
            return
        assert self._open and self._open[-1] == tag, (tag, self._open[-3:])
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            attributes, content = self.scripts[-1]
            self.scripts[-1] = (attributes, content + data)
            return
        if self._open and self._open[-1] == "style":
            return
        self.texts.append(data)
        if {"td", "th"} & set(self._open):
            text, attributes = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (text + data, attributes)

    def _in_svg(self) -> bool:
        return "svg" in self._open

    @property
    def data(self) -> list[dict[str, Any]]:
        """Of each chart what its script reads."""
        return [json.loads(content) for attributes, content in self.scripts if attributes.get("type")]
