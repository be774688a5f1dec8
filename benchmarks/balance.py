"""How alike the ranks of a training step are: the largest cost over the mean, balanced, and as a DistributedSampler has it.

    python -m benchmarks.balance [--data DIR] [--graphs 64] [--ranks 2 4 8]
    python -m benchmarks.balance --measure [--hidden 256] [--repeat 7]

Predicted costs are those of `vf.parallel.Cost()`, over all full global batches of an epoch, on the training trees of SST
(`--data`, or `sst` in the folder that VERTEXFLOW_DATA names), random trees, and chains and random circuits of very different
sizes. `--measure` times training steps of a binary TreeLSTM in this process, one shape of batch after the other, in turns, and
prints what a step costs beside its rows: the `step` of a `Cost` for this machine and size.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from pathlib import Path

import numpy as np
import torch

import vertexflow as vf

from .graphs import random_circuit, random_tree
from .workloads.treelstm import BinaryTreeLSTM


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.balance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with SST's train.txt")
    parser.add_argument("--graphs", type=int, default=64, help="of a rank in a step, on average")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--measure", action="store_true", help="what a step costs, of a TreeLSTM on this machine")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args(arguments)
    if options.measure:
        measure(options.hidden, options.repeat)
    else:
        show(data_sets(options.data), options.graphs, options.ranks)
    return 0


def data_sets(folder: Path | None) -> dict[str, list[vf.InputGraph]]:
    rng = random.Random(0)
    if folder is None and "VERTEXFLOW_DATA" in os.environ:
        folder = Path(os.environ["VERTEXFLOW_DATA"]) / "sst"
    treebanks = {} if folder is None else {"SST": vf.from_ptb(folder / "train.txt", num_labels=5)}
    return {
        **treebanks,
        "trees of 5 to 35 leaves": [vf.tree(random_tree(rng, rng.randint(5, 35))) for _ in range(8000)],
        "chains of 1 to 400": [vf.chain(min(400, 1 + int(rng.expovariate(1 / 40)))) for _ in range(8000)],
        "circuits of 20 to 2,000 gates": [random_circuit(rng, 16, int(20 * 100 ** rng.random())) for _ in range(4000)],
    }


def show(data: dict[str, list[vf.InputGraph]], graphs_of_rank: int, ranks: list[int]) -> None:
    """A line for each data set and number of ranks."""
    print(f"{'':30} {'ranks':>5}  {'balanced':>8} {'worst':>8}  {'at random':>9} {'worst':>8}   largest over mean")
    for name, graphs in data.items():
        for num_ranks in ranks:
            size = graphs_of_rank * num_ranks
            samplers = [
                vf.parallel.BalancedSampler(graphs, size, num_replicas=num_ranks, rank=rank, drop_last=True)
                for rank in range(num_ranks)
            ]
            balanced = [ratio([[graphs[i] for i in part] for part in parts]) for parts in zip(*samplers, strict=True)]
            order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(0)).tolist()
            pieces = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
            by_chance = [
                ratio([[graphs[i] for i in piece[rank::num_ranks]] for rank in range(num_ranks)]) for piece in pieces
            ]
            print(
                f"{name:30} {num_ranks:5}  {np.mean(balanced):8.4f} {max(balanced):8.4f}  {np.mean(by_chance):9.3f} "
                f"{max(by_chance):8.3f}"
            )


def ratio(parts: list[list[vf.InputGraph]]) -> float:
    """The largest predicted cost of a rank over their mean."""
    costs = [vf.parallel.Cost().of(vf.pack(part)) for part in parts]
    return max(costs) / (sum(costs) / len(costs))


def measure(hidden: int, repeat: int) -> None:
    """Fit times of training steps by a + vertex * V + step * S."""
    model = BinaryTreeLSTM(hidden, hidden)
    rng = random.Random(0)
    shapes = {
        "one chain of 256": [vf.chain(256)],
        "16 chains of 64": [vf.chain(64)] * 16,
        "16 chains of 16": [vf.chain(16)] * 16,
        "64 chains of 16": [vf.chain(16)] * 64,
        "256 chains of 4": [vf.chain(4)] * 256,
        "64 trees": [vf.tree(random_tree(rng, rng.randint(5, 35))) for _ in range(64)],
        "8 trees": [vf.tree(random_tree(rng, rng.randint(5, 35))) for _ in range(8)],
    }
    batches = [vf.pack(graphs) for graphs in shapes.values()]
    inputs = [torch.randn(batch.num_vertices, hidden) for batch in batches]
    times: list[list[float]] = [[] for _ in batches]
    for turn in range(repeat + 2):
        for number, (batch, x) in enumerate(zip(batches, inputs, strict=True)):
            begin = time.perf_counter()
            model(batch, x=x).h.square().mean().backward()
            if turn >= 2:  # traces, compilers, memory
                times[number].append(time.perf_counter() - begin)
    seconds = np.array([statistics.median(each) for each in times])
    sizes = np.array([[1, batch.num_vertices, vf.schedule(batch).num_steps] for batch in batches], dtype=float)
    costs, *_ = np.linalg.lstsq(sizes / seconds[:, None], np.ones(len(seconds)), rcond=None)  # relative errors count
    predicted = sizes @ costs
    for name, (_, vertices, steps), one, two in zip(shapes, sizes, seconds, predicted, strict=True):
        print(
            f"{name:18} {vertices:5.0f} vertices {steps:4.0f} steps  {one * 1e3:8.2f} ms, fitted {two / one:5.2f} of it"
        )
    print(
        f"hidden {hidden}: a vertex {costs[1] * 1e6:.2f} us, a step {costs[2] * 1e6:.2f} us, a call {costs[0] * 1e6:.0f} us"
    )
    print(f"vf.parallel.Cost(step={costs[2] / costs[1]:.1f})")


if __name__ == "__main__":
    raise SystemExit(main())
