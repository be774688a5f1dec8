"""What a vertex costs in batches of more and more of them: packing, scheduling, and a training step.

    python -m benchmarks.scale [--hidden 8] [--vertices 100 1000 ... 10000000] [--threads 2]

A binary TreeLSTM over random trees of 5 to 35 leaves. Each size is measured several times, the fewer the larger it is; the
median counts. At hidden 8 ten million vertices need 8 GiB.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

import vertexflow as vf

from .graphs import random_tree
from .workloads.treelstm import BinaryTreeLSTM

KINDS_OF_TREES = 1000  # as many different ones, again and again


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [10**power for power in range(2, 8)]
    parser.add_argument("--hidden", type=int, default=8, help="hidden size, and size of the inputs")
    parser.add_argument("--vertices", type=int, nargs="+", default=sizes, help="about how many vertices in a batch")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = random.Random(0)
    trees = [vf.tree(random_tree(rng, rng.randint(5, 35))) for _ in range(KINDS_OF_TREES)]
    table = Table(title=f"nanoseconds a vertex, hidden {options.hidden}, {options.threads} threads")
    for column in ("vertices", "steps", "pack", "schedule", "training step"):
        table.add_column(column, justify="right")
    for size in options.vertices:
        table.add_row(*measure(trees, size, options.hidden))
    Console().print(table)


def measure(trees: list[vf.InputGraph], size: int, hidden: int) -> list[str]:
    """A line of the table."""
    graphs, count = [], 0
    for tree in itertools.cycle(trees):
        if count >= size:
            break
        graphs.append(tree)
        count += tree.num_vertices
    repeats = max(3, min(50, 10**6 // size))
    batch = vf.pack(graphs)
    model = BinaryTreeLSTM(hidden, hidden)
    x = torch.randn(batch.num_vertices, hidden)

    def step() -> None:
        model.zero_grad()
        model(batch, x=x, outputs=batch.roots).h.square().mean().backward()

    times = [median(run, repeats) for run in (lambda: vf.pack(graphs), lambda: vf.schedule(batch), step)]
    costs = [f"{seconds / batch.num_vertices * 1e9:,.0f}" for seconds in times]
    return [f"{batch.num_vertices:,}", str(vf.schedule(batch).num_steps), *costs]


def median(run: Callable[[], object], repeats: int) -> float:
    """Seconds, after one run that does not count."""
    run()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


if __name__ == "__main__":
    main()
