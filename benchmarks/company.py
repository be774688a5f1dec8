"""Training steps beside another busy process, which has one of the cores: how much longer they take than alone.

    python -m benchmarks.company [--hidden 256] [--graphs 32] [--rounds 3]

Alone and beside it by turns, medians, in one process of as many threads as there are cores.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

import vertexflow as vf

from .graphs import random_tree

BUSY = "while True: pass"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.company", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--graphs", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options = parser.parse_args(arguments)
    torch.set_num_threads(os.cpu_count() or 1)
    step = training_step(options.hidden, options.graphs)
    alone, beside = [], []
    for _ in range(options.rounds):
        alone.append(rate(step, options.seconds))
        with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
            beside.append(rate(step, options.seconds))
            busy.kill()
    quick, slow = statistics.median(alone), statistics.median(beside)
    print(f"alone {quick:.1f} steps/s, beside a busy process {slow:.1f}: {quick / slow:.2f} times as long")
    return 0


def training_step(hidden: int, graphs: int) -> Callable[[], None]:
    """A step of SGD of a binary TreeLSTM on random trees, which has run a few times."""
    rng = random.Random(0)
    torch.manual_seed(0)
    model = vf.nn.NaryTreeLSTM(hidden, hidden)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    batch = vf.pack([vf.tree(random_tree(rng, 20)) for _ in range(graphs)])
    x = torch.randn(batch.num_vertices, hidden)

    def step() -> None:
        optimizer.zero_grad()
        model(batch, x=x).h.sum().backward()
        optimizer.step()

    for _ in range(5):
        step()
    return step


def rate(step: Callable[[], None], seconds: float) -> float:
    """Steps a second."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
