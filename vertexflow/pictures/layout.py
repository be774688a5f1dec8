"""Where the vertices of a small graph stand: in levels below its roots, no two in one place, children in the order of slots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Places:
    """A column (not an integer always, 0 is the leftmost) and a level (0: roots) for each vertex."""

    columns: list[float]
    levels: list[int]

    @property
    def num_levels(self) -> int:
        return max(self.levels, default=-1) + 1

    @property
    def width(self) -> float:
        """How many columns there are."""
        return max(self.columns, default=-1.0) + 1

    @property
    def is_long(self) -> bool:
        """Whether it is read better from left to right than from the top down, as a sequence is."""
        return self.num_levels > 4 and self.num_levels > 2 * self.width


def place(children: Sequence[Sequence[int]]) -> Places:
    """Place vertices 0 .. n - 1, `children[i]` being those of vertex i; there are no cycles."""
    levels = _levels(children)
    columns = _separated(_columns(children, levels), levels)
    return Places(columns, levels)


def _levels(children: Sequence[Sequence[int]]) -> list[int]:
    """The length of the longest way from a root to each vertex."""
    waiting = [0] * len(children)
    for kids in children:
        for child in kids:
            waiting[child] += 1
    levels = [0] * len(children)
    ready = [vertex for vertex, count in enumerate(waiting) if count == 0]
    for vertex in ready:  # which grows
        for child in children[vertex]:
            levels[child] = max(levels[child], levels[vertex] + 1)
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    return levels


def _columns(children: Sequence[Sequence[int]], levels: Sequence[int]) -> list[float]:
    """Vertices without children side by side, others above the middle of those that they meet first."""
    columns: list[float | None] = [None] * len(children)
    own: list[list[int]] = [[] for _ in children]  # the children that nobody met before
    seen, free = [False] * len(children), 0.0
    for root in (vertex for vertex, level in enumerate(levels) if level == 0):
        seen[root] = True
        stack = [(root, 0)]
        while stack:
            vertex, at = stack.pop()
            kids = children[vertex]
            while at < len(kids) and seen[kids[at]]:
                at += 1
            if at < len(kids):
                stack += [(vertex, at + 1), (kids[at], 0)]
                seen[kids[at]] = True
                own[vertex].append(kids[at])
                continue
            placed = [column for kid in own[vertex] if (column := columns[kid]) is not None]
            if placed:
                columns[vertex] = (min(placed) + max(placed)) / 2
            else:
                columns[vertex], free = free, free + 1
    return [column or 0.0 for column in columns]


def _separated(columns: list[float], levels: Sequence[int]) -> list[float]:
    """The columns, moved apart where two of a level are closer than one."""
    by_level = defaultdict(list)
    for vertex, level in enumerate(levels):
        by_level[level].append(vertex)
    for vertices in by_level.values():
        vertices.sort(key=columns.__getitem__)
        before, moved = float("-inf"), 0.0
        wished = [columns[vertex] for vertex in vertices]
        for vertex in vertices:
            columns[vertex] = before = max(columns[vertex], before + 1)
        moved = sum(columns[vertex] - wish for vertex, wish in zip(vertices, wished, strict=True)) / len(vertices)
        for vertex in vertices:
            columns[vertex] -= moved
    leftmost = min(columns, default=0.0)
    return [column - leftmost for column in columns]
