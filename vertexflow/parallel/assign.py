"""Choose an option for each part: an integer programme, solved by HiGHS (`scipy.optimize.milp`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from .cost import Floats


@dataclass(frozen=True)
class Problem:
    """Parts in a row, each of which has some options.

    Attributes:
        seconds, memory, transient: of each part, of each of its options; `memory` adds up, of `transient` the largest counts.
        between: of each two neighbours, what it costs that the first has option s and the second t, [options, options].
        alike: of each part, of each option, a name; all parts have options of one name, but for those named "".
        limit: of memory and transient together.
        memory_weight: of one byte in what is minimised, beside seconds.
    """

    seconds: Sequence[Floats]
    memory: Sequence[Floats]
    transient: Sequence[Floats]
    between: Sequence[Floats] = field(default_factory=list)
    alike: Sequence[Sequence[str]] = field(default_factory=list)
    limit: float = np.inf
    seconds_weight: float = 1.0
    memory_weight: float = 0.0

    def value(self, choice: Sequence[int]) -> float:
        """What is minimised, of one choice; infinite if it is not allowed."""
        names = {self.alike[part][option] for part, option in enumerate(choice)} if self.alike else set()
        used = self.memory_of(choice)
        if used > self.limit or len(names - {""}) > 1:
            return np.inf
        return self.seconds_weight * self.seconds_of(choice) + self.memory_weight * used

    def seconds_of(self, choice: Sequence[int]) -> float:
        """The seconds of a choice."""
        alone = sum(float(self.seconds[part][option]) for part, option in enumerate(choice))
        pairs = zip(self.between, choice, choice[1:], strict=False)
        return alone + sum(float(costs[first, second]) for costs, first, second in pairs)

    def memory_of(self, choice: Sequence[int]) -> float:
        """The bytes of a choice."""
        lasting = sum(float(self.memory[part][option]) for part, option in enumerate(choice))
        return lasting + max((float(self.transient[part][option]) for part, option in enumerate(choice)), default=0.0)


def solve(problem: Problem) -> list[int] | None:
    """The best choice, or None if none fits.

    With x[p, s] = 1 where part p has option s, y[p, s, t] = 1 where p has s and its successor t, z[a] = 1 where all have options
    of the name a, and u the largest transient memory:

        minimise    sum x[p, s] seconds[p, s] + sum y[p, s, t] between[p, s, t]
        such that   sum over s of x[p, s] = 1                                   for each p
                    sum over t of y[p, s, t] = x[p, s], over s = x[p + 1, t]    for each p, s, t
                    sum x[p, s] memory[p, s] + u <= limit, u >= sum over s of x[p, s] transient[p, s]
                    x[p, s] <= z[a of p, s], sum over a of z[a] <= 1

    Where the limit of memory does not bind, the same is found part after part, without a solver.

    Raises:
        InputError: SciPy is not installed.
    """
    counts = [len(options) for options in problem.seconds]
    if not counts:
        return []
    if not problem.memory_weight:
        without_limit = _along(problem)
        if without_limit is None or problem.memory_of(without_limit) <= problem.limit:
            return without_limit  # nothing is better without the limit, so nothing is with it
    solvers = optimize()
    first = np.cumsum([0, *counts])
    pairs = [counts[part] * counts[part + 1] for part in range(len(problem.between))]
    first_pair = first[-1] + np.cumsum([0, *pairs])
    names = sorted({name for options in problem.alike for name in options} - {""})
    first_name = first_pair[-1]
    largest = first_name + len(names)
    size = largest + 1
    bytes_scale = max(1.0, *(float(np.max(each)) for each in (*problem.memory, *problem.transient)))
    cost = np.zeros(size)
    rows: list[tuple[Floats, float, float]] = []

    def row(entries: dict[int, float], low: float, high: float) -> None:
        line = np.zeros(size)
        for at, value in entries.items():
            line[at] += value
        rows.append((line, low, high))

    memory: dict[int, float] = {largest: 1.0}
    for part, count in enumerate(counts):
        options = range(first[part], first[part] + count)
        memory_cost = problem.memory_weight * problem.memory[part]
        cost[list(options)] = problem.seconds_weight * problem.seconds[part] + memory_cost
        row(dict.fromkeys(options, 1.0), 1, 1)
        memory |= dict(zip(options, (problem.memory[part] / bytes_scale).tolist(), strict=True))
        held = dict(zip(options, (-problem.transient[part] / bytes_scale).tolist(), strict=True))
        row({largest: 1.0, **held}, 0, np.inf)
        if problem.alike:
            for option, name in zip(options, problem.alike[part], strict=True):
                if name:
                    row({option: 1.0, first_name + names.index(name): -1.0}, -np.inf, 0)
    row(memory, 0, problem.limit / bytes_scale)
    if names:
        row({first_name + at: 1.0 for at in range(len(names))}, 0, 1)
    cost[largest] = problem.memory_weight * bytes_scale
    for part, costs in enumerate(problem.between):
        at = first_pair[part] + np.arange(pairs[part]).reshape(costs.shape)
        cost[at.ravel()] = problem.seconds_weight * costs.ravel()
        for option in range(counts[part]):
            row({**dict.fromkeys(at[option].tolist(), 1.0), int(first[part] + option): -1.0}, 0, 0)
        for option in range(counts[part + 1]):
            row({**dict.fromkeys(at[:, option].tolist(), 1.0), int(first[part + 1] + option): -1.0}, 0, 0)
    is_integer = np.ones(size)
    is_integer[largest] = 0
    upper = np.ones(size)
    upper[largest] = np.inf
    lines, low, high = (np.array(each) for each in zip(*rows, strict=True))
    cost_scale = float(np.max(np.abs(cost))) or 1.0
    solution = solvers.milp(
        cost / cost_scale,
        constraints=solvers.LinearConstraint(lines, low, high),
        bounds=solvers.Bounds(np.zeros(size), upper),
        integrality=is_integer,
        options={"mip_rel_gap": 0.0},
    )
    if solution.x is None:
        return None
    return [int(np.argmax(solution.x[first[part] : first[part] + count])) for part, count in enumerate(counts)]


def _along(problem: Problem) -> list[int] | None:
    """The choice of the least seconds, were there no limit of memory: part after part, for each name that all may have."""
    names = [name for name in dict.fromkeys(name for options in problem.alike for name in options) if name] or [""]
    best: tuple[float, list[int]] | None = None
    for name in names:
        least, came_from = np.zeros(1), []
        for part, seconds in enumerate(problem.seconds):
            is_allowed = (
                [option in ("", name) for option in problem.alike[part]] if problem.alike else [True] * len(seconds)
            )
            sums = least[:, None] + (problem.between[part - 1] if part and problem.between else 0)
            came_from.append(np.broadcast_to(np.argmin(sums, axis=0), len(seconds)))
            least = np.where(is_allowed, sums.min(axis=0) + seconds, np.inf)
        if np.isfinite(least).any() and (best is None or least.min() < best[0]):
            choice = [int(np.argmin(least))]
            for back in reversed(came_from[1:]):
                choice.append(int(back[choice[-1]]))
            best = (float(least.min()), choice[::-1])
    return None if best is None else best[1]


def optimize() -> Any:
    """SciPy's solvers."""
    try:
        import scipy.optimize
    except ImportError as error:
        raise InputError(
            "plans and measurements need SciPy, which is not installed: pip install 'vertexflow[parallel]'"
        ) from error
    return scipy.optimize
