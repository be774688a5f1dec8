"""A schedule as a picture: steps from left to right, their rows from the top down, the room that narrow steps leave."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from .svg import EMPTY, FAINT, INK, Picture, element, fill_of, picture, text, title

WIDTH, HEIGHT, MARGIN = 900.0, 280.0, 16.0
WIDEST, NARROWEST, TALLEST_ROW = 40.0, 4.0, 18.0  # of a step, and of a row

Ints = np.ndarray[Any, np.dtype[np.int32]]


class Schedule(Protocol):
    """What the picture reads of a schedule."""

    @property
    def policy(self) -> str: ...

    @property
    def num_vertices(self) -> int: ...

    @property
    def kinds(self) -> tuple[Any, ...] | None: ...

    @property
    def groups(self) -> tuple[Any, ...]: ...

    @property
    def steps(self) -> Ints: ...

    @property
    def step_kinds(self) -> Ints: ...

    @property
    def reads_from(self) -> Ints: ...


class _Frame(NamedTuple):
    """Where steps stand, and how tall a row is."""

    step: float
    row: float
    top: float


def plot(schedule: Schedule, graph_of_row: Ints | None) -> Picture:
    """A column for each step, as tall as the step has vertices, in the colour of its kind, or, with `graph_of_row`, of the
    graphs of its rows; what is empty below it, up to the widest step, is work that could have been done at the same time."""
    widths = schedule.steps[:, 1] - schedule.steps[:, 0]
    widest, most = int(widths.max(initial=1)), int(WIDTH / NARROWEST)
    shown = min(len(widths), most)
    step = min(WIDEST, max(NARROWEST, WIDTH / max(shown, 1)))
    frame = _Frame(step, min(TALLEST_ROW, HEIGHT / widest), MARGIN + 40)
    height, width = frame.row * widest, step * shown
    elements = [element("rect", x=MARGIN, y=frame.top, width=width, height=height, fill=EMPTY)]
    for number in range(shown):
        elements += _step(schedule, graph_of_row, number, frame)
    filled = schedule.num_vertices / (len(widths) * widest)
    heading = (
        f"policy {schedule.policy}: {schedule.num_vertices:,} vertices in {len(widths)} steps, the widest of {widest:,}"
    )
    below = frame.top + height
    elements += [
        text(MARGIN, MARGIN + 6, heading, 13, "start", font_weight="bold"),
        text(MARGIN, MARGIN + 24, f"{filled:.0%} of the area is filled; the rest are gaps", 11, "start"),
        *_axis(shown, frame, below),
    ]
    below += 34
    colours = [] if graph_of_row is not None or schedule.kinds is None else [*schedule.kinds]
    for at, kind in enumerate(colours):
        elements.append(
            element("rect", x=MARGIN, y=below - 11, width=14, height=14, rx=4, fill=fill_of(at), stroke=INK)
        )
        elements.append(text(MARGIN + 20, below, str(kind), 11, "start"))
        below += 20
    notes = ["a dark foot: the step reads its children where they lie, as a slice of rows"]
    if graph_of_row is not None:
        notes.append("colours tell graphs apart")
    if shown < len(widths):
        notes.append(f"… and {len(widths) - shown:,} more steps")
    for note in notes:
        elements.append(text(MARGIN, below, note, 11, "start", fill=FAINT))
        below += 16
    room = max(width, 6.6 * len(heading) + 60)
    return picture(room + 2 * MARGIN, below + MARGIN - 8, elements, heading)


def _step(schedule: Schedule, graph_of_row: Ints | None, number: int, frame: _Frame) -> Iterator[str]:
    start, stop = schedule.steps[number].tolist()
    group = int(schedule.step_kinds[number])
    x, width = MARGIN + number * frame.step, frame.step - min(2.0, frame.step / 4)
    kind = f" of kind {schedule.kinds[group]}" if schedule.kinds is not None else ""
    leaves = ", without children" if stop <= schedule.groups[group].inner else ""
    words = f"step {number}: {stop - start} vertices{kind}{leaves}, rows {start} to {stop - 1}"
    runs = [(start, stop, group, words)] if graph_of_row is None else _runs(graph_of_row, start, stop, words)
    for first, end, colour, described in runs:
        yield element(
            "rect", title(described), x=x, y=frame.top + (first - start) * frame.row, width=width,
            height=(end - first) * frame.row, fill=fill_of(colour), stroke=INK, stroke_width=0.5, class_="rows",
        )  # fmt: skip
    if schedule.reads_from[number] >= 0:
        foot = frame.top + (stop - start) * frame.row
        yield element("rect", x=x, y=foot, width=width, height=3, fill=INK, class_="slice")


def _runs(graph_of_row: Ints, start: int, stop: int, words: str) -> Iterator[tuple[int, int, int, str]]:
    """Neighbouring rows of one graph: first, end, the graph, and what is said of it."""
    graphs = graph_of_row[start:stop]
    edges = [0, *(np.flatnonzero(np.diff(graphs)) + 1).tolist(), len(graphs)]
    for first, end in itertools.pairwise(edges):
        graph = int(graphs[first])
        yield start + first, start + end, graph, f"{words}; {end - first} of graph {graph}"


def _axis(shown: int, frame: _Frame, bottom: float) -> Iterator[str]:
    every = next(count for count in (1, 2, 5, 10, 20, 50, 100) if count * frame.step >= 26)
    for number in range(0, shown, every):
        yield text(MARGIN + (number + 0.5) * frame.step, bottom + 16, str(number), 10, fill=FAINT)
