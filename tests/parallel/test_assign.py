"""Choices by the integer programme and stages by the dynamic programme are those that trying everything finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vertexflow.parallel.assign import Problem, solve
from vertexflow.parallel.stages import cut_into_stages


def random_problem(rng: np.random.Generator) -> Problem:
    """Few parts with few options, and a limit that binds in about half of the cases."""
    counts = rng.integers(1, 5, rng.integers(1, 6))
    seconds, memory, transient = ([rng.random(count) * scale for count in counts] for scale in (1.0, 1e9, 3e8))
    between = [rng.random(pair) * rng.choice([0, 0.5]) for pair in itertools.pairwise(counts)]
    names = [[str(rng.choice(["", "a", "b"], p=[0.5, 0.3, 0.2])) for _ in range(count)] for count in counts]
    is_of_memory = rng.random() < 0.3
    return Problem(
        seconds,
        memory,
        transient,
        between,
        names if rng.random() < 0.7 else [],
        float(len(counts) * rng.uniform(0.2, 1.2) * 1e9),
        seconds_weight=0.0 if is_of_memory else 1.0,
        memory_weight=1e-9 if is_of_memory else 0.0,
    )


def of_all_choices(problem: Problem) -> float:
    """The least value of any choice."""
    choices = itertools.product(*(range(len(each)) for each in problem.seconds))
    return min(problem.value(choice) for choice in choices)


def test_200_random_problems_as_trying_everything():
    rng = np.random.default_rng(0)
    bound = 0
    for _ in range(200):
        problem = random_problem(rng)
        best, solution = of_all_choices(problem), solve(problem)
        if solution is None:
            assert best == np.inf
            continue
        assert problem.value(solution) == pytest.approx(best, rel=1e-6)
        bound += best > of_all_choices(Problem(**{**vars(problem), "limit": np.inf}))
    assert bound > 20  # in so many cases the memory decides


def test_200_random_cuts_as_trying_everything():
    rng = np.random.default_rng(1)
    impossible = 0
    for _ in range(200):
        n = int(rng.integers(1, 8))
        num_stages, pieces = int(rng.integers(1, n + 1)), int(rng.integers(1, 12))
        seconds = np.where(rng.random((n, n + 1)) < 0.15, np.inf, rng.random((n, n + 1)))
        best = np.inf
        for cuts in itertools.combinations(range(1, n), num_stages - 1):
            times = [seconds[pair] for pair in itertools.pairwise([0, *cuts, n])]
            if np.isfinite(times).all():
                best = min(best, sum(times) + (pieces - 1) * max(times))
        cut = cut_into_stages(seconds, num_stages, pieces)
        if cut is None:
            assert best == np.inf
            impossible += 1
            continue
        total, ends = cut
        assert total == pytest.approx(best)
        times = [seconds[pair] for pair in itertools.pairwise([0, *ends])]
        assert len(ends) == num_stages
        assert total == pytest.approx(sum(times) + (pieces - 1) * max(times))
    assert 5 < impossible < 100
