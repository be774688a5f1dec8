"""Agreement, time and marginals of all models: `python -m examples.structured.compare --help`."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .picture import draw
from .problems import PROBLEMS, Problem

TOLERANCE = 1e-8  # in float64, of gradients


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Compare, print and draw; returns how many times as long the usual way takes, by problem."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.compare",
        description="Sums over structures by vertex functions and as they are usually written: the same values and gradients, "
        "and the time of a forward and backward pass. Draws marginals.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS), help="what is compared"
    )
    parser.add_argument("--samples", type=int, default=64, metavar="N", help="of a batch")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="both by turns, of which medians are taken")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), metavar="N", help="of PyTorch and vertexflow"
    )
    parser.add_argument("--seed", type=int, default=0, help="of lengths and scores")
    parser.add_argument("--picture", type=Path, metavar="PATH", help="where to draw marginals (such as marginals.png)")
    options = parser.parse_args(arguments)
    if min(options.samples, options.rounds, options.threads) < 1 or options.seed < 0:
        parser.error("--samples, --rounds and --threads are at least 1, --seed at least 0")
    torch.set_num_threads(options.threads)
    ratios = {}
    for name in options.problems:
        torch.manual_seed(options.seed)
        check(PROBLEMS[name](options.samples, torch.float64))
        torch.manual_seed(options.seed)
        problem = PROBLEMS[name](options.samples, torch.float32)
        ours, usual = times((problem.ours, problem.usual), problem.leaves, options.rounds)
        ratios[name] = usual / ours
        print(
            f"{problem.what}: {1e3 * ours:.1f} ms; {problem.usually}: {1e3 * usual:.1f} ms, {ratios[name]:.1f} times as long"
        )
    if options.picture:
        draw(options.picture, options.seed)
    return ratios


def check(problem: Problem) -> None:
    """Both ways give the same values and gradients.

    Raises:
        AssertionError: they do not.
    """
    results = []
    for compute in (problem.ours, problem.usual):
        total = compute()
        results.append([total, *torch.autograd.grad(total.sum(), problem.leaves)])
    torch.testing.assert_close(*results, rtol=TOLERANCE, atol=TOLERANCE)


def times(ways: Sequence[Callable[[], Tensor]], leaves: Sequence[Tensor], rounds: int) -> list[float]:
    """The median time of a forward and backward pass by each way, in seconds; by turns, so that all see the same machine."""
    seconds: list[list[float]] = [[] for _ in ways]
    for round_ in range(rounds + 1):
        for taken, compute in zip(seconds, ways, strict=True):
            started = time.perf_counter()
            torch.autograd.grad(compute().sum(), leaves)
            if round_:  # the first compiles
                taken.append(time.perf_counter() - started)
    return list(map(statistics.median, seconds))


if __name__ == "__main__":
    main()
