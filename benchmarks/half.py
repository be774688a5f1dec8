"""Half precision on a CPU: a TreeLSTM in bfloat16, and under autocast, beside the same in float32.

    python -m benchmarks.half [--hidden 256 512 1024] [--graphs 64] [--repeat 7] [--threads N]

prints medians of training steps and of forward passes in one process, by turns, and how far each is from float32.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass

import torch
from torch import Tensor

import vertexflow as vf

from .cells import TreeLSTM, by_turns
from .graphs import random_tree


@dataclass
class Way:
    """A model in one dtype, perhaps under autocast."""

    model: TreeLSTM
    x: Tensor
    is_autocast: bool = False

    def forward(self, batch: vf.GraphBatch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_autocast):
            result: Tensor = self.model(batch, x=self.x).h
        return result

    def step(self, batch: vf.GraphBatch) -> None:
        self.model.zero_grad(set_to_none=True)
        self.forward(batch).float().square().mean().backward()

    def inference(self, batch: vf.GraphBatch) -> None:
        with torch.no_grad():
            self.forward(batch)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.half", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 512, 1024], help="hidden and embedding sizes")
    parser.add_argument("--graphs", type=int, default=64, help="trees of 5 to 35 leaves")
    parser.add_argument("--repeat", type=int, default=7, help="steps of each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rng = random.Random(0)
    batch = vf.pack([vf.tree(random_tree(rng, rng.randint(5, 35))) for _ in range(options.graphs)])
    for hidden in options.hidden:
        compare(ways_of(hidden, batch), batch, hidden, options.repeat)
    return 0


def ways_of(hidden: int, batch: vf.GraphBatch) -> dict[str, Way]:
    """The same numbers in each dtype."""

    def way(dtype: torch.dtype, is_autocast: bool = False) -> Way:
        torch.manual_seed(0)
        model, x = TreeLSTM(hidden, hidden, backend="native"), torch.randn(batch.num_vertices, hidden)
        return Way(model.to(dtype), x.to(dtype), is_autocast)

    return {"float32": way(torch.float32), "bfloat16": way(torch.bfloat16), "autocast": way(torch.float32, True)}


def compare(ways: dict[str, Way], batch: vf.GraphBatch, hidden: int, repeat: int) -> None:
    """Print a line for each way."""
    exact = ways["float32"].forward(batch).double()
    steps = by_turns({name: lambda way=way: way.step(batch) for name, way in ways.items()}, repeat)
    passes = by_turns({name: lambda way=way: way.inference(batch) for name, way in ways.items()}, repeat)
    print(f"TreeLSTM, hidden {hidden}, {batch.num_vertices} vertices")
    for name, way in ways.items():
        off = (way.forward(batch).double() - exact).norm() / exact.norm()
        faster = [took["float32"] / took[name] for took in (steps, passes)]
        print(f"  {name:8}  a step {steps[name]:6.1f} ms, {faster[0]:.2f} times as fast as float32; ", end="")
        print(f"forward {passes[name]:6.1f} ms, {faster[1]:.2f} times; off by {off:.1e}")


if __name__ == "__main__":
    raise SystemExit(main())
