"""What a vertex function sees of children: one in a slot, or all of them, with a row for each edge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...errors import VertexFunctionError
from .. import segments
from .roles import Slots

if TYPE_CHECKING:
    from .vertex import Vertex


AS_STATES = "; the states of children are attributes, such as v.gather(0).h and v.children.h"


class Gathered:
    """The state of a child: one attribute for each state name, `[rows, *shape]`, zeros where that child is missing.

    >>> left = v.gather(0)
    >>> left.h + left.c
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.__dict__.update(state)

    def __getattr__(self, name: str) -> Tensor:
        states = [state for state in self.__dict__ if not state.startswith("_")]
        raise VertexFunctionError(f"a child has no state {name!r}; the states are {listed(states)}")

    def __bool__(self) -> bool:
        raise VertexFunctionError(
            "`if` on a child: the method runs once for all vertices, so that Python cannot ask whether one has a child. A "
            "missing child's state is zeros; v.num_children tells how many there are, a row a vertex, for torch.where(...)"
        )

    def __len__(self) -> int:
        raise _not_a_list("len() of a child")

    def __iter__(self) -> Iterator[Any]:
        raise _not_a_list("iterating over a child")

    def __getitem__(self, index: object) -> Any:
        raise _not_a_list(f"the item {index!r} of a child")


class Children(Gathered):
    """Children of a vertex: one attribute for each state name, `[edges, *shape]`, a row for each edge to a child.

    `v.children` are all children, `v.children[k:]` those in slots k and later; a vertex function reads one or the other.

    >>> kids = v.children
    >>> v.sum(torch.sigmoid(kids.expand(x) + self.u(kids.h)) * kids.c)

    Attributes:
        slot: int64 [edges], the slot of each edge.
    """

    _v: Vertex
    _first_slot: int

    def __init__(self, v: Vertex, first_slot: int) -> None:
        super().__init__({})
        self.__dict__.update(_v=v, _first_slot=first_slot)

    def __getattr__(self, name: str) -> Tensor:
        if name == "slot":
            value = self._v._slots_from(self._first_slot)
        elif name in self._v._state:
            self.__dict__.update(self._v._children_from(self._first_slot))
            value = self.__dict__[name]
        else:
            raise VertexFunctionError(f"a child has no state {name!r}; the states are {listed(self._v._state)}")
        return value

    def __bool__(self) -> bool:
        raise VertexFunctionError(
            "`if` on v.children: the method runs once for all vertices, with children or without. v.sum(...) and its like are "
            "zeros for vertices without children; else use torch.where(v.num_children[:, None] > 0, a, b)"
        )

    def __len__(self) -> int:
        raise VertexFunctionError(
            "len(v.children): the method runs once for all vertices; v.num_children is how many children each has, a row a "
            "vertex"
        )

    def __iter__(self) -> Iterator[Any]:
        raise VertexFunctionError(
            "iterating over v.children: their states are tensors with a row for each edge to a child, such as v.children.h; "
            "compute all rows at once, then v.sum(...), v.mean(...), v.max(...) or v.softmax(...) over each vertex's children"
        )

    def __getitem__(self, index: object) -> Children:
        """The children in slots k and later: `v.children[k:]`."""
        is_rest = isinstance(index, slice) and index.stop is None and index.step in (None, 1) and not self._first_slot
        first = (index.start or 0) if isinstance(index, slice) and is_rest else None
        if not isinstance(first, int) or isinstance(first, bool) or first < 0:
            shown = f"v.children[{_shown(index)}]"
            raise VertexFunctionError(
                f"{shown}: v.children has a row for each edge to a child, and v.children[k:] those in slots k and later, with a "
                "number k from 0 on; v.gather(slot) is the child in one slot"
            )
        return Children(self._v, first) if first else self

    def pull(self, name: str) -> Tensor:
        """The row that each edge has in the edge input passed to the model as `name=`, `[edges, ...]`; the caller gives rows for
        all edges in the order of `batch.edge_index`, and they are sorted here."""
        self._v._choose(self._first_slot)
        return self._v._pull(name, per_edge=True)

    def expand(self, value: Tensor) -> Tensor:
        """A tensor of the vertex, `[rows, ...]`, repeated for each of its edges, `[edges, ...]`."""
        self._v._choose(self._first_slot)
        self._v._check_rows("kids.expand(...)", value)
        return segments.expand(value, self._v._counts(), self._v._edges)


class Arcs:
    """Arcs of a vertex (`vf.hypergraph`): tuples of children that belong together, with a row for each arc.

    An edge to a child is an arc of one child. What reduces over children (`v.sum`, `v.logsumexp`, `v.softmax` and their like)
    reduces over arcs; a vertex function that reads arcs reads neither `v.children` nor `v.gather(slot)`.

    >>> arcs = v.arcs
    >>> v.logsumexp(arcs.gather(0).h + arcs.gather(1).h + arcs.pull("score"))

    Attributes:
        slot: int64 [arcs], the number of each arc among those of its vertex: 0, 1, ... in the order in which they were given.
    """

    _v: Vertex

    def __init__(self, v: Vertex) -> None:
        self.__dict__.update(_v=v)

    def __getattr__(self, name: str) -> Tensor:
        if name != "slot":
            raise VertexFunctionError(
                f"v.arcs has no attribute {name!r}; v.arcs.gather(0), v.arcs.gather(1), ... are the children of each arc, whose "
                f"states are attributes ({listed(self._v._state)})"
            )
        self._v._choose_arcs()
        return self._v._of_edges(Slots()).clone()  # which the user may change in place

    def gather(self, position: int) -> Gathered:
        """The state of the child at a position (0, 1, ...) of each arc, `[arcs, *shape]`; zeros where it is missing."""
        return self._v._gather_at(position)

    def pull(self, name: str) -> Tensor:
        """The row that each arc has in the input passed to the model as `name=`, `[arcs, ...]`; the caller gives rows for all
        arcs in the order of `batch.arcs`."""
        self._v._choose_arcs()
        return self._v._pull(name, per_edge=True)

    def expand(self, value: Tensor) -> Tensor:
        """A tensor of the vertex, `[rows, ...]`, repeated for each of its arcs, `[arcs, ...]`."""
        self._v._choose_arcs()
        self._v._check_rows("arcs.expand(...)", value)
        return segments.expand(value, self._v._counts(), self._v._edges)

    def __bool__(self) -> bool:
        raise self._not_a_list("`if` on v.arcs")

    def __len__(self) -> int:
        raise self._not_a_list("len(v.arcs)")

    def __iter__(self) -> Iterator[Any]:
        raise self._not_a_list("iterating over v.arcs")

    def __getitem__(self, index: object) -> Any:
        raise self._not_a_list(f"v.arcs[{_shown(index)}]")

    @staticmethod
    def _not_a_list(attempt: str) -> VertexFunctionError:
        return VertexFunctionError(
            f"{attempt}: the method runs once for all vertices, with arcs or without. v.arcs.gather(position).h has a row for "
            "each arc, v.num_arcs is how many each vertex has; compute all rows at once, then v.sum(...), v.logsumexp(...) or "
            "their like"
        )


def _shown(index: object) -> str:
    if not isinstance(index, slice):
        return repr(index)
    start, stop, step = ("" if bound is None else repr(bound) for bound in (index.start, index.stop, index.step))
    return f"{start}:{stop}" + (f":{step}" if step else "")


def _not_a_list(attempt: str) -> VertexFunctionError:
    return VertexFunctionError(
        f"{attempt}: v.gather(slot) is one child, and its states are attributes, such as v.gather(0).h"
    )


def type_of(value: object) -> str:
    """The type of what was given in place of a tensor, and how to read the tensors of a child."""
    return f"{type(value).__name__}{AS_STATES if isinstance(value, Gathered) else ''}"


def listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
