"""The fixed cost of a training step: what it takes where there is next to nothing to compute.

    python -m benchmarks.fixed [--repeat 60]

prints, in microseconds, by turns in one process, lower quartiles of training steps (without an optimiser) of

- a binary TreeLSTM of hidden size 8 on a tree of five vertices: as it is, its forward pass alone, run by the executor,
  on a batch that is packed anew each time, and in its place an empty `torch.autograd.Function` of as many tensors, which is
  PyTorch's own part;
- an LSTM of hidden size 64 on one sequence of 64: as it is, run by the executor, and `torch.nn.LSTM`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import vertexflow as vf
from vertexflow.kernels import autograd

from .workloads.treelstm import BinaryTreeLSTM

Step = Callable[[], object]


class Empty(torch.autograd.Function):
    """Takes as many tensors as a model and gives as many gradients, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        return torch.empty_like(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *(torch.empty_like(each) if each.requires_grad else None for each in ctx.saved_tensors))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fixed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=60, help="turns, of 10 steps each")
    options = parser.parse_args(arguments)
    show("five vertices", five_vertices(), options.repeat)
    show("a sequence of 64", sequence(), options.repeat)
    return 0


def five_vertices() -> dict[str, Step]:
    """Training steps of a tree with three leaves."""
    model, tree, x = BinaryTreeLSTM(8, 8), vf.tree(((0, 1), 2)), torch.randn(5, 8)
    batch, parameters = vf.pack([tree]), list(model.parameters())

    def step(graphs: vf.GraphBatch) -> None:
        model.zero_grad()
        model(graphs, x=x).h.sum().backward()

    def floor() -> None:
        model.zero_grad()
        Empty.apply(x, x, *parameters).sum().backward()  # type: ignore[no-untyped-call]

    return {
        "vertexflow": lambda: step(batch),
        "its forward pass": lambda: model(batch, x=x),
        "by the executor": by_the_executor(lambda: step(batch)),
        "packed anew": lambda: step(vf.pack([tree])),
        "an empty function": floor,
    }


def sequence() -> dict[str, Step]:
    """Training steps of one sequence."""
    batch, x = vf.pack([vf.chain(64)]), torch.randn(64, 64)
    ours, theirs = vf.nn.LSTM(64, 64), nn.LSTM(64, 64)

    def step() -> None:
        ours.zero_grad()
        ours(batch, x).h.sum().backward()

    def their_step() -> None:
        theirs.zero_grad()
        theirs(x)[0].sum().backward()

    return {"vertexflow": step, "by the executor": by_the_executor(step), "nn.LSTM": their_step}


def by_the_executor(step: Step) -> Step:
    """The same step, without calls that were written down for its structure."""

    def run() -> None:
        written = autograd.prepared_for
        autograd.prepared_for = lambda bound, order: None
        try:
            step()
        finally:
            autograd.prepared_for = written

    return run


def show(title: str, steps: dict[str, Step], repeat: int) -> None:
    """Run steps by turns, and print a line of how long each takes."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeat + 2):  # the first compile
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(10):
                step()
            if turn >= 2:
                times[name].append((time.perf_counter() - start) / 10 * 1e6)
    quartiles = {name: sorted(each)[len(each) // 4] for name, each in times.items()}
    print(f"{title:18}", ", ".join(f"{name} {each:.0f}" for name, each in quartiles.items()))


if __name__ == "__main__":
    sys.exit(main())
