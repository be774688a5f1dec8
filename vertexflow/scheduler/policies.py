"""Policies: which step each vertex is computed in.

A policy is a function `(num_vertices, child, offset, kind) -> step`: the children of vertex v are
`child[offset[v]:offset[v + 1]]` (int64), `kind` is an array of one kind a vertex or None, and `step` is int64
[num_vertices], in which every child has a smaller step than its parents. Vertices that a cycle keeps from ever being
ready get the step -1. `POLICIES` names them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]
Policy = Callable[[int, Ints, Ints, "np.ndarray[Any, Any] | None"], Ints]


def depth(num_vertices: int, child: Ints, offset: Ints, kind: np.ndarray[Any, Any] | None = None) -> Ints:
    """As soon as possible: the length of the longest path from a leaf (Cavs, section 3.2).

    One pass over the levels: a vertex is ready when its last child is finished.
    """
    waiting = np.diff(offset)
    parent = np.repeat(np.arange(num_vertices), waiting)
    consumers = np.bincount(child, minlength=num_vertices)
    forest = len(child) == 0 or int(consumers.max()) <= 1
    if forest:
        only_parent = np.full(num_vertices, num_vertices)
        only_parent[child] = parent
    else:
        by_child = np.argsort(child, kind="stable")
        start = np.cumsum(consumers) - consumers
        parent = parent[by_child]
    waiting = np.append(waiting, 0)  # a place for the parent that a root does not have
    step = np.full(num_vertices + 1, -1)
    ready = np.flatnonzero(waiting[:-1] == 0)
    level = 0
    while len(ready):
        step[ready] = level
        if forest:
            above = only_parent[ready]
        else:
            counts = consumers[ready]
            ends = np.cumsum(counts)
            above = parent[np.repeat(start[ready] - ends + counts, counts) + np.arange(ends[-1])]
        level += 1
        np.subtract.at(waiting, above, 1)
        ready = above[waiting[above] == 0]
        step[ready] = -2 - np.arange(len(ready))  # a vertex may stand here once for each child: keep its last mention
        ready = ready[step[ready] == -2 - np.arange(len(ready))]
    return step[:-1]


POLICIES: dict[str, Policy] = {"depth": depth}
