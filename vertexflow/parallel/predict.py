"""How long a training step takes, and what it needs of memory: the work of a rank's graphs times what things cost."""

from __future__ import annotations

import numpy as np

from .balance import Ranks, balance
from .calibration import ALWAYS_FRESH
from .cluster import Cluster
from .cost import Floats
from .levels import Integers
from .observe import Call, ModelPart, Observation
from .work import COUNTED

_FRESH = COUNTED.index("fresh")
LAUNCHES = COUNTED.index("launches")  # this and what follows is for each step, not each row
_MOST_PLACED = 4096  # graphs that are placed one by one; more are dealt out by size


def work_of_ranks(part: ModelPart, rank: Integers, num_ranks: int, share: float = 1.0) -> Floats:
    """The work of a part on each rank, float64 [num_ranks, len(COUNTED)], where graph g is on `rank[g]`; with a share, of so much
    of the rows of every step, as in one of several micro-batches."""
    done = np.zeros((num_ranks, len(COUNTED)))
    for call in part.calls:
        rows, edges = call.levels.of_ranks(rank, num_ranks)
        done += _work_of_call(call, rows * share, edges * share)
    return done + plain_work(part, np.bincount(rank, minlength=num_ranks) / max(1, len(rank)) * share)


def plain_work(part: ModelPart, share: Floats) -> Floats:
    """The work of a part beside vertex functions, [ranks, len(COUNTED)], on ranks that have such shares of the rows."""
    if not part.plain.any():
        return np.zeros((len(share), len(COUNTED)))
    is_call = np.array([name == "calls" for name in COUNTED])
    work: Floats = share[:, None] * np.where(is_call, 0, part.plain) + np.where(is_call, part.plain, 0)
    for size, largest in part.plain_sizes:
        work[:, _FRESH] += share * size * np.minimum(share * largest / ALWAYS_FRESH, 1)
    return work


def _work_of_call(call: Call, rows: Floats, edges: Floats) -> Floats:
    """The work on rows and edges [ranks, depths, kinds]."""
    once, of_depths = work_by_depth(call, rows, edges)
    done: Floats = once + of_depths.sum(1)
    return done


def work_by_depth(call: Call, rows: Floats, edges: Floats) -> tuple[Floats, Floats]:
    """The work on rows and edges [ranks, depths, kinds]: of what runs once, [ranks, len(COUNTED)], and of the steps of each
    depth, [ranks, depths, len(COUNTED)]."""
    once, of_depths = np.zeros((len(rows), len(COUNTED))), np.zeros((*rows.shape[:2], len(COUNTED)))
    for kind, works in enumerate(call.works):
        of_kind, edges_of_kind = rows[:, :, kind], edges[:, :, kind]
        for name, work in works.items():
            stage = name.removesuffix("_leaf").removesuffix("_inner")
            times = 2 if call.is_in_parts and not stage.startswith("grad") else 1
            is_core = stage in ("core", "grad_core")
            if name.endswith("_leaf"):
                if not call.has_initial:  # with states to begin from, leaves are computed as all others
                    of_depths[:, :1] += times * work.of(of_kind[:, :1], edges_of_kind[:, :1])
                continue
            first = 1 if (is_core or name.endswith("_inner")) and not call.has_initial else 0
            r, e = of_kind[:, first:], edges_of_kind[:, first:]
            if is_core:
                of_depths[:, first:] += times * work.of(r, e)
            else:
                once += times * work.of(r.sum(1), e.sum(1))
    return once, of_depths


def place(observation: Observation, cluster: Cluster, num_ranks: int) -> Ranks:
    """The rank of each graph, as a `BalancedSampler` with these costs gives them out."""
    count = observation.num_graphs
    if num_ranks == 1 or not count:
        return np.zeros(count, np.int64)
    seconds = cluster.seconds_of()
    added, steps = np.zeros((2, count))
    for part in observation.parts:
        for call in part.calls:
            rows, num_steps = call.levels.sizes()
            work = _work_of_call(call, *call.levels.of_ranks(np.zeros(count, np.int64), 1))[0] * seconds
            launches = work[LAUNCHES:].sum()
            added += rows / max(1.0, rows.sum()) * (work.sum() - launches)
            steps += num_steps / max(1.0, num_steps.max(initial=0)) * launches
    if count <= _MOST_PLACED:
        rank, _ = balance(added[None], steps[None], num_ranks)
        placed: Ranks = rank[0]
        return placed
    order = np.argsort(-(added + steps), kind="stable")  # the largest first, to and fro over the ranks
    turn, at = np.divmod(np.arange(count), num_ranks)
    rank = np.empty(count, np.int64)
    rank[order] = np.where(turn % 2 == 0, at, num_ranks - 1 - at)
    return rank


def step_seconds(observation: Observation, cluster: Cluster) -> float:
    """The predicted seconds of a training step on one device."""
    rank = np.zeros(observation.num_graphs, np.int64)
    work = sum(work_of_ranks(part, rank, 1)[0] for part in observation.parts)
    return float(work @ cluster.seconds_of()) + cluster.call * num_calls(observation)


def num_calls(observation: Observation) -> int:
    """How often vertex functions are called."""
    return max(1, sum(len(part.calls) for part in observation.parts))
