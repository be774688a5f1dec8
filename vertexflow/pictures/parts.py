"""The parts of a program as a picture: a panel a part, in it values as boxes, what they are computed from above them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .layout import place
from .svg import (
    CHARACTER,
    EMPTY,
    FAINT,
    INK,
    Picture,
    arrow,
    curve,
    element,
    fill_of,
    number,
    picture,
    shortened,
    text,
    title,
)

BOX, LEVEL, MARGIN = 34, 62, 16
GIVEN, COMPUTED, RETURNED = "given", "computed", "returned"
_COLOURS = {GIVEN: fill_of(1), COMPUTED: "#ffffff", RETURNED: fill_of(2)}


@dataclass(frozen=True)
class Box:
    """A value: its name, what computes it, what is said where the mouse rests, and the boxes that it is computed from."""

    name: str
    below: str
    words: str
    role: str  # GIVEN, COMPUTED or RETURNED
    is_named: bool  # by the user
    reads: tuple[int, ...]


@dataclass(frozen=True)
class Panel:
    """A part, and its values in the order in which they are computed."""

    heading: str
    boxes: Sequence[Box]


def draw(panels: Sequence[Panel], description: str) -> Picture:
    """The panels one below the other."""
    elements: list[str] = []
    y, right = float(MARGIN), 420.0
    for panel in panels:
        inner, width, height = _panel(panel)
        elements.append(element("g", *inner, transform=f"translate({MARGIN} {number(y)})", class_="part"))
        y, right = y + height + 14, max(right, width)
    words = "orange: given; green: read by other parts, gathered or returned; bold: your own names"
    elements.append(text(MARGIN, y + 8, words, 11, "start", fill=FAINT))
    return picture(max(right, 540.0) + 2 * MARGIN, y + 20 + MARGIN, elements, description)


def _panel(panel: Panel) -> tuple[list[str], float, float]:
    """The elements of a panel, and its size."""
    boxes = panel.boxes
    # The layout puts roots at the top: here values that nothing reads, so that the picture is turned over.
    places = place([box.reads for box in boxes])
    column = (
        max((len(shortened(words, 22)) for box in boxes for words in (box.name, box.below)), default=8) * 11 * CHARACTER
        + 26
    )
    deepest = places.num_levels - 1
    x = [14 + (at + 0.5) * column for at in places.columns]
    y = [38 + (deepest - level) * LEVEL + BOX / 2 for level in places.levels]
    width = max(places.width * column + 28, len(panel.heading) * 12 * CHARACTER + 28)
    height = 38 + deepest * LEVEL + BOX + 14
    background = element("rect", width=width, height=height, rx=8, fill=EMPTY, stroke=FAINT)
    elements = [background, text(14, 22, panel.heading, 12, "start", font_weight="bold")]
    for at, box in enumerate(boxes):
        elements += [_arrow(x[read], y[read], x[at], y[at]) for read in dict.fromkeys(box.reads)]
    for at, box in enumerate(boxes):
        elements.append(element("g", *_box(box, x[at], y[at], column - 20), class_=f"value {box.role}"))
    return elements, width, height


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    y1, y2 = y1 + BOX / 2, y2 - BOX / 2 - 2
    bend = (y2 - y1) / 2
    aside = 0 if y2 - y1 < LEVEL else -24 if x1 <= x2 else 24
    path = (x1, y1), (x1 + aside, y1 + bend), (x2 + aside, y2 - bend), (x2, y2)
    return arrow(curve(path))


def _box(box: Box, x: float, y: float, width: float) -> Iterator[str]:
    yield title(box.words)
    yield element(
        "rect", x=x - width / 2, y=y - BOX / 2, width=width, height=BOX, rx=6, fill=_COLOURS[box.role], stroke=INK,
        stroke_width=1.4 if box.is_named else 0.7,
    )  # fmt: skip
    weight = "bold" if box.is_named else None
    yield text(x, y - 2, shortened(box.name, 22), 11, font_weight=weight)
    yield text(x, y + 12, shortened(box.below, 22), 9.5, fill="#5a6673")
