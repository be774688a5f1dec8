"""Which rank computes which vertices: parts that METIS finds, of which each has as much of every band of levels, and few edges
between.

METIS (G. Karypis and V. Kumar, SIAM J. Sci. Comput. 20, 1998) cuts a graph into parts of the same size with few edges between
them. Of a whole DAG such parts come one after the other, and ranks would wait for each other. So the levels are cut into bands
of consecutive ones, each band is cut by METIS, and its parts go to the ranks that have most of the children (an assignment
problem). Bands are as many as a predicted
step wants: many of them share the work of each level evenly, few of them let few states cross.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import BackendError, InputError, InputTypeError
from ..graph.inputs.pack import GraphBatch
from .divide_graph import Crossings, crossings, parents_of
from .graph_part import Ints

_SLACK = 30  # thousandths by which a part may be larger than the mean, as METIS has it by default
_MOST = 1.1  # vertices of a rank over the mean, where there are several bands


@dataclass(frozen=True)
class StepCost:
    """The predicted cost of a training step on divided graphs, in the time of a row. It says into how many bands of levels a
    graph is cut, nothing else: many share the work of each level evenly, few have few exchanges. `vf.parallel.plan` finds it
    for a model and a cluster; without a plan it is that of a quick link.

    Attributes:
        step, exchange, crossing: of a level, of an exchange, and of a state that crosses.

    Raises:
        InputError, InputTypeError: a cost that is no number from 0 up.
    """

    step: float = 8.0
    exchange: float = 16.0
    crossing: float = 0.5

    def __post_init__(self) -> None:
        for name in ("step", "exchange", "crossing"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise InputTypeError(f"StepCost({name}=...) is a {type(value).__name__}; give a number")
            if not 0 <= value < np.inf:
                raise InputError(f"StepCost({name}={value}): a cost is a finite number from 0 up")

    def of(self, levels: Ints, rank_of: Ints, crossed: Crossings, ranks: int) -> float:
        """That of a division: in each level, and in each exchange, the most loaded rank is waited for."""
        num_levels, num_exchanges = int(levels.max(initial=-1)) + 1, len(crossed.points)
        rows = np.bincount(levels * ranks + rank_of, minlength=num_levels * ranks).reshape(num_levels, ranks)
        sent, received = (
            np.bincount(crossed.exchange * ranks + side, minlength=num_exchanges * ranks).reshape(num_exchanges, ranks)
            for side in (crossed.source, crossed.target)
        )
        moved = np.maximum(sent, received).max(1, initial=0).sum()
        work = rows.max(1, initial=0).sum() + self.step * num_levels
        return float(work + self.exchange * num_exchanges + self.crossing * moved)


def partition(batch: GraphBatch, levels: Ints, ranks: int, cost: StepCost) -> Ints:
    """int64 [V]: the rank of each vertex, of the divisions into 1, 2, 4, ... bands that which costs least, and leaves no rank
    more than a tenth above the mean."""
    if ranks == 1 or not batch.num_vertices:
        return np.zeros(batch.num_vertices, np.int64)
    num_levels = int(levels.max()) + 1
    best: Ints = np.zeros(0, np.int64)
    least, worse = np.inf, 0
    for bands in (1 << power for power in range(num_levels.bit_length())):
        rank_of = _in_bands(batch, levels, ranks, bands)
        predicted = cost.of(levels, rank_of, crossings(batch, levels, rank_of, ranks), ranks)
        is_even = np.bincount(rank_of).max() <= max(_MOST * batch.num_vertices / ranks, batch.num_vertices / ranks + 1)
        if bands == 1 or (predicted < least and is_even):
            best, least, worse = rank_of, predicted, 0
        elif (worse := worse + 1) == 2:
            break
    return best


def bands_of(levels: Ints, bands: int) -> Ints:
    """int64 [V]: the band of each vertex: consecutive levels, about as many vertices in each."""
    sizes = np.bincount(levels)
    middle = np.cumsum(sizes) - sizes / 2
    band = np.minimum((middle * bands / len(levels)).astype(np.int64), bands - 1)
    result: Ints = np.unique(band, return_inverse=True)[1][levels]
    return result


def _in_bands(batch: GraphBatch, levels: Ints, ranks: int, bands: int) -> Ints:
    band = bands_of(levels, bands)
    parent, child = parents_of(batch), batch.child.astype(np.int64)
    rank_of = np.full(batch.num_vertices, -1)
    number = np.zeros(batch.num_vertices, np.int64)
    by_band, by_edge = np.argsort(band, kind="stable"), np.argsort(band[parent], kind="stable")
    vertex_ends = np.searchsorted(band[by_band], np.arange(band.max() + 2))
    edge_ends = np.searchsorted(band[parent[by_edge]], np.arange(band.max() + 2))
    for at in range(int(band.max()) + 1):
        vertices = by_band[vertex_ends[at] : vertex_ends[at + 1]]
        edges = by_edge[edge_ends[at] : edge_ends[at + 1]]
        number[vertices] = np.arange(len(vertices))
        above, below = parent[edges], child[edges]
        is_inside = band[below] == at
        inside = number[above[is_inside]], number[below[is_inside]]
        before = number[above[~is_inside]], rank_of[below[~is_inside]]
        rank_of[vertices] = _of_band(len(vertices), inside, before, ranks)
    return rank_of


def _of_band(count: int, inside: tuple[Ints, Ints], before: tuple[Ints, Ints], ranks: int) -> Ints:
    """The rank of each vertex of a band. `inside` are edges between its vertices, `before` those to vertices of ranks, of
    bands before.

    Each rank is a vertex too, as heavy as the whole band, so that each part has one of them, and draws its parents.
    """
    anchors = ranks if len(before[0]) else 0
    ends = np.concatenate([inside[0], before[0]]), np.concatenate([inside[1], count + before[1]])
    num_nodes = count + anchors
    keys, weights = np.unique(
        np.concatenate([ends[0] * num_nodes + ends[1], ends[1] * num_nodes + ends[0]]), return_counts=True
    )
    source, target = np.divmod(keys, num_nodes)
    start = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=num_nodes))])
    sizes = np.concatenate([np.ones(count, np.int64), np.full(anchors, count)])
    slack = max(1, _SLACK // (1 + anchors))
    parts = _metis(ranks, start, target, sizes, weights, slack)
    if not anchors:
        return parts
    from scipy.optimize import linear_sum_assignment

    gain = np.zeros((ranks, ranks), np.int64)  # of part p at rank r
    np.add.at(gain, (parts[before[0]], before[1]), 1)
    rank_of_part = linear_sum_assignment(gain, maximize=True)[1]
    result: Ints = rank_of_part[parts[:count]]
    return result


def _metis(parts: int, start: Ints, target: Ints, sizes: Ints, weights: Ints, slack: int) -> Ints:
    """The part of each vertex of a graph, by METIS."""
    try:
        import pymetis
    except ImportError as error:
        raise BackendError(
            "graphs are divided by METIS, which is not installed: pip install 'vertexflow[parallel]'; or say which rank "
            "computes each vertex, divide(batch, ranks, rank_of=...)"
        ) from error
    dtype: Any = pymetis.zero_copy_dtype()
    arrays = [array.astype(dtype) for array in (start, target, sizes, weights)]
    adjacency = pymetis.CSRAdjacency(arrays[0], arrays[1])
    options = pymetis.Options(seed=0, ufactor=slack)
    division = pymetis.part_graph(
        parts,
        adjacency,
        vweights=arrays[2],
        eweights=arrays[3] if len(weights) else None,
        recursive=False,
        options=options,
    )
    return np.asarray(division.vertex_part, np.int64)
