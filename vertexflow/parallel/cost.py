"""What a training step on some graphs costs, predicted from the steps and the rows of their schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .. import _core
from ..errors import InputError, InputTypeError
from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch, pack
from ..samples.fields import divide

Floats = np.ndarray[Any, np.dtype[np.float64]]
_CHUNK = 4096  # samples that are packed at once


@dataclass(frozen=True)
class Cost:
    """The predicted cost of a training step on a batch: `vertex * V + edge * E + step * S`, in any unit.

    V is the number of vertices (every step computes a row for each of its vertices), E the number of edges, and S the number of
    steps: that of the deepest graph of the batch, as graphs side by side share their steps. So a row costs the same wherever it
    is, and a step costs something beside its rows (a launch, a barrier, weights that are read again).

    Attributes:
        vertex, edge, step: what one of them costs. By default a step costs as much as eight vertices, and edges nothing beside
            their vertices; `python -m benchmarks.balance --measure` measures it for a model.

    Raises:
        InputError: a cost that is negative or not finite, or all of them zero.

    Example:
        >>> BalancedSampler(graphs, 512, cost=Cost(vertex=1, edge=0.5, step=30))   # many children a vertex, many launches a step
    """

    vertex: float = 1.0
    edge: float = 0.0
    step: float = 8.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise InputTypeError(f"Cost({field.name}=...) is a {type(value).__name__}; give a number")
            if not 0 <= value < math.inf:
                raise InputError(f"Cost({field.name}={value}): a cost is a finite number from 0 up")
        if not self.vertex and not self.edge and not self.step:
            raise InputError("Cost(vertex=0, edge=0, step=0): graphs that cost nothing cannot be balanced")

    def of(self, batch: GraphBatch) -> float:
        """The predicted cost of a batch."""
        num_steps = int(_steps(batch).max(initial=0))
        return self.vertex * batch.num_vertices + self.edge * batch.num_edges + self.step * num_steps


@dataclass(frozen=True)
class Work:
    """What each sample adds to the cost of a batch, whatever else is in it, and what its steps cost, which the deepest sample
    alone adds; float64 [number of samples], both."""

    added: Floats
    steps: Floats

    def __len__(self) -> int:
        return len(self.added)


def work_of(dataset: Sequence[Any], cost: Cost | Any) -> Work:
    """The work of each sample. `cost` is a `Cost`, or the costs themselves, one for each sample.

    Raises:
        InputError, InputTypeError: samples without graphs, or costs that are not one number from 0 up for each sample.
    """
    if isinstance(cost, Cost):
        sizes = np.concatenate([_sizes(samples) for samples in _chunks(dataset)])
        return Work(sizes[:, :2] @ (cost.vertex, cost.edge), sizes[:, 2] * cost.step)
    try:
        costs = np.asarray(cost, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputTypeError(
            f"cost is a {type(cost).__name__}; give a vf.parallel.Cost, or one number for each sample"
        ) from error
    if costs.shape != (len(dataset),):
        raise InputError(
            f"cost has the shape {list(costs.shape)}; give one number for each of the {len(dataset)} samples"
        )
    wrong = np.flatnonzero(~(np.isfinite(costs) & (costs >= 0)))
    if len(wrong):
        raise InputError(f"the cost of sample {wrong[0]} is {costs[wrong[0]]}; give finite numbers from 0 up")
    return Work(costs.copy(), np.zeros(len(costs)))


def _chunks(dataset: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(dataset), _CHUNK):
        yield [dataset[index] for index in range(start, min(start + _CHUNK, len(dataset)))]


def _sizes(samples: list[Any]) -> Floats:
    """Vertices, edges and steps of each sample, float64 [number of samples, 3]; where one has several graphs, all of them."""
    graphs = [items for items in divide(samples).values() if isinstance(items[0], InputGraph)]
    if not graphs:
        raise InputTypeError(
            f"samples are of type {type(samples[0]).__name__} and have no input graph in them; give a data set of input graphs, "
            "or of samples with one, or cost=, one number for each sample"
        )
    return np.sum([_sizes_of_graphs(pack(items)) for items in graphs], axis=0)  # type: ignore[no-any-return]


def _sizes_of_graphs(batch: GraphBatch) -> Floats:
    edges = np.diff(batch.offset[batch.graph_offset])
    return np.stack([np.diff(batch.graph_offset), edges, _steps(batch)], 1).astype(np.float64)


def _steps(batch: GraphBatch) -> np.ndarray[Any, np.dtype[np.int64]]:
    """int64 [G]: in how many steps each graph alone is computed by depth; a step is of one kind."""
    if not batch.num_graphs:
        return np.zeros(0, np.int64)
    depth = _core.depth(batch.child, batch.slot, batch.offset, 0).astype(np.int64)
    graph = np.repeat(np.arange(batch.num_graphs), np.diff(batch.graph_offset))
    kind = np.zeros(1, np.int64) if batch.kind_index is None else batch.kind_index
    num_depths, num_kinds = depth.max(initial=0) + 1, kind.max(initial=0) + 1
    step = np.unique((graph * num_depths + depth) * num_kinds + kind)
    return np.bincount(step // (num_depths * num_kinds), minlength=batch.num_graphs)
