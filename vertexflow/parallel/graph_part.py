"""`GraphPart`: what one rank has of graphs whose vertices are on several ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..call.arguments import Arguments
from ..call.on_ranks import OnRanks
from ..call.outputs import Outputs
from ..errors import GraphError, InputError
from ..graph.inputs.opaque import opaque
from ..graph.inputs.pack import GraphBatch

Ints = np.ndarray[Any, np.dtype[np.integer[Any]]]

# The kinds of vertices of a local graph: those of graphs without kinds, and what is added.
OWN, START, EXCHANGE = "own", "vertexflow start", "vertexflow exchange"
_FORMAT = "vertexflow graph part 1"
_ARRAYS = ("child", "slot", "offset", "graph_offset", "kind_index", "edge")
_OF_GRAPH = ("steps", "exchange", "place", "sent", "received", "edges")
_OF_PART = ("own", "roots", "leaves", "kind_index")


@dataclass(frozen=True, eq=False)
class LocalGraph:
    """What a rank computes, as a graph: its own vertices, in the order of their numbers; if need be a vertex that others read
    where they have nothing to send; the rows of the exchanges, one exchange after the other.

    Attributes:
        batch: one graph; its kinds are the user's (or `OWN`), `START` and `EXCHANGE`.
        steps: int64 [vertices], the step of each: even for the user's, by depth in the whole graph; odd for exchanges.
        exchange, place: int64 [rows of exchanges], of each row the number of its exchange and its place there.
        sent, received: int64 [exchanges, ranks]: the rows that go to each rank, and that come from it.
        edges: int64: the edges to children of own vertices, numbered as in the whole batch, in ascending order.
    """

    batch: GraphBatch
    steps: Ints = field(repr=False)
    exchange: Ints = field(repr=False)
    place: Ints = field(repr=False)
    sent: Ints = field(repr=False)
    received: Ints = field(repr=False)
    edges: Ints = field(repr=False)

    @property
    def num_exchanges(self) -> int:
        return len(self.sent)


@opaque
@dataclass(frozen=True, eq=False)
class GraphPart(OnRanks):
    """The vertices of graphs that one rank computes; the others are on other ranks. `vf.parallel.divide` makes one for each rank.

    Models are called with it as with a `GraphBatch`, on all ranks at the same time; inputs and outputs have the rows of this
    rank.

    Attributes:
        rank, ranks: which part it is, and of how many.
        num_vertices, num_edges: of this rank; an edge is on the rank of its parent.
        own: int64 [num_vertices]: its vertices, by their numbers in the whole batch, in ascending order: `x[part.own]`.
        edges: int64 [num_edges]: its edges, by their numbers in the whole batch: `weight[part.edges]`.
        roots, leaves: int64: those of its vertices that no vertex consumes, and that have no children in the whole batch,
            numbered as the rows of this rank: `out.h[part.roots]`.

    Example:
        >>> parts = vf.parallel.divide(batch, 4)                 # once, on one machine
        >>> for part in parts:
        ...     part.save(f"circuit-{part.rank}.pt")
        >>> part = vf.parallel.GraphPart.load(f"circuit-{rank}.pt")      # on each rank
        >>> out = model(part, x=x_of_all[part.own])
    """

    rank: int
    ranks: int
    checksum: int = field(repr=False)  # the same for all parts of a division
    num_graphs: int
    kinds: tuple[Any, ...] | None = field(repr=False)
    arrays: dict[str, Ints] = field(repr=False)
    upward: LocalGraph = field(repr=False)
    downward: LocalGraph | None = field(repr=False)  # for `reverse=True`
    prepared: dict[Any, Any] = field(default_factory=dict, repr=False)  # what calls have made of it; not saved

    @property
    def num_vertices(self) -> int:
        return len(self.arrays["own"])

    def __len__(self) -> int:
        return self.num_graphs

    @property
    def num_edges(self) -> int:
        return len(self.upward.edges)

    @property
    def own(self) -> Tensor:
        return torch.from_numpy(self.arrays["own"])

    @property
    def edges(self) -> Tensor:
        return torch.from_numpy(self.upward.edges)

    @property
    def reverse_edges(self) -> Tensor:
        """int64: the edges whose inputs this rank gives with `reverse=True`: there, an edge is on the rank of its child."""
        return torch.from_numpy(self._downward.edges)

    @property
    def roots(self) -> Tensor:
        return torch.from_numpy(self.arrays["roots"])

    @property
    def leaves(self) -> Tensor:
        return torch.from_numpy(self.arrays["leaves"])

    def of_kind(self, *kinds: Any) -> Tensor:
        """int64: the rows of this rank whose vertices are of these kinds, in ascending order."""
        if self.kinds is None:
            raise GraphError(f"the vertices of kind {kinds[0]!r} were asked for, but the graphs have no kinds")
        numbers = [number for number, kind in enumerate(self.kinds) if kind in kinds]
        return torch.from_numpy(np.flatnonzero(np.isin(self.arrays["kind_index"], numbers)))

    @property
    def num_ghosts(self) -> int:
        """How many rows of states this rank has for vertices of other ranks, and to send its own."""
        return len(self.upward.exchange)

    @property
    def _downward(self) -> LocalGraph:
        if self.downward is None:
            raise InputError(
                "the part was made for calls from the leaves to the roots: vf.parallel.divide(batch, ranks, reverse=True) makes "
                "parts for both directions"
            )
        return self.downward

    def local(self, reverse: bool) -> LocalGraph:
        """What a call computes. Raises `InputError` if the part was made for the other direction alone."""
        return self._downward if reverse else self.upward

    def run(self, model: Any, call: Arguments) -> Outputs:
        from .over_vertices import run

        return run(model, self, call)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the part to a file, of which `GraphPart.load` makes it again."""
        graphs = [self.upward, self.downward]
        torch.save(
            {
                "format": _FORMAT,
                **{name: getattr(self, name) for name in ("rank", "ranks", "checksum", "num_graphs", "kinds")},
                "arrays": _tensors(self.arrays),
                "graphs": [None if graph is None else _state(graph) for graph in graphs],
            },
            path,
        )

    @classmethod
    def load(cls, path: str | PathLike[str]) -> GraphPart:
        """The part that `save` wrote.

        Raises:
            InputError: the file is something else.
        """
        no_part = f"{path} is no part of graphs: GraphPart.save writes them"
        try:
            state = torch.load(path, weights_only=True)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # PyTorch raises many sorts for files that it does not know
            raise InputError(f"{no_part} ({type(error).__name__} as PyTorch reads it)") from error
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise InputError(no_part)
        graphs = [None if each is None else _graph(each) for each in state["graphs"]]
        assert graphs[0] is not None
        fields = {name: state[name] for name in ("rank", "ranks", "checksum", "num_graphs", "kinds")}
        return cls(**fields, arrays=_numpy(state["arrays"]), upward=graphs[0], downward=graphs[1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "prepared": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _tensors(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(value) for name, value in arrays.items() if value is not None}


def _numpy(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in tensors.items()}


def _state(graph: LocalGraph) -> dict[str, Any]:
    batch = graph.batch
    return {
        "sizes": [batch.num_graphs, batch.num_vertices, batch.num_slots],
        "kinds": batch.kinds,
        "batch": _tensors({name: getattr(batch, name) for name in _ARRAYS}),
        "arrays": _tensors({name: getattr(graph, name) for name in _OF_GRAPH}),
    }


def _graph(state: dict[str, Any]) -> LocalGraph:
    num_graphs, num_vertices, num_slots = state["sizes"]
    batch = GraphBatch(num_graphs, num_vertices, num_slots=num_slots, kinds=state["kinds"], **_numpy(state["batch"]))
    return LocalGraph(batch, **_numpy(state["arrays"]))
