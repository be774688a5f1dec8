"""SVG, written as text: elements, colours, and the picture that notebooks show."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from ..errors import InputError

# Pale, so that dark text on them is read; told apart also by people who see fewer colours.
FILLS = ("#cfe3f7", "#fde0b8", "#cdebc8", "#f7cfdc", "#e0d6f5", "#f3ec9f", "#c6ebea", "#dedede")
INK, FAINT, EMPTY = "#1c2733", "#8794a1", "#f1f3f5"
FONT = "ui-sans-serif, system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
CHARACTER = 0.6  # the width of a character, in font sizes: widths are estimated, nothing is measured

_OTHERS = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf", ".eps", ".ps"}


@dataclass(frozen=True)
class Picture:
    """An SVG picture. Notebooks show it; `save` writes it; `str` is its text."""

    svg: str = field(repr=False)

    def _repr_svg_(self) -> str:
        return self.svg

    def __str__(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a file, such as `tree.svg`, which browsers and README pages show.

        Raises:
            InputError: a name that ends as that of a file of pixels or pages does (`.png`, `.pdf`): what is written is SVG.
        """
        ending = Path(path).suffix.lower()
        if ending in _OTHERS:
            raise InputError(
                f"a picture is SVG, not {ending[1:]}; give a name that ends in .svg, which other programs convert"
            )
        Path(path).write_text(self.svg, encoding="utf-8")


def fill_of(number: int) -> str:
    """The colour of a kind, or of a graph, by its number."""
    return FILLS[number % len(FILLS)]


def element(tag: str, *content: str, **attributes: object) -> str:
    """An element whose content is markup; `stroke_width=2` becomes `stroke-width="2"`."""
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}={quoteattr(_value(value))}"
        for name, value in attributes.items()
        if value is not None
    )
    inner = "".join(content)
    return f"<{tag}{written}>{inner}</{tag}>" if inner else f"<{tag}{written}/>"


def text(
    x: float, y: float, words: str, size: float = 12, anchor: str = "middle", inside: str = "", **attributes: object
) -> str:
    """A line of text whose baseline is at y."""
    attributes = {"fill": INK, **attributes}
    return element("text", inside, escape(words), x=x, y=y, font_size=size, text_anchor=anchor, **attributes)


def title(words: str) -> str:
    """What is shown where the mouse rests on the element around it."""
    return element("title", escape(words))


def arrow(path: str, *content: str, **attributes: object) -> str:
    """A line with a tip at its end."""
    attributes = {"stroke": FAINT, "stroke_width": 1.2, **attributes}
    return element("path", *content, d=path, fill="none", marker_end="url(#vertexflow-tip)", **attributes)


def curve(points: Sequence[tuple[float, float]]) -> str:
    """A path from the first point to the last, drawn towards those between."""
    start, *others = (f"{number(x)} {number(y)}" for x, y in points)
    return f"M{start} C{' '.join(others)}"


def tips() -> str:
    """What a picture with arrows has in it once."""
    tip = element("path", d="M0 0 L7 3.5 L0 7 z", fill=FAINT)
    marker = element(
        "marker", tip, id="vertexflow-tip", viewBox="0 0 7 7", refX=6.5, refY=3.5, markerWidth=7, markerHeight=7,
        orient="auto",
    )  # fmt: skip
    return element("defs", marker)


def picture(width: float, height: float, elements: Iterable[str], description: str) -> Picture:
    """A picture of this size, on white, with a description for those who do not see it."""
    svg = element(
        "svg",
        title(description),
        tips(),
        element("rect", width=width, height=height, fill="#ffffff", rx=6),
        *elements,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_value(width)} {_value(height)}", width=width, height=height,
        role="img", font_family=FONT, style="max-width:100%;height:auto",
    )  # fmt: skip
    return Picture(svg)


def number(value: float) -> str:
    """A number in as few characters as a picture needs."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def shortened(words: str, most: int) -> str:
    """The words, or their beginning and three dots, in at most so many characters."""
    return words if len(words) <= most else words[: most - 1] + "…"


def _value(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)
