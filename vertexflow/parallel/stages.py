"""Cut parts in a row into stages: the dynamic programme of pipelines."""

from __future__ import annotations

import numpy as np

from .cost import Floats


def cut_into_stages(seconds: Floats, num_stages: int, micro_batches: int) -> tuple[float, list[int]] | None:
    """The cut that is done first, of B micro-batches that go through S stages one after the other,

        minimise    sum over i of t_i + (B - 1) max over i of t_i

    where t_i = seconds[a, b] if stage i has the parts a, ..., b - 1 (infinite if these do not fit into the memory of a device).
    For each value m that the largest t may have, let f[s, b] be the least sum of s stages with the first b parts, none above m:

        f[0, 0] = 0        f[s, b] = min over a < b with seconds[a, b] <= m of f[s - 1, a] + seconds[a, b]

    and the best is the least of f[S, n] + (B - 1) m.

    Args:
        seconds: [n, n + 1], of a micro-batch.

    Returns:
        The seconds of all micro-batches and where each stage ends (S numbers, the last is n); None if nothing fits.
    """
    n = len(seconds)
    best: tuple[float, list[int]] | None = None
    starts, ends = np.triu_indices(n)
    values = np.unique(seconds[starts, ends + 1])
    for most in values[np.isfinite(values)]:
        if best is not None and most * (micro_batches - 1) >= best[0]:
            break
        least = np.full((num_stages + 1, n + 1), np.inf)
        begin = np.zeros((num_stages + 1, n + 1), np.int64)
        least[0, 0] = 0
        for stage in range(1, num_stages + 1):
            for end in range(stage, n + 1):
                sums = np.where(seconds[:end, end] <= most, least[stage - 1, :end] + seconds[:end, end], np.inf)
                begin[stage, end] = int(np.argmin(sums))
                least[stage, end] = sums[begin[stage, end]]
        total = float(least[num_stages, n] + (micro_batches - 1) * most)
        if np.isfinite(total) and (best is None or total < best[0]):
            cuts = [n]
            for stage in range(num_stages, 1, -1):
                cuts.append(int(begin[stage, cuts[-1]]))
            best = (total, cuts[::-1])
    return best
