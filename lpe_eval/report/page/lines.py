"""What lines of charts look like: the same eight colours as in the figures, as variables that a dark page sets anew."""

from collections.abc import Collection, Sequence

from lpe_eval.report.page.parts import Line
from lpe_eval.report.page.safe import escaped

COLOURS = 8
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
_DASHES: tuple[tuple[float, ...], ...] = ((), (7, 2.5), (2, 2), (7, 2, 2, 2))
_BEST_DASH = (6.0, 3.0)

_PATHS = {
    "circle": "M13 6a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "square": "M13.5 2.5h7v7h-7z",
    "triangle-up": "M17 1.5l4.6 8h-9.2z",
    "triangle-down": "M17 10.5l4.6-8h-9.2z",
    "triangle-right": "M21.5 6l-8-4.6v9.2z",
    "triangle-left": "M12.5 6l8-4.6v9.2z",
    "diamond": "M17 1l4 5-4 5-4-5z",
    "cross": "M15.6 1.8h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z",
}
"""Of each shape, in a picture of 34 by 12."""


def lines_of(names: Sequence[str], best: Collection[str] = (), grey: Collection[str] = ()) -> list[Line]:
    """A line for each name, in the order of their first appearance.

    Args:
        names: may have repetitions.
        best: those of the best possible guess, which is no model.
        grey: those that are there to be compared with.
    """
    found: list[Line] = []
    place = 0
    for name in dict.fromkeys(names):
        if name in best:
            found.append(Line(name, "var(--ink)", "", _BEST_DASH))
        elif name in grey:
            found.append(Line(name, "var(--soft)", "", _DASHES[1 + len([each for each in found if each.shape == ""])]))
        else:
            dash = _DASHES[place // COLOURS % len(_DASHES)]
            found.append(Line(name, f"var(--s{place % COLOURS})", _SHAPES[place % len(_SHAPES)], dash))
            place += 1
    return found


def swatch(line: Line) -> str:
    """A small picture of a line, beside its name."""
    dash = f' stroke-dasharray="{" ".join(f"{each:g}" for each in line.dash)}"' if line.dash else ""
    colour = escaped(line.colour)
    shape = f'<path d="{_PATHS[line.shape]}" fill="{colour}"/>' if line.shape else ""
    return (
        '<svg class="swatch" width="34" height="12" viewBox="0 0 34 12" aria-hidden="true">'
        f'<path d="M1 6h32" fill="none" stroke="{colour}" stroke-width="2"{dash}/>{shape}</svg>'
    )
