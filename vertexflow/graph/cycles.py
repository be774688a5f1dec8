"""Finding a cycle, to name it in an error."""

from __future__ import annotations

from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]


def find_cycle(num_vertices: int, child: Ints, offset: Ints) -> list[int]:
    """The vertices of one cycle, each a child of the next; empty if there is none.

    Children of vertex v are `child[offset[v]:offset[v + 1]]`.
    """
    parent = np.repeat(np.arange(num_vertices), np.diff(offset))
    consumers = np.bincount(child, minlength=num_vertices)
    if consumers.max() <= 1:
        return _in_forest(num_vertices, child, parent)
    return _in_dag(num_vertices, child, offset, parent, consumers)


def _in_forest(num_vertices: int, child: Ints, parent: Ints) -> list[int]:
    """With one parent a vertex: who has an ancestor more steps away than there are vertices is below or on a cycle."""
    above = np.full(num_vertices + 1, num_vertices)
    above[child] = parent
    ancestor = above
    for _ in range(num_vertices.bit_length()):
        ancestor = ancestor[ancestor]
    endless = ancestor[ancestor < num_vertices]
    if not len(endless):
        return []
    path = [int(endless[0])]
    while (vertex := int(above[path[-1]])) != path[0]:
        path.append(vertex)
    return path


def _in_dag(num_vertices: int, child: Ints, offset: Ints, parent: Ints, consumers: Ints) -> list[int]:
    """Vertices whose children are all finished are taken away, level by level (Kahn). Each of those that are left has a
    child among them, so that following these children must come back to where it was.
    """
    by_child = np.argsort(child, kind="stable")
    start = np.concatenate(([0], np.cumsum(consumers)))
    waiting = np.diff(offset).copy()
    ready = np.flatnonzero(waiting == 0)
    while len(ready):
        waiting[ready] = -1
        counts = start[ready + 1] - start[ready]
        edges = by_child[np.repeat(start[ready] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())]
        parents, taken = np.unique(parent[edges], return_counts=True)
        waiting[parents] -= taken
        ready = parents[waiting[parents] == 0]
    left = np.flatnonzero(waiting > 0)
    if not len(left):
        return []
    seen: dict[int, int] = {}
    path: list[int] = []
    vertex = int(left[0])
    while vertex not in seen:
        seen[vertex] = len(path)
        path.append(vertex)
        children = child[offset[vertex] : offset[vertex + 1]]
        vertex = int(children[waiting[children] > 0][0])
    return path[seen[vertex] :][::-1]
