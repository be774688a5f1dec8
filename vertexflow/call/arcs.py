"""Vertex functions that read arcs, and what they are called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ..errors import GraphError, VertexFunctionError
from ..graph.inputs.pack import GraphBatch


class ReadsArcs(Protocol):
    """Whether a method reads arcs, as its trace says or as its calls showed."""

    @property
    def arc_size(self) -> int | None:
        """How many children of each arc it reads; None: it reads no arcs."""


class ReadsChildren(ReadsArcs, Protocol):
    """How a method reads children."""

    @property
    def num_slots(self) -> int: ...

    @property
    def reads_edges(self) -> bool: ...


def check(used: Mapping[str, ReadsChildren], methods: Sequence[str], batch: GraphBatch) -> None:
    """Refuse arcs that the methods of a batch would not read, or not with all their children.

    Raises:
        GraphError: the batch has arcs of several children, and a method reads single children, or fewer of an arc.
    """
    for name in dict.fromkeys(methods) if batch.arity > 1 else ():
        use, prefix = used[name], f"the graphs have arcs of {batch.arity} children (vf.hypergraph), and method `{name}`"
        if use.arc_size is None and (use.num_slots or use.reads_edges):
            raise GraphError(f"{prefix} reads single children; read v.arcs, or give graphs with edges (vf.graph)")
        if use.arc_size and use.arc_size < batch.arity:
            raise GraphError(
                f"{prefix} reads the first {use.arc_size} of each; read v.arcs.gather({use.arc_size}) as well, or give arcs with "
                "fewer children"
            )


def refuse_growth(used: Mapping[str, ReadsArcs]) -> None:
    """Refuse methods that read arcs in a run that grows."""
    for name, use in used.items():
        if use.arc_size is not None:
            raise VertexFunctionError(
                f"method `{name}` reads v.arcs, and a run that grows has no arcs, only children in slots; read v.children or "
                "v.gather(slot), or call the model on whole graphs (vf.hypergraph)"
            )
