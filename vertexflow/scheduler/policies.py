"""Policies: which step each vertex is computed in.

A policy is an object with one method, `steps(structure)`, which returns one integer for each vertex: vertices of the same
number and kind are computed together, and every child must have a smaller number than its parents. `POLICIES` names the
policies that come with vertexflow. One of your own:

    class OneAtATime:
        def steps(self, structure):
            return np.arange(structure.num_vertices)     # for graphs whose children come before their parents

    vf.schedule(batch, policy=OneAtATime())
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from .. import _core
from .optimal import optimal

Ints = np.ndarray[Any, np.dtype[np.int32]]


class Structure(Protocol):
    """What a schedule is made of; a `GraphBatch` is one.

    The children of vertex v are `child[offset[v]:offset[v + 1]]`, and `slot` says which of v's slots each fills; int32.
    `edge` is the user's number of the edge of each entry of `child`; None: the entries are in the user's order.
    Numbers from `num_vertices` on, of which there are `num_external`, are vertices that have been computed already.
    Graph g has the vertices `graph_offset[g]:graph_offset[g + 1]`; with None, all belong to one graph.
    `kind_index` [V] is the number of each vertex's kind among `kinds`; both are None where there are no kinds.
    """

    @property
    def num_vertices(self) -> int: ...
    @property
    def num_external(self) -> int: ...
    @property
    def num_slots(self) -> int: ...
    @property
    def child(self) -> Ints: ...
    @property
    def slot(self) -> Ints: ...
    @property
    def offset(self) -> Ints: ...
    @property
    def edge(self) -> Ints | None: ...
    @property
    def graph_offset(self) -> Ints | None: ...
    @property
    def kinds(self) -> tuple[Any, ...] | None: ...
    @property
    def kind_index(self) -> Ints | None: ...

    def locate(self, vertex: int) -> str: ...


class Policy(Protocol):
    """What chooses the steps."""

    def steps(self, structure: Structure) -> np.ndarray[Any, Any]: ...


class Depth:
    """As soon as possible: the length of the longest path from a leaf (Cavs, section 3.2). The fewest steps for one kind."""

    def steps(self, structure: Structure) -> Ints:
        return _core.depth(structure.child, structure.slot, structure.offset, structure.num_external)


class Height:
    """As late as possible: by the longest path to a root, so that a state is made shortly before it is read."""

    def steps(self, structure: Structure) -> Ints:
        return _core.height(structure.child, structure.slot, structure.offset, structure.num_external)


class Late:
    """Vertices without children at once, others as late as possible: in trees, a step reads the one before it and leaves.

    For passes in which states are sent from step to step (`kernels.routes`), not for those over one memory.
    """

    def steps(self, structure: Structure) -> Ints:
        steps = POLICIES["height"].steps(structure) + 1
        steps[np.diff(structure.offset) == 0] = 0
        return steps


class Agenda:
    """Of the ready kinds, run the one whose vertices have the lowest average depth, all that are ready at once.

    For several kinds; the on-the-fly batching of DyNet (Neubig, Goldberg and Dyer, NIPS 2017, arXiv 1705.07860).
    """

    def steps(self, structure: Structure) -> Ints:
        return greedy(structure, None)


class Optimal:
    """The fewest steps that there are, by search: a yardstick for small graphs."""

    def steps(self, structure: Structure) -> np.ndarray[Any, Any]:
        return optimal(structure.num_vertices, structure.child, structure.offset, structure.kind_index)


def greedy(structure: Structure, table: dict[tuple[int, ...], int] | None) -> Ints:
    """Step after step, run one of the ready kinds: the one whose vertices have the lowest average depth.

    With a table, which names the kind to run for the ready kinds, listed the most numerous first, its choice comes before
    that. Before both comes a kind whose unblocked vertices (see `fsm.py`) are all ready: to run it is never a mistake.
    """
    kinds = 1 if structure.kinds is None else len(structure.kinds)
    return _core.greedy(
        structure.child, structure.slot, structure.offset, structure.kind_index, kinds, structure.num_external, table
    )


POLICIES: dict[str, Policy] = {"depth": Depth(), "height": Height(), "agenda": Agenda(), "optimal": Optimal()}
LATE = Late()
