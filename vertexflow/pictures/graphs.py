"""Input graphs and batches as pictures: labels, kinds, roots, slots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cut import Shown, Structure, cut
from .layout import Places, place
from .svg import CHARACTER, FAINT, INK, Picture, arrow, curve, element, fill_of, number, picture, shortened, text, title

HEIGHT, LEVEL, MARGIN, LINE = 26, 56, 16, 960  # of a vertex, between levels, around, of a line of graphs
Point = tuple[float, float]
LABEL, LONGEST = 12.0, 14  # the size of labels, and their most characters


@dataclass(frozen=True)
class Placed:
    """A graph, its vertices' places in pixels, and the room that it takes."""

    shown: Shown
    x: list[float]
    y: list[float]
    width: float
    height: float
    is_long: bool


@dataclass(frozen=True)
class Style:
    """How vertices look: what is written on each, how wide it is, and its colour."""

    labels: dict[int, str]
    widths: dict[int, float]
    fills: dict[int, str]

    @property
    def column(self) -> float:
        """The room that a vertex takes beside others."""
        return max(self.widths.values(), default=HEIGHT) + 14


def style_of(structure: Structure, graphs: Sequence[Shown], label: Callable[[int], str]) -> Style:
    """How the vertices of these graphs look."""
    numbers = {kind: at for at, kind in enumerate(structure.kinds or ())}
    kinds = structure.kind
    labels = {vertex: shortened(label(vertex), LONGEST) for graph in graphs for vertex in graph.vertices}
    widths = {vertex: max(float(HEIGHT), len(words) * LABEL * CHARACTER + 12) for vertex, words in labels.items()}
    fills = {vertex: fill_of(0 if kinds is None else numbers[kinds[vertex]]) for vertex in labels}
    return Style(labels, widths, fills)


def draw(structure: Structure, bounds: Sequence[int], label: Callable[[int], str], most: int) -> Picture:
    """The graphs between consecutive `bounds` (of a batch) side by side, at most so many vertices.

    `label` is what is written on a vertex. Children are below their parents, or left of them.
    """
    graphs = cut(structure, bounds, most)
    style, kinds = style_of(structure, graphs, label), structure.kind
    elements, right, y = laid_out(graphs, style, len(bounds) > 2, lambda placed: _graph(placed, style, kinds))
    for words, fill in _notes(graphs, bounds, structure.kinds or ()):
        y += 20
        if fill is not None:
            elements.append(element("rect", x=MARGIN, y=y - 11, width=14, height=14, rx=4, fill=fill, stroke=INK))
        elements.append(text(MARGIN + (20 if fill else 0), y, words, 11, "start"))
        right = max(right, MARGIN + 20 + len(words) * 11 * CHARACTER)
    described = f"{len(bounds) - 1} graphs" if len(bounds) > 2 else "an input graph"
    return picture(right + MARGIN, y + MARGIN, elements, f"{described}, {structure.num_vertices} vertices")


def laid_out(
    graphs: Sequence[Shown], style: Style, named: bool, drawn: Callable[[Placed], Iterable[str]]
) -> tuple[list[str], float, float]:
    """Graphs side by side, in lines; with `named`, their numbers above them. Also where the last ends, right and below."""
    elements: list[str] = []
    x, y, tallest, right = float(MARGIN), float(MARGIN), 0.0, 0.0
    above = 22 if named else 0
    for graph in graphs:
        placed = placed_in_pixels(graph, style.column)
        if x > MARGIN and x + placed.width > LINE:
            x, y, tallest = float(MARGIN), y + tallest + 20, 0.0
        caption = text(placed.width / 2, 12, f"graph {graph.number}", 11, fill=FAINT) if named else ""
        inner = element("g", *drawn(placed), transform=f"translate(0 {above})")
        elements.append(element("g", caption, inner, transform=f"translate({number(x)} {number(y)})"))
        right, tallest = max(right, x + placed.width), max(tallest, placed.height + above)
        x += placed.width + 20
    return elements, right, y + tallest


def placed_in_pixels(graph: Shown, column: float) -> Placed:
    """The places of vertices, of which a column takes so many pixels."""
    places: Places = place(graph.children)
    more = LEVEL / 2 if any(graph.hidden) else 0.0  # room for what is left out
    if places.is_long:  # children left of their parents
        x = [(places.num_levels - 1 - level) * (column + 16) + column / 2 + more for level in places.levels]
        y = [at * (HEIGHT + 12) + HEIGHT / 2 for at in places.columns]
        width = places.num_levels * (column + 16) - 16 + more
        return Placed(graph, x, y, width, places.width * (HEIGHT + 12) - 12, True)
    x = [at * column + column / 2 for at in places.columns]
    level_height = LEVEL * (1.4 if graph.arity > 1 else 1.0)  # the children of an arc meet between levels
    y = [level * level_height + HEIGHT / 2 for level in places.levels]
    return Placed(graph, x, y, places.width * column, (places.num_levels - 1) * level_height + HEIGHT + more, False)


def _graph(placed: Placed, style: Style, kinds: np.ndarray[Any, Any] | None) -> Iterator[str]:
    graph = placed.shown
    for at in range(len(graph.vertices)):
        yield from lines_to(placed, at, style, named=True)
        plain = graph.arity > 1 or graph.slots[at] == list(range(len(graph.slots[at])))
        if not plain and not graph.hidden[at]:  # a slot is missing before another
            for child, slot in zip(graph.children[at], graph.slots[at], strict=True):
                middle = (placed.x[at] + placed.x[child]) / 2 + 7, (placed.y[at] + placed.y[child]) / 2
                yield text(*middle, str(slot), 9, fill=FAINT, class_="slot")
        if graph.hidden[at]:
            yield _left_out(placed, at, graph.hidden[at])
    for at, vertex in enumerate(graph.vertices):
        of_kind = "" if kinds is None else f", kind {kinds[vertex]}"
        yield vertex_of(
            placed, at, style, title(f"vertex {vertex}{of_kind}{', a root' if at < graph.num_roots else ''}")
        )


def vertex_of(placed: Placed, at: int, style: Style, inside: str = "", **attributes: object) -> str:
    """A vertex: a box with its label; a root has a thick line."""
    vertex, x, y = placed.shown.vertices[at], placed.x[at], placed.y[at]
    width = style.widths[vertex]
    box = element(
        "rect", x=x - width / 2, y=y - HEIGHT / 2, width=width, height=HEIGHT, rx=HEIGHT / 2, fill=style.fills[vertex],
        stroke=INK, stroke_width=2.6 if at < placed.shown.num_roots else 1,
    )  # fmt: skip
    written = text(x, y + 4, style.labels[vertex], LABEL)
    return element("g", inside, box, written, class_="vertex", data_vertex=vertex, **attributes)


def lines_to(placed: Placed, parent: int, style: Style, named: bool = False) -> Iterator[str]:
    """The arrows from the children of a vertex; with arcs of several children, from where the lines of these meet. `named`: with
    words where the mouse rests."""
    graph = placed.shown
    vertex = graph.vertices[parent]
    if graph.arity == 1:
        for child, slot in zip(graph.children[parent], graph.slots[parent], strict=True):
            words = f"child {graph.vertices[child]} → vertex {vertex}, slot {slot}"
            start, end = _ends(placed, parent, child, style)
            yield arrow(_path(start, end, placed.is_long), title(words) if named else "")
        return
    arcs: dict[int, dict[int, int]] = {}  # number -> position -> child
    for child, slot in zip(graph.children[parent], graph.slots[parent], strict=True):
        arcs.setdefault(slot // graph.arity, {})[slot % graph.arity] = child
    for (number_, kids), (x, y) in zip(arcs.items(), _meetings(placed, parent, arcs, style), strict=True):
        missing = "…" if graph.hidden[parent] else "-1"
        inside = [str(graph.vertices[kids[at]]) if at in kids else missing for at in range(graph.arity)]
        lines = []
        for child in kids.values():
            start, end = _ends(placed, parent, child, style)
            line = _path(start, (x, y), placed.is_long)
            lines.append(element("path", d=line, fill="none", stroke=FAINT, stroke_width=1.2))
        straight = f"M{number(x)} {number(y)} L{number(end[0])} {number(end[1])}"
        dot = element("circle", cx=x, cy=y, r=3, fill=INK)
        words = title(f"children ({', '.join(inside)}) → vertex {vertex}, arc {number_}") if named else ""
        yield element("g", words, *lines, arrow(straight), dot, class_="arc")


def _meetings(placed: Placed, parent: int, arcs: Mapping[int, Mapping[int, int]], style: Style) -> list[Point]:
    """Where the children of each arc of a vertex meet: beside each other before it, in the order of their children."""
    across = placed.y if placed.is_long else placed.x
    order = sorted(arcs, key=lambda arc: (sum(across[child] for child in arcs[arc].values()) / len(arcs[arc]), arc))
    room = HEIGHT + 12 if placed.is_long else style.column  # of this vertex: its neighbours have arcs as well
    apart = min(20.0, (room - 6) / max(len(arcs), 1))
    points = {}
    for at, arc in enumerate(order):
        aside = (at - (len(order) - 1) / 2) * apart
        x, y = placed.x[parent], placed.y[parent]
        width = style.widths[placed.shown.vertices[parent]]
        points[arc] = (x - width / 2 - 18, y + aside) if placed.is_long else (x + aside, y + HEIGHT / 2 + 18)
    return [points[arc] for arc in arcs]


def _ends(placed: Placed, parent: int, child: int, style: Style) -> tuple[Point, Point]:
    """Where the arrow from a child to its parent begins and ends."""
    x1, y1, x2, y2 = placed.x[child], placed.y[child], placed.x[parent], placed.y[parent]
    vertices = placed.shown.vertices
    if placed.is_long:
        return (x1 + style.widths[vertices[child]] / 2, y1), (x2 - style.widths[vertices[parent]] / 2 - 2, y2)
    return (x1, y1 - HEIGHT / 2), (x2, y2 + HEIGHT / 2 + 2)


def _path(start: Point, end: Point, is_long: bool) -> str:
    (x1, y1), (x2, y2) = start, end
    if is_long:
        bend = (x2 - x1) / 2
        return curve((start, (x1 + bend, y1), (x2 - bend, y2), end))
    bend = (y1 - y2) / 2
    aside = 0 if y1 - y2 < LEVEL else -1.4 * HEIGHT if x1 <= x2 else 1.4 * HEIGHT  # past the vertices between
    return curve((start, (x1 + aside, y1 - bend), (x2 + aside, y2 + bend), end))


def _left_out(placed: Placed, at: int, count: int) -> str:
    x, y = placed.x[at], placed.y[at]
    x, y = (x - LEVEL, y + 4) if placed.is_long else (x, y + HEIGHT / 2 + 14)
    return text(x, y, f"… {count}", 11, inside=title(f"{count} children that are not shown"), fill=FAINT)


def _notes(graphs: Sequence[Shown], bounds: Sequence[int], kinds: Sequence[object]) -> Iterator[tuple[str, str | None]]:
    """The lines below the graphs, and the colours that they explain."""
    for at, kind in enumerate(kinds):
        yield str(kind), fill_of(at)
    hidden = sum(graph.num_vertices - len(graph.vertices) for graph in graphs)
    if hidden:
        yield f"… and {hidden:,} more vertices, farther from the roots", None
    others = len(bounds) - 1 - len(graphs)
    if others:
        yield f"… and {others:,} more graphs, with {int(bounds[-1]) - int(bounds[len(graphs)]):,} vertices", None
