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
    """As soon as possible: the length of the longest path from a leaf (Cavs, section 3.2)."""
    parent = np.repeat(np.arange(num_vertices), np.diff(offset))
    consumers = np.bincount(child, minlength=num_vertices)
    if consumers.max() <= 1:
        return _depth_in_forest(num_vertices, child, parent)
    return _depth_in_dag(child, parent, np.diff(offset), consumers)


def _depth_in_forest(num_vertices: int, child: Ints, parent: Ints) -> Ints:
    """Pointer jumping: after k passes each vertex knows the longest path down of less than 2**k edges, so that a chain
    of V vertices takes log2(V) passes, not V levels.
    """
    ancestor = np.full(num_vertices + 1, num_vertices)  # 2**k steps up; V is above the roots
    ancestor[child] = parent
    step = np.zeros(num_vertices + 1, np.int64)
    below, stride = child, 1
    while len(below):
        above = ancestor[below]
        if stride > num_vertices:
            step[above] = -1  # only on a cycle does one get so far
            break
        np.maximum.at(step, above, step[below] + stride)
        further = ancestor[above]
        ancestor[below] = further
        below = below[further < num_vertices]
        stride *= 2
    return step[:-1]


def _depth_in_dag(child: Ints, parent: Ints, waiting: Ints, consumers: Ints) -> Ints:
    """Level by level (Kahn): a vertex is ready when its last child is finished."""
    parent = parent[np.argsort(child, kind="stable")]
    start = np.cumsum(consumers) - consumers
    step = np.full(len(waiting), -1)
    ready = np.flatnonzero(waiting == 0)
    level = 0
    while len(ready):
        step[ready] = level
        counts = consumers[ready]
        ends = np.cumsum(counts)
        above = parent[np.repeat(start[ready] - ends + counts, counts) + np.arange(ends[-1])]
        np.subtract.at(waiting, above, 1)
        ready = above[waiting[above] == 0]
        # A vertex may stand here once for each of its children: keep its last mention.
        mention = np.arange(len(ready))
        step[ready] = mention
        ready = ready[step[ready] == mention]
        level += 1
    return step


POLICIES: dict[str, Policy] = {"depth": depth}
