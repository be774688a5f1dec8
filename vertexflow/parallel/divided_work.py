"""What ranks do that share the vertices of graphs: the rows of each level, and what crosses between them in each exchange."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..graph.inputs.pack import GraphBatch
from .cluster import Cluster
from .cost import Floats
from .divide_graph import crossings, levels_of
from .graph_part import Ints
from .levels import Integers
from .observe import Call, Observation
from .options import Load, Loads, Mesh
from .partition import StepCost, partition
from .predict import LAUNCHES, plain_work, work_by_depth, work_of_ranks
from .work import COUNTED

CALLS_AROUND = (
    12  # of PyTorch around the message of an exchange: rows in order, joined, and where they belong (`exchange.py`)
)
_CALLS = COUNTED.index("calls")


@dataclass(frozen=True)
class Shares:
    """A division of a batch, in one direction.

    Attributes:
        rows, edges: float64 [ranks, depths, kinds], as of `Levels.of_ranks`.
        points: int64 [exchanges]: the level after which each is.
        sent: int64 [exchanges, ranks]: the rows that leave each rank.
        moved: int64 [exchanges, ranks]: the larger of the rows that leave and arrive.
    """

    rows: Floats
    edges: Floats
    points: Ints
    sent: Ints
    moved: Ints


def shares_of(batch: GraphBatch, rank_of: Ints, ranks: int, num_kinds: int) -> Shares:
    """What each rank has to do, where vertex v is computed by `rank_of[v]`."""
    levels = levels_of(batch)
    kind = np.zeros(len(levels), np.int64) if batch.kind_index is None else batch.kind_index.astype(np.int64)
    shape = (ranks, int(levels.max(initial=0)) + 1, num_kinds)
    at, size = np.ravel_multi_index((rank_of, levels, kind), shape), int(np.prod(shape))
    rows, edges = (np.bincount(at, each, size).reshape(shape) for each in (None, np.diff(batch.offset)))
    crossed = crossings(batch, levels, rank_of, ranks)
    of_exchanges = (len(crossed.points), ranks)
    sent, received = (
        np.bincount(crossed.exchange * ranks + side, minlength=int(np.prod(of_exchanges))).reshape(of_exchanges)
        for side in (crossed.source, crossed.target)
    )
    moved = np.maximum(sent, received)
    return Shares(rows.astype(np.float64), edges.astype(np.float64), crossed.points, sent, moved)


def why_not(observation: Observation) -> str | None:
    """Why the vertices of these graphs are not divided; None if they can be."""
    calls = [call for part in observation.parts for call in part.calls]
    if not all(call.has_own for call in calls):
        return "a vertex function is called with other parameters than its own, as the layers of vf.nn.LSTM and GRU are"
    if any(call.batch is not calls[0].batch for call in calls):
        return "vertex functions are called on several batches"
    if calls[0].batch.arity > 1:
        return "the arcs of hypergraphs are not divided"
    if any(call.is_in_parts for call in calls):
        return "of a graph on several ranks no parts are made: leave max_vertices of the vertex functions None"
    return None


def step_cost(observations: Sequence[Observation], cluster: Cluster, ranks: int) -> StepCost:
    """What a level, an exchange and a state that crosses cost in the time of a row, of all calls of a model together: forward and
    backward, of so many ranks."""
    seconds, link = cluster.seconds_of(), functools.partial(cluster.collective, "all_to_all", ranks=ranks)
    row = level = exchange = crossing = 0.0
    for call in (call for each in observations for part in each.parts for call in part.calls):
        everything = np.zeros(call.levels.num_graphs, np.int64)
        once, of_depths = work_by_depth(call, *call.levels.of_ranks(everything, 1))
        of_levels = of_depths.sum((0, 1)) * seconds
        of_rows = once.sum(0)[:LAUNCHES] * seconds[:LAUNCHES] + of_levels[:LAUNCHES]
        row += float(of_rows.sum()) / max(1, call.batch.num_vertices)
        level += float(of_levels[LAUNCHES:].sum()) / max(1, of_depths.shape[1])
        exchange += 2 * (link(0.0) + CALLS_AROUND * cluster.python)
        crossing += 2 * (link(call.state_bytes) - link(0.0))
    row = row or 1.0
    return StepCost(level / row, exchange / row, crossing / row)


def divided_loads(
    observation: Observation,
    cluster: Cluster,
    num_data: int,
    data_rank: Integers,
    ranks: int,
    cost: StepCost | None = None,
    stride: int = 1,
) -> Loads | None:
    """What the slowest ranks do where those of a data rank share the vertices of its graphs, for the data rank that has most.

    Between two exchanges, and before and after all of them, ranks wait for the one of them that has most to do there. Ranks that
    exchange states are each `stride` devices from the next.
    None: what is called is not carried out for parts of graphs.

    Raises:
        BackendError: METIS is not installed.
    """
    if why_not(observation) is not None:
        return None
    seconds = cluster.seconds_of()
    of_data = np.sum([work_of_ranks(part, data_rank, num_data) for part in observation.parts], axis=0) @ seconds
    worst = int(np.argmax(of_data))
    (call, *_) = (call for part in observation.parts for call in part.calls)
    batch = call.batch if num_data == 1 else of_graphs(call.batch, data_rank == worst)
    rank_of = partition(batch, levels_of(batch), ranks, cost or StepCost())
    share = np.bincount(rank_of, minlength=ranks) / max(1, observation.num_vertices)
    shares: dict[bool, Shares] = {}
    loads, slowest, mean = [], 0.0, 0.0
    for part in observation.parts:
        plain = plain_work(part, share)
        work = plain[np.argmax(plain @ seconds)].copy()
        mean += float((plain @ seconds).mean())
        load = Load(part, work, len(part.calls), np.zeros(0), np.zeros(0), float(share.max()))
        for each in part.calls:
            if each.reverse not in shares:
                turned = batch.reversed() if each.reverse else batch
                shares[each.reverse] = shares_of(turned, rank_of, ranks, each.levels.num_kinds)
            load, of_all = _with_call(load, each, shares[each.reverse], cluster, stride)
            mean += of_all
        slowest += float(load.work @ seconds)
        loads.append(load)
    fixed = cluster.call * max(1, sum(load.calls for load in loads))
    return Loads(loads, max(1.0, (slowest + fixed) / (mean + fixed) * float(of_data[worst] / of_data.mean())))


def _with_call(load: Load, call: Call, shares: Shares, cluster: Cluster, stride: int) -> tuple[Load, float]:
    """The load with a call of a vertex function, and the seconds that ranks work on it on average."""
    seconds, ranks = cluster.seconds_of(), len(shares.rows)
    once, of_depths = work_by_depth(call, shares.rows, shares.edges)
    # Levels up to the first exchange, from there to the second, and so on.
    starts = np.concatenate([[0], shares.points + 1]).astype(np.int64)
    starts = starts[starts < of_depths.shape[1]]
    of_bands = np.add.reduceat(of_depths, starts, axis=1)
    slowest = np.argmax(of_bands @ seconds, axis=0)
    work = load.work + once[np.argmax(once @ seconds)] + of_bands[slowest, np.arange(len(starts))].sum(0)
    around = 2 * CALLS_AROUND * len(shares.points)  # forward and backward
    work[_CALLS] += around
    most = shares.moved.max(1, initial=0) * call.state_bytes
    message = functools.partial(cluster.collective, "all_to_all", ranks=ranks, stride=stride)
    rows_held = np.maximum(shares.moved, 1).sum(0).max(initial=0)
    depths = np.arange(of_depths.shape[1])
    rows = shares.rows.sum(-1)[slowest[np.searchsorted(starts, depths, "right") - 1], depths]
    rows = rows[rows > 0]
    load = replace(
        load,
        work=work,
        rows=np.concatenate([load.rows, rows]),
        state_bytes=np.concatenate([load.state_bytes, np.full(len(rows), call.state_bytes)]),
        exchanged=load.exchanged + 2 * sum(message(float(size)) for size in most),  # states, and back their gradients
        latency=load.latency + 2 * len(most) * message(0.0),
        sent=load.sent + 2 * float(shares.sent.sum(0).max(initial=0)) * call.state_bytes,
        held=load.held + 2 * float(rows_held) * call.state_bytes,
    )
    of_all = float((once.sum(0) + of_depths.sum((0, 1))) @ seconds / ranks)
    return load, of_all + float(around * seconds[_CALLS])


def least_share(observation: Observation, data_rank: Integers, mesh: Mesh) -> float:
    """The least share of all vertices that the rank with most can have, however the graphs are divided."""
    call = next(call for part in observation.parts for call in part.calls)
    of_data = np.bincount(data_rank, np.diff(call.batch.graph_offset), mesh.data)
    return float(of_data.max(initial=0)) / max(1, observation.num_vertices) / mesh.vertices


def of_graphs(batch: GraphBatch, is_chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> GraphBatch:
    """The structure of some graphs of a batch."""
    sizes, degrees = np.diff(batch.graph_offset), np.diff(batch.offset)
    vertices = np.repeat(is_chosen, sizes)
    edges = np.repeat(vertices, degrees)
    number = np.cumsum(vertices) - 1
    return GraphBatch(
        num_graphs=int(is_chosen.sum()),
        num_vertices=int(vertices.sum()),
        child=number[batch.child[edges]].astype(np.int32),
        slot=batch.slot[edges],
        offset=np.concatenate([[0], np.cumsum(degrees[vertices])]).astype(np.int32),
        graph_offset=np.concatenate([[0], np.cumsum(sizes[is_chosen])]).astype(np.int32),
        num_slots=batch.num_slots,
        kinds=batch.kinds,
        kind_index=None if batch.kind_index is None else batch.kind_index[vertices],
    )
