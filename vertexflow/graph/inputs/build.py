"""Input graphs: the structure of one sample, as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ... import _core
from ...errors import GraphError, InputTypeError
from ..uncompiled import uncompiled
from .arcs import arcs_of, first_of_arc
from .drawn import Drawn
from .edge_arrays import LARGEST, Wide, edge_arrays, explain, int_array
from .edge_index import edge_index_of
from .kind_names import number_kinds
from .opaque import opaque

Ints = np.ndarray[Any, np.dtype[np.int32]]

HEADER = 4
HAS_KINDS, HAS_EDGES = 1, 2  # flags: which of `structure`'s last two arrays there are


@opaque
@dataclass(frozen=True, eq=False, slots=True, repr=False)
class InputGraph(Drawn):
    """One sample's structure. Made by `vf.graph`, `vf.tree`, `vf.tree_from_parents`, `vf.chain` and the readers.

    Attributes:
        structure: int32, all of it in one array: V, E, K, flags, then `offset`, `child`, `slot`, the number of each
            vertex's kind among `kinds`, and `edge`; flags say which of the last two there are (1 and 2). The names below are
            views of it.
        kinds: the kinds that occur, sorted, or None.
        data: arrays that a reader read, or that were put there, by name: of one row a vertex (labels, tokens), or, for the
            names in `edge_names`, of one row an edge, in the order of `edge_index`.
        edge_names: the names in `data` that have a row an edge; append yours.
        num_vertices, num_edges: V and E.
        num_slots: K, the largest slot in use plus one; 0 without edges.
        edge_index: int64 [2, E] tensor, the child and the parent of each edge, in the order in which edges were given: that of
            edge inputs.
        child: int32 [E], the children of all vertices, sorted by parent and then by slot, whatever the order of edges was.
        slot: int32 [E], the slot that each child fills.
        offset: int32 [V + 1]; the children of vertex v are `child[offset[v]:offset[v + 1]]`.
        edge: int32 [E], the number of each entry of `child` among the edges as they were given; None: they were given sorted.
        kind: an array [V] with the kind of each vertex, or None.
        arity, num_arcs, arcs: how many children the arcs of a hypergraph have (`vf.hypergraph`), how many arcs there are, and
            int64 [arity + 1, num_arcs], their children (-1: missing) and parents, as they were given. Edges above are then those
            of single children to their parents, and what has a row an edge has a row an arc. In other graphs edges are arcs of
            one child.
    """

    structure: Ints
    kinds: tuple[Any, ...] | None = None
    data: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    edge_names: list[str] = field(default_factory=list)
    arity: int = 1

    @property
    def num_vertices(self) -> int:
        return int(self.structure[0])

    @property
    def num_edges(self) -> int:
        return int(self.structure[1])

    @property
    def num_slots(self) -> int:
        return int(self.structure[2])

    @property
    def offset(self) -> Ints:
        return self._part(0, self.num_vertices + 1)

    @property
    def child(self) -> Ints:
        return self._part(self.num_vertices + 1, self.num_edges)

    @property
    def slot(self) -> Ints:
        return self._part(self.num_vertices + 1 + self.num_edges, self.num_edges)

    @property
    def edge(self) -> Ints | None:
        if not self.structure[3] & HAS_EDGES:
            return None
        return self.structure[len(self.structure) - self.num_edges :]

    @property
    def edge_index(self) -> torch.Tensor:
        return torch.from_numpy(edge_index_of(self.child, self.offset, self.edge))

    @property
    def num_arcs(self) -> int:
        return self.num_edges if self.arity == 1 else int(first_of_arc(self.slot, self.offset, self.arity).sum())

    @property
    def arcs(self) -> torch.Tensor:
        return torch.from_numpy(arcs_of(self.child, self.slot, self.offset, self.edge, self.arity))

    @property
    def kind(self) -> np.ndarray[Any, Any] | None:
        if self.kinds is None:
            return None
        return np.array(self.kinds)[self._part(self.num_vertices + 1 + 2 * self.num_edges, self.num_vertices)]

    def _part(self, start: int, size: int) -> Ints:
        return self.structure[HEADER + start : HEADER + start + size]

    def with_kind(self, kind: Sequence[Any] | None) -> InputGraph:
        """A copy whose vertices are of other kinds, as in `vf.graph`; None: of none. Raises as `vf.graph` does.

        >>> tree = vf.tree(((0, 1), 2)).with_kind(["leaf"] * 3 + ["node"] * 2)
        """
        vertices, edges, flags = self.num_vertices, self.num_edges, int(self.structure[3])
        kinds, numbers = (None, None) if kind is None else number_kinds(kind, vertices)
        parts = [self.structure[: HEADER + vertices + 1 + 2 * edges], numbers, self.edge]
        structure = np.concatenate([part for part in parts if part is not None])  # a copy
        structure[3] = flags & ~HAS_KINDS if numbers is None else flags | HAS_KINDS
        return InputGraph(structure.astype(np.int32), kinds, dict(self.data), [*self.edge_names], self.arity)

    def with_data(self, edge_names: Sequence[str] = (), /, **arrays: Any) -> InputGraph:
        """A copy with further arrays in `data`, or others of these names: of one row a vertex, or, for `edge_names`, of one row
        an edge, in the order of `edge_index`.

        Raises:
            GraphError: an array without a row for each vertex, or edge; a name of edges without an array.

        Example:
            >>> vf.chain(3).with_data(["weight"], word=[4, 1, 2], weight=[0.5, 2.0]).data["word"]
            array([4, 1, 2])
        """
        given = {name: np.asarray(value) for name, value in arrays.items()}
        for name in edge_names:
            if name not in given:
                raise GraphError(f"{name!r} is among the names of edges, but no array of this name is given")
        for name, array in given.items():
            count, noun = self.num_vertices, "vertices"
            if name in edge_names:
                count, noun = self.num_arcs, "edges" if self.arity == 1 else "arcs"
            if array.ndim == 0 or len(array) != count:
                rows = f"{len(array)} rows" if array.ndim else "one value"
                raise GraphError(f"data {name!r} has {rows} for {count} {noun}; give one row for each")
        kept = [name for name in self.edge_names if name not in given]
        return InputGraph(self.structure, self.kinds, {**self.data, **given}, [*kept, *edge_names], self.arity)

    def __repr__(self) -> str:
        return f"InputGraph(num_vertices={self.num_vertices})"

    def __reduce__(self) -> tuple[type[InputGraph], tuple[Any, ...]]:  # Python 3.10 would replace a `__getstate__`
        return type(self), (self.structure, self.kinds, self.data, self.edge_names, self.arity)

    def __setstate__(self, state: list[Any]) -> None:  # of graphs that were pickled before there was a `__reduce__`
        for name, value in zip(self.__slots__, [*state, 1][:5], strict=True):  # older ones have no arity
            object.__setattr__(self, name, value)


@uncompiled
def graph(num_vertices: int, edges: Any, kind: Sequence[Any] | None = None, slots: Any = None) -> InputGraph:
    """An input graph from its edges.

    Args:
        num_vertices: vertices are 0 .. num_vertices - 1.
        edges: pairs (child, parent), or an array or tensor of shape [2, E] (children, then parents). The k-th edge that
            names a parent fills its slot k. Whatever has a row an edge, such as an edge input, is in their order.
        kind: the kind of each vertex, if vertices are of several kinds: strings, or numbers, all of one type.
        slots: the slot of each edge, where the order of the edges does not tell (a missing left child).

    Raises:
        GraphError: no vertices, a vertex out of range, a slot negative or used twice, a cycle, or kinds or slots of the
            wrong length.
        InputTypeError: vertices or slots that are no integers, kinds of several types, or of another.

    Example:
        >>> vf.graph(3, [(0, 2), (1, 2)])  # vertex 2 has the children 0 and 1
        InputGraph(num_vertices=3)
    """
    num_vertices = check_num_vertices(num_vertices)
    child, parent = edge_arrays(edges)
    slot_of_edge = None if slots is None else int_array(slots, "slots")
    if slot_of_edge is not None and len(slot_of_edge) != len(child):
        raise GraphError(f"{len(slot_of_edge)} slots for {len(child)} edges; give one slot for each edge")
    kinds, numbers = (None, None) if kind is None else number_kinds(kind, num_vertices)
    try:
        return InputGraph(_core.graph(num_vertices, child, parent, slot_of_edge, numbers), kinds)
    except _core.Malformed as error:
        explain(error, num_vertices, child, parent, slot_of_edge)


def check_num_vertices(num_vertices: Any) -> int:
    """How many vertices a graph has, if that is possible."""
    if not isinstance(num_vertices, (int, np.integer)) or isinstance(num_vertices, bool):
        raise InputTypeError(f"num_vertices is {num_vertices!r}; give an integer")
    if num_vertices <= 0:
        raise GraphError(f"a graph with no vertices (num_vertices={num_vertices}); every graph needs at least one")
    if num_vertices > LARGEST:
        raise GraphError(f"num_vertices is {num_vertices}; a graph has at most {LARGEST} vertices")
    return int(num_vertices)


@uncompiled
def tree(nested: Any) -> InputGraph:
    """A tree from nested tuples or lists; the k-th element of a tuple is the child in slot k.

    Leaves are the numbers of the leaf vertices, 0 .. L - 1 in any order, or all None, numbered from left to right.
    Inner vertices follow in post-order, so that the root is the last vertex. A number or None alone is one vertex.
    Edges are in the order of their parents, and of slots.

    Raises:
        GraphError: an empty tuple, or leaves that are not 0 .. L - 1, each once.
        InputTypeError: a leaf that is neither a number nor None, or some of both.

    Example:
        >>> vf.tree(((0, 1), 2))  # 3 = (0, 1); 4 = (3, 2), the root
        InputGraph(num_vertices=5)
    """
    leaves: list[Any] = []
    child: list[int] = []
    counts: list[int] = []
    # Of each tuple that is still open: its elements, and the children that were read so far.
    stack: list[tuple[Any, list[int]]] = [(nested, [])] if isinstance(nested, (tuple, list)) else []
    if not stack:
        leaves.append(nested)
    while stack:
        elements, children = stack[-1]
        if len(children) < len(elements):
            element = elements[len(children)]
            if isinstance(element, (tuple, list)):
                stack.append((element, []))
            else:
                children.append(len(leaves))
                leaves.append(element)
            continue
        if not elements:
            raise GraphError(f"an empty tuple in {_shortened(nested)}; a vertex without children is a number or None")
        child += children
        counts.append(len(children))
        stack.pop()
        if stack:
            stack[-1][1].append(-len(counts))
    return from_post_order(_leaf_numbers(leaves, nested), child, counts)


def from_post_order(leaves: Wide, child: list[int], counts: list[int]) -> InputGraph:
    """A tree whose inner vertices were closed one after the other, as a bracket reader meets them.

    `leaves` is the vertex of each leaf, from left to right. `child` lists the children of all inner vertices in that
    order, `counts` how many each has; a child is i for leaf i, and -1 - i for inner vertex i, because the numbers of
    inner vertices are known only when all leaves are.
    """
    children, sizes = np.array(child, dtype=np.int64), np.array(counts, dtype=np.int64)
    ends = np.cumsum(sizes)
    slot = np.arange(len(children)) - np.repeat(ends - sizes, sizes)
    children = np.where(children < 0, len(leaves) - 1 - children, leaves[np.maximum(children, 0)])
    offset = np.concatenate((np.zeros(len(leaves) + 1, np.int64), ends))
    return _sorted_graph(offset, children, slot, num_slots=int(sizes.max(initial=0)))


def _sorted_graph(offset: Wide, child: Wide, slot: Wide, num_slots: int) -> InputGraph:
    """A graph from arrays as `InputGraph` documents them: edges are given sorted by parent and slot."""
    if len(offset) > LARGEST:
        raise GraphError(f"{len(offset) - 1} vertices; a graph has at most {LARGEST}")
    structure = np.empty(HEADER + len(offset) + 2 * len(child), np.int32)
    structure[:HEADER] = len(offset) - 1, len(child), num_slots, 0
    np.concatenate((offset, child, slot), out=structure[HEADER:], casting="same_kind")
    return InputGraph(structure)


@uncompiled
def tree_from_parents(parents: Any) -> InputGraph:
    """A tree or forest from the parent of each vertex, -1 for a root. Children take slots in order of their numbers.

    Edges are in the order of their children: edge i is that of the i-th vertex that has a parent.

    Raises:
        GraphError: no vertices, a parent out of range, or a cycle.
        InputTypeError: parents that are no integers.

    Example:
        >>> vf.tree_from_parents([2, 2, -1])
        InputGraph(num_vertices=3)
    """
    parent = int_array(parents, "parents")
    outside = np.flatnonzero((parent < -1) | (parent >= len(parent)))
    if len(outside):
        raise GraphError(
            f"the parent of vertex {outside[0]} is {parent[outside[0]]}, which is out of range; "
            f"give a vertex from 0 to {len(parent) - 1}, or -1 for a root"
        )
    child = np.flatnonzero(parent >= 0)
    return graph(len(parent), np.stack([child, parent[child]]))


@uncompiled
def chain(length: int) -> InputGraph:
    """A sequence: vertex t has vertex t - 1 in slot 0; edge t runs from vertex t to vertex t + 1.

    Raises:
        GraphError: a length below 1.
        InputTypeError: a length that is no integer.

    Example:
        >>> vf.chain(5)
        InputGraph(num_vertices=5)
    """
    if not isinstance(length, (int, np.integer)) or isinstance(length, bool):
        raise InputTypeError(f"the length of a chain is {length!r}; give an integer")
    if length <= 0:
        raise GraphError(f"a graph with no vertices: a chain of length {length}; give at least 1")
    if length > LARGEST:
        raise GraphError(f"a chain of length {length}; a graph has at most {LARGEST} vertices")
    offset = np.maximum(np.arange(length + 1) - 1, 0)
    return _sorted_graph(offset, np.arange(length - 1), np.zeros(length - 1, np.int64), num_slots=int(length > 1))


def _leaf_numbers(leaves: list[Any], nested: Any) -> Wide:
    """The vertex of each leaf, from left to right."""
    if all(leaf is None for leaf in leaves):
        return np.arange(len(leaves))
    wrong = next((leaf for leaf in leaves if not isinstance(leaf, (int, np.integer)) or isinstance(leaf, bool)), None)
    if wrong is not None or None in leaves:
        raise InputTypeError(
            f"a leaf of {_shortened(nested)} is {wrong!r}; leaves are the numbers of the leaf vertices, or all None"
        )
    numbers = np.array(leaves, dtype=np.int64)
    if not np.array_equal(np.sort(numbers), np.arange(len(leaves))):
        raise GraphError(
            f"the leaves of {_shortened(nested)} are not 0 to {len(leaves) - 1}, each once; "
            "number the leaf vertices so, or write None for each to number them from left to right"
        )
    return numbers


def _shortened(nested: Any) -> str:
    """The user's own pattern, cut to a line; nested too deep for repr, only its beginning."""
    try:
        text = repr(nested)
    except RecursionError:
        text = "(" * 20 + "..."
    return text if len(text) <= 60 else text[:57] + "..."
