"""Which vertices of large graphs are shown: those nearest to the roots, of as many graphs as there is room for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int32]]


class Structure(Protocol):
    """What a picture reads of an input graph, or of a batch."""

    @property
    def num_vertices(self) -> int: ...

    @property
    def child(self) -> Ints: ...

    @property
    def slot(self) -> Ints: ...

    @property
    def offset(self) -> Ints: ...

    @property
    def arity(self) -> int: ...

    @property
    def kinds(self) -> tuple[Any, ...] | None: ...

    @property
    def kind(self) -> np.ndarray[Any, Any] | None: ...


@dataclass(frozen=True)
class Shown:
    """The vertices of one graph that are shown, by their numbers in the structure, and what is left out."""

    number: int  # of the graph
    vertices: list[int]
    children: list[list[int]]  # of each, by their positions in `vertices`
    slots: list[list[int]]
    num_roots: int  # they come first
    hidden: list[int]  # how many children of each are not shown
    num_vertices: int  # of the whole graph
    arity: int  # how many children an arc has; slots are then those of arcs, one after the other


def cut(structure: Structure, bounds: Sequence[int], most: int) -> list[Shown]:
    """Of the graphs whose vertices lie between consecutive `bounds`, as many as have `most` vertices together.

    Of a graph that has more vertices than are left, those nearest to its roots.
    """
    is_child = np.zeros(structure.num_vertices, np.bool_)
    is_child[structure.child[structure.child < structure.num_vertices]] = True
    shown: list[Shown] = []
    left = most
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        if left <= 0 or (shown and stop - start > left):  # a graph in pieces is shown only if it is the first
            break
        roots = (np.flatnonzero(~is_child[start:stop])[:left] + start).tolist()
        shown.append(_nearest(structure, number, roots, left, stop - start))
        left -= len(shown[-1].vertices)
    return shown


def _nearest(structure: Structure, number: int, roots: list[int], most: int, num_vertices: int) -> Shown:
    vertices = list(roots)
    position = {vertex: at for at, vertex in enumerate(vertices)}
    for vertex in vertices:  # which grows
        for child in _children(structure, vertex)[0]:
            if child not in position and len(vertices) < most:
                position[child] = len(vertices)
                vertices.append(child)
    children, slots, hidden = [], [], []
    for vertex in vertices:
        kids, in_slots = _children(structure, vertex)
        pairs = [(position[kid], slot) for kid, slot in zip(kids, in_slots, strict=True) if kid in position]
        children.append([kid for kid, _ in pairs])
        slots.append([slot for _, slot in pairs])
        hidden.append(len(kids) - len(pairs))
    return Shown(number, vertices, children, slots, len(roots), hidden, num_vertices, structure.arity)


def _children(structure: Structure, vertex: int) -> tuple[list[int], list[int]]:
    start, stop = int(structure.offset[vertex]), int(structure.offset[vertex + 1])
    kids, slots = structure.child[start:stop].tolist(), structure.slot[start:stop].tolist()
    pairs = [pair for pair in zip(kids, slots, strict=True) if pair[0] < structure.num_vertices]  # none from outside
    return [kid for kid, _ in pairs], [slot for _, slot in pairs]
