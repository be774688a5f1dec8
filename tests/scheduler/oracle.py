"""The core's algorithms again, in plain Python over lists: slow, and simple enough to be believed."""

from __future__ import annotations

import itertools
from typing import Any

from tests.scheduler.random_graphs import children
from vertexflow.graph.inputs.build import InputGraph
from vertexflow.graph.inputs.pack import GraphBatch


def pack(graphs: list[InputGraph]) -> dict[str, list[int]]:
    """The arrays of a batch: every graph's vertices are numbered on from the one before."""
    arrays: dict[str, list[int]] = {"child": [], "slot": [], "offset": [0], "graph_offset": [0]}
    for graph in graphs:
        first = arrays["graph_offset"][-1]
        for below in children(graph):
            arrays["child"] += [child + first for _, child in below]
            arrays["slot"] += [slot for slot, _ in below]
            arrays["offset"].append(len(arrays["child"]))
        arrays["graph_offset"].append(first + graph.num_vertices)
    return arrays


def reverse(batch: GraphBatch) -> dict[str, list[int]]:
    """Every edge turned round; slots count a vertex's parents, in the order of their numbers."""
    above: list[list[int]] = [[] for _ in range(batch.num_vertices)]
    for parent, below in enumerate(children(batch)):
        for _, child in below:
            above[child].append(parent)
    arrays: dict[str, list[int]] = {"child": [], "slot": [], "offset": [0]}
    for parents in above:
        arrays["child"] += parents
        arrays["slot"] += range(len(parents))
        arrays["offset"].append(len(arrays["child"]))
    return arrays


def depth(batch: GraphBatch) -> list[int]:
    """The longest path from a leaf: relax all edges until nothing changes."""
    below = children(batch)
    longest = [0] * batch.num_vertices
    for _ in range(batch.num_vertices):
        longest = [max((longest[child] + 1 for _, child in below[v]), default=0) for v in range(batch.num_vertices)]
    return longest


def height(batch: GraphBatch) -> list[int]:
    """The last step, which is that of every root, less the longest path to a root."""
    up = [0] * batch.num_vertices
    for _ in range(batch.num_vertices):
        for parent, below in enumerate(children(batch)):
            for _, child in below:
                up[child] = max(up[child], up[parent] + 1)
    return [max(up) - longest for longest in up]


def greedy(batch: GraphBatch, table: dict[tuple[Any, ...], Any] | None) -> list[int]:
    """Run the ready kind of lowest average depth; with a table, first of all a kind whose unblocked vertices are all ready,
    then the kind that the table names for the ready kinds, the most numerous first.
    """
    kinds = [None] * batch.num_vertices if batch.kind is None else batch.kind.tolist()
    depths, below = depth(batch), children(batch)
    average = {}
    for kind in sorted(set(kinds), key=str):
        of_kind = [depths[v] for v in range(batch.num_vertices) if kinds[v] == kind]
        average[kind] = sum(of_kind) / len(of_kind)
    step: list[int] = [-1] * batch.num_vertices
    now = 0
    while -1 in step:
        ready = [v for v in range(batch.num_vertices) if step[v] < 0 and all(0 <= step[c] < now for _, c in below[v])]
        names = sorted({kinds[v] for v in ready}, key=str)
        complete = [kind for kind in names if all(v in ready for v in _unblocked(batch, kinds, step, kind))]
        numbers = [kinds[v] for v in ready]
        state = tuple(sorted(names, key=lambda kind: (-numbers.count(kind), str(kind))))
        chosen = None if table is None else complete[0] if complete and len(average) > 1 else table.get(state)
        if chosen not in names or table is None:
            chosen = min(names, key=average.__getitem__)
        for v in ready:
            if kinds[v] == chosen:
                step[v] = now
        now += 1
    return step


def _unblocked(batch: GraphBatch, kinds: list[Any], step: list[int], kind: Any) -> list[int]:
    """The vertices of a kind that are not computed yet and depend, directly or through others, on no such vertex."""
    below = children(batch)
    free = []
    for v in range(batch.num_vertices):
        if kinds[v] == kind and step[v] < 0:
            reached, stack = set(), [child for _, child in below[v]]
            while stack:
                u = stack.pop()
                if step[u] < 0 and u not in reached:
                    reached.add(u)
                    stack += [child for _, child in below[u]]
            if all(kinds[u] != kind for u in reached):
                free.append(v)
    return free


def place(batch: GraphBatch, step: list[int], num_slots: list[int]) -> dict[str, Any]:
    """The rows and index arrays of a schedule, from the step of each vertex; `num_slots` are those of each kind.

    Steps are filled from their ends: graph after graph, those with the last steps first; in a graph, vertices before their
    children, and a vertex's children, the last slot first, where no other has placed them yet.
    """
    below, count = children(batch), batch.num_vertices
    kinds = [0] * count if batch.kind_index is None else batch.kind_index.tolist()
    bucket = [(step[v], bool(below[v]), kinds[v]) for v in range(count)]
    members: dict[tuple[int, bool, int], list[int]] = {key: [] for key in sorted(set(bucket))}
    bounds = list(itertools.pairwise(batch.graph_offset.tolist()))
    lasts = [max(bucket[first:last]) for first, last in bounds]
    placed = set()
    for g in sorted(range(len(bounds)), key=lambda g: (lasts[g], g), reverse=True):
        for v in (v for v in _parents_first(batch) if bounds[g][0] <= v < bounds[g][1]):
            for u in [v, *(child for _, child in reversed(below[v]))]:
                if u not in placed:
                    placed.add(u)
                    members[bucket[u]].insert(0, u)
    by_row = sorted(members, key=lambda key: (key[2], key[1], key))  # kind by kind, leaves' steps before the others
    order = [v for key in by_row for v in members[key]]
    row = [order.index(v) for v in range(count)]
    starts, at = {}, 0
    for key in by_row:
        starts[key] = at
        at += len(members[key])
    child_rows = []  # of each row
    for v in order:
        filled = dict(below[v])
        slots = range(num_slots[kinds[v]] if below[v] else 0)
        child_rows.append([row[filled[slot]] if slot in filled else count for slot in slots])
    flat = [read for rows in child_rows for read in rows]
    edges = [[position for position, read in enumerate(flat) if read == r] for r in range(count)]
    steps, step_kinds, reads_from, read_at = [], [], [], []
    for key in members:
        start, stop = starts[key], starts[key] + len(members[key])
        steps.append([start, stop])
        step_kinds.append(key[2])
        reads = [read for rows in child_rows[start:stop] for read in rows]
        reads_from.append(reads[0] if _consecutive(reads) and reads[-1] < count else -1)
        only = [edges[r][0] if len(edges[r]) == 1 else None for r in range(start, stop)]
        forest = all(len(one) <= 1 for one in edges)
        read_at.append(only[0] if forest and None not in only and _consecutive(only) else -1)
    groups = []
    for kind, slots in enumerate(num_slots):
        of_kind = [r for r in range(count) if kinds[order[r]] == kind]
        before = sum(kinds[v] < kind for v in order)
        leaves = sum(not below[order[r]] for r in of_kind)
        position = sum(len(child_rows[r]) for r in range(before))
        groups.append((before, before + leaves, before + len(of_kind), slots, position))
    return {
        "order": order, "row": row, "groups": groups, "child_rows": flat, "edges": edges, "steps": steps,
        "step_kinds": step_kinds, "reads_from": reads_from, "read_at": read_at,
    }  # fmt: skip


def _parents_first(batch: GraphBatch) -> list[int]:
    """By number, if numbers fall or rise along all edges; else the reverse of the order in which vertices become ready."""
    pairs = [(child, parent) for parent, below in enumerate(children(batch)) for _, child in below]
    numbers = list(range(batch.num_vertices))
    if all(child < parent for child, parent in pairs):
        return numbers[::-1]
    if all(child > parent for child, parent in pairs):
        return numbers
    waiting = [len(below) for below in children(batch)]
    ready = [v for v in numbers if not waiting[v]]
    for v in ready:
        for child, parent in pairs:
            if child == v:
                waiting[parent] -= 1
                if not waiting[parent]:
                    ready.append(parent)
    return ready[::-1]


def _consecutive(numbers: list[Any]) -> bool:
    return bool(numbers) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
