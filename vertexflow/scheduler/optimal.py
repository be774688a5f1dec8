"""The fewest steps, by search: a yardstick for the other policies on small graphs with several kinds."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import GraphError

Array = np.ndarray[Any, np.dtype[Any]]
Wide = np.ndarray[Any, np.dtype[np.int64]]

STATES = 200_000
MEMORY = 2**31  # bits that the sets of vertices of all states may take together


def optimal(num_vertices: int, child: Array, offset: Array, kind: Array | None, states: int = STATES) -> Wide:
    """A schedule with the fewest steps, where a step runs vertices of one kind.

    Every step runs all vertices of its kind that are ready. That is never worse: whatever steps follow one that ran fewer of
    them are possible after it as well.

    The search is A* over the sets of vertices that are done, bounded below by `lower_bound` of what remains. A kind whose
    remaining vertices are all ready runs at once: its one step may as well come first.

    Args:
        num_vertices: V.
        child, offset: the children of vertex v are `child[offset[v]:offset[v + 1]]`; numbers from V on are vertices that
            have been computed already.
        kind: [V], the number of each vertex's kind, or None for a single kind.
        states: how many sets to look at before giving up.

    Returns:
        int64 [V], the step of each vertex; -1 for what a cycle keeps from ever being ready.

    Raises:
        GraphError: the graph is too large for a search.
    """
    order, children, parents = _in_order(num_vertices, child, offset)
    kinds, count = _kinds(num_vertices, kind)
    chain = _chains(order, parents, kinds, count)
    needed = [sum(1 << child_needed for child_needed in set(children_of_vertex)) for children_of_vertex in children]
    kind_vertices = [_set(v for v in order if kinds[v] == k) for k in range(count)]
    # For each kind, by length: the vertices at which a chain of that many vertices of the kind begins.
    begins: list[dict[int, int]] = [{} for _ in range(count)]
    for v in order:
        begins[kinds[v]][chain[v]] = begins[kinds[v]].get(chain[v], 0) | 1 << v
    longest = tuple(max(lengths, default=0) for lengths in begins)

    everything = _set(order)
    limit = min(states, MEMORY // max(num_vertices, 1))
    bound = sum(longest)
    best = {0: bound}  # of each state, the steps so far and the bound of what remains
    start = (0, _set(v for v in order if not children[v]), longest, None)
    # No step takes a state further than one beyond the bound, so that two stacks are the whole queue.
    stack: list[tuple[int, int, tuple[int, ...], Any]] = [start]
    later: list[tuple[int, int, tuple[int, ...], Any]] = []
    while True:
        if not stack:
            stack, later, bound = later, [], bound + 1
        done, ready, remaining, path = stack.pop()
        if done == everything:
            return _steps(num_vertices, path)
        if best[done] < bound:
            continue
        runnable = [k for k in range(count) if ready & kind_vertices[k]]
        forced = [k for k in runnable if kind_vertices[k] & ~done & ~ready == 0]
        for k in forced[:1] or runnable:
            batch = ready & kind_vertices[k]
            after = done | batch
            # The chains of other kinds remain: a longest one need not begin with what has just run.
            shorter = not begins[k][remaining[k]] & ~after
            if best.get(after, bound + 2) <= bound + (not shorter):
                continue
            best[after] = bound + (not shorter)
            if len(best) > limit:
                raise GraphError(
                    f"the policy 'optimal' found no schedule of {num_vertices} vertices of {count} kinds within {limit} "
                    "states; it is for small graphs: use 'agenda' or 'fsm'"
                )
            freed = _set(parent for v in _members(batch) for parent in parents[v] if needed[parent] & ~after == 0)
            left = (*remaining[:k], remaining[k] - shorter, *remaining[k + 1 :])
            (stack if shorter else later).append((after, ready & ~batch | freed, left, (batch, path)))


def lower_bound(num_vertices: int, child: Array, offset: Array, kind: Array | None) -> int:
    """No schedule has fewer steps: the sum over kinds of the most vertices of that kind on any path.

    The vertices of one kind on a path are in different steps, and so are vertices of different kinds. Arguments as for
    `optimal`; what a cycle keeps from being ready is left out.
    """
    order, _, parents = _in_order(num_vertices, child, offset)
    kinds, count = _kinds(num_vertices, kind)
    chain = _chains(order, parents, kinds, count)
    longest = [0] * count
    for v in order:
        longest[kinds[v]] = max(longest[kinds[v]], chain[v])
    return sum(longest)


def _in_order(num_vertices: int, child: Array, offset: Array) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """The vertices, children first, without those that never get ready; and the children and parents of each vertex."""
    ends = offset.tolist()
    edges = child.tolist()
    children = [[c for c in edges[ends[v] : ends[v + 1]] if c < num_vertices] for v in range(num_vertices)]
    parents: list[list[int]] = [[] for _ in range(num_vertices)]
    for v, children_of_vertex in enumerate(children):
        for c in children_of_vertex:
            parents[c].append(v)
    waiting = [len(children_of_vertex) for children_of_vertex in children]
    order = [v for v in range(num_vertices) if not waiting[v]]
    for v in order:
        for parent in parents[v]:
            waiting[parent] -= 1
            if not waiting[parent]:
                order.append(parent)
    return order, children, parents


def _kinds(num_vertices: int, kind: Array | None) -> tuple[list[int], int]:
    """The kind of each vertex, numbered from 0, and how many there are."""
    if kind is None:
        return [0] * num_vertices, 1
    codes, numbers = np.unique(kind, return_inverse=True)
    return numbers.tolist(), len(codes)


def _chains(order: list[int], parents: list[list[int]], kinds: list[int], count: int) -> list[int]:
    """Of each vertex, the most vertices of its kind on a path from it to a root, itself included."""
    most = np.zeros((len(kinds), count), np.int64)
    for v in reversed(order):
        for parent in set(parents[v]):
            np.maximum(most[v], most[parent], out=most[v])
        most[v, kinds[v]] += 1
    lengths: list[int] = most[np.arange(len(kinds)), kinds].tolist()
    return lengths


def _set(vertices: Any) -> int:
    """A set of vertices as the bits of an integer."""
    bits = 0
    for v in vertices:
        bits |= 1 << v
    return bits


def _members(bits: int) -> list[int]:
    members = []
    while bits:
        lowest = bits & -bits
        members.append(lowest.bit_length() - 1)
        bits ^= lowest
    return members


def _steps(num_vertices: int, path: Any) -> Wide:
    """The step of each vertex, from the batches that were run, the last of them first: (batch, (batch, ... None))."""
    batches = []
    while path is not None:
        batch, path = path
        batches.append(batch)
    step = np.full(num_vertices, -1)
    for at, batch in enumerate(reversed(batches)):
        step[_members(batch)] = at
    return step
