"""A run over a batch as one HTML page that needs nothing else: its graphs, steps, rows and pushed values, and a script."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol
from xml.sax.saxutils import escape

from .cut import Ints, Shown, Structure, cut
from .graphs import MARGIN, Placed, Style, laid_out, lines_to, style_of, vertex_of
from .svg import element, fill_of, number, tips


class Steps(Protocol):
    """What the page reads of a schedule."""

    @property
    def policy(self) -> str: ...

    @property
    def steps(self) -> Ints: ...

    @property
    def row(self) -> Ints: ...


@dataclass(frozen=True)
class Values:
    """What was pushed under a name: its shape and dtype, the first entries of a vertex's row, and how long that row is."""

    about: str
    entries_of: Callable[[int], Sequence[str] | None]  # None: this vertex pushes nothing under the name


def page(
    heading: str,
    structure: Structure,
    bounds: Sequence[int],
    schedule: Steps,
    label: Callable[[int], str],
    pushed: Mapping[str, Values],
    notes: Sequence[str],
    most: int,
) -> str:
    """The page as text, with at most so many vertices."""
    graphs = cut(structure, bounds, most)
    step_of_row = _step_of_row(schedule)
    kinds = structure.kind
    vertices: dict[str, Any] = {}
    for graph in graphs:
        for at, vertex in enumerate(graph.vertices):
            row = int(schedule.row[vertex])
            values = {name: value for name, each in pushed.items() if (value := each.entries_of(vertex)) is not None}
            vertices[str(vertex)] = {
                "graph": graph.number,
                "label": label(vertex),
                "kind": None if kinds is None else str(kinds[vertex]),
                "step": step_of_row[row],
                "row": row,
                "root": at < graph.num_roots,
                "children": [
                    [slot, graph.vertices[kid]] for kid, slot in zip(graph.children[at], graph.slots[at], strict=True)
                ],
                "hidden": graph.hidden[at],
                "pushed": values,
            }
    data = {
        "policy": schedule.policy,
        "widths": (schedule.steps[:, 1] - schedule.steps[:, 0]).tolist(),
        "about": {name: each.about for name, each in pushed.items()},
        "vertices": vertices,
    }
    hidden = structure.num_vertices - len(vertices)
    notes = [*notes, *([f"{hidden:,} more vertices are not shown"] if hidden else [])]
    kind_names = "".join(
        f'<span><i style="background:{fill_of(at)}"></i>{escape(str(kind))}</span>'
        for at, kind in enumerate(structure.kinds or ())
    )
    script = files(__package__).joinpath("page.js").read_text(encoding="utf-8")
    return _TEMPLATE.format(
        heading=escape(heading),
        style=files(__package__).joinpath("page.css").read_text(encoding="utf-8"),
        drawing=_drawing(structure, graphs, label, len(bounds) > 2),
        kinds=kind_names,
        notes="".join(f"<p>{escape(note)}</p>" for note in notes),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        script=script,
    )


def _step_of_row(schedule: Steps) -> dict[int, int]:
    return {row: step for step, (start, stop) in enumerate(schedule.steps.tolist()) for row in range(start, stop)}


def _drawing(structure: Structure, graphs: Sequence[Shown], label: Callable[[int], str], named: bool) -> str:
    """The graphs; their vertices can be found by number."""
    style = style_of(structure, graphs, label)
    elements, right, bottom = laid_out(graphs, style, named, lambda placed: _graph(placed, style))
    width, height = right + MARGIN, bottom + MARGIN
    return element(
        "svg", tips(), *elements, xmlns="http://www.w3.org/2000/svg", width=width, height=height, id="graphs",
        viewBox=f"0 0 {number(width)} {number(height)}", aria_label="the graphs of the batch",
    )  # fmt: skip


def _graph(placed: Placed, style: Style) -> Iterator[str]:
    graph = placed.shown
    for at in range(len(graph.vertices)):
        yield from lines_to(placed, at, style)
    yield from (vertex_of(placed, at, style, tabindex=0, role="button") for at in range(len(graph.vertices)))


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{heading}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{heading}</h1>
<div id="controls">
<button id="back" aria-label="one step back">◀</button>
<button id="play" aria-label="play">▶▶</button>
<button id="forth" aria-label="one step on">▶</button>
<input id="step" type="range" min="0" value="0" aria-label="step">
<output id="where"></output>
</div>
<svg id="steps" role="img" aria-label="the widths of all steps"></svg>
</header>
<main>
<div id="drawing">{drawing}<div id="kinds">{kinds}</div>{notes}</div>
<aside id="details"><p>Hover over a vertex, or click it, to see its step, its row, its children and what it pushed.
Arrow keys move through the steps.</p></aside>
</main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""
