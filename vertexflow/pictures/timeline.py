"""The ranges of a profile as a picture: time from left to right, a line for each part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .svg import EMPTY, FAINT, INK, Picture, element, fill_of, picture, shortened, text, title

LINE, LEFT, WIDTH, MARGIN = 26, 150, 820.0, 16.0


@dataclass(frozen=True)
class Range:
    """What ran from one time to another, in microseconds: a part, and which step of it."""

    part: str
    step: int | None
    start: float
    end: float


def draw(ranges: Sequence[Range]) -> Picture:
    """A line for each part, in the order in which they begin."""
    begin, end = min(each.start for each in ranges), max(each.end for each in ranges)
    scale = WIDTH / max(end - begin, 1e-9)
    parts = list(dict.fromkeys(each.part for each in sorted(ranges, key=lambda each: each.start)))
    elements = [text(MARGIN, MARGIN + 8, _summary(ranges, end - begin), 13, "start", font_weight="bold")]
    top = MARGIN + 26
    for number, part in enumerate(parts):
        y = top + number * LINE
        elements.append(element("rect", x=MARGIN + LEFT, y=y, width=WIDTH, height=LINE - 4, fill=EMPTY))
        elements.append(text(MARGIN, y + 15, shortened(part, 24), 11, "start"))
        left = MARGIN + LEFT - begin * scale
        elements += [_bar(each, left + each.start * scale, y, scale, number) for each in ranges if each.part == part]
    bottom = top + len(parts) * LINE
    elements += _axis(end - begin, scale, bottom)
    return picture(LEFT + WIDTH + 3 * MARGIN, bottom + 30, elements, f"a timeline of {len(ranges)} ranges")


def _bar(each: Range, x: float, y: float, scale: float, number: int) -> str:
    took = each.end - each.start
    step = "" if each.step is None else f", step {each.step}"
    return element(
        "rect", title(f"{each.part}{step}: {took:,.1f} µs"), x=x, y=y, width=max(took * scale, 0.6), height=LINE - 4,
        fill=fill_of(number), stroke=INK, stroke_width=0.4, class_="range",
    )  # fmt: skip


def _summary(ranges: Iterable[Range], whole: float) -> str:
    busy = sum(each.end - each.start for each in ranges)
    return f"{whole / 1000:.3g} ms, {busy / 1000:.3g} ms of them in parts of vertex functions"


def _axis(whole: float, scale: float, bottom: float) -> Iterator[str]:
    for fifth in range(6):
        time = whole * fifth / 5
        yield text(MARGIN + LEFT + time * scale, bottom + 14, f"{time / 1000:.3g} ms", 10, fill=FAINT)
