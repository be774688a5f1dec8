"""Which rank computes which sample of a batch: the largest first, each where the predicted cost is least with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cost import Floats

Ranks = np.ndarray[Any, np.dtype[np.int64]]


def balance(added: Floats, steps: Floats, num_ranks: int) -> tuple[Ranks, Floats]:
    """Spread the samples of many batches over ranks, so that the largest cost of a rank is small.

    This is Graham's rule, longest processing time first: samples in the order of their costs, the largest first, each to the
    rank whose cost is least with it (R. L. Graham, Bounds on multiprocessing timing anomalies, SIAM J. Appl. Math. 17, 1969:
    where costs add up, the largest is at most 4/3 - 1/(3 ranks) times the least that is possible); of several such ranks, to
    the one with fewest samples, so that those of no cost are spread. The rules of a loop over samples are applied to all
    batches at once.

    Args:
        added, steps: what samples cost (`Work`), [number of batches, samples of a batch]; zeros where a batch has fewer.
        num_ranks: over how many ranks.

    Returns:
        The rank of each sample, and the predicted cost of each rank, [number of batches, num_ranks].
    """
    num_batches, size = added.shape
    batch = np.arange(num_batches)
    order = np.argsort(-(added + steps), axis=1, kind="stable")
    rank = np.zeros((num_batches, size), np.int64)
    sums, deepest, counts = np.zeros((3, num_batches, num_ranks))
    for position in range(size):
        sample = order[:, position]
        more, deep = added[batch, sample], steps[batch, sample]
        costs = sums + more[:, None] + np.maximum(deepest, deep[:, None])
        is_least = costs == costs.min(1, keepdims=True)
        choice = np.argmin(np.where(is_least, counts, np.inf), axis=1)
        rank[batch, sample] = choice
        counts[batch, choice] += 1
        sums[batch, choice] += more
        deepest[batch, choice] = np.maximum(deepest[batch, choice], deep)
    return rank, sums + deepest
