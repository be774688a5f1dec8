"""Second derivatives: a gradient penalty, and a product of the Hessian and a vector, beside levels batched by hand.

    python -m benchmarks.second_order [--hidden 256] [--batch 64] [--repeat 9]

prints, for binary TreeLSTMs over random trees, lower quartiles in milliseconds of whole steps (forward pass, first and second
gradients), by turns in one process: vertexflow with `create_graph=True`, and the levels of the benchmark `treelstm` under
autograd. Both agree before anything is timed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import vertexflow as vf

from .graphs import random_tree
from .levels import generations
from .workloads.treelstm import LEAVES, BinaryTreeLSTM, in_generations, node

Model = Callable[[Tensor], Tensor]  # from inputs to the states of roots


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.second_order",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=9, help="turns")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    rng = random.Random(0)
    batch = vf.pack([vf.tree(random_tree(rng, rng.randint(*LEAVES))) for _ in range(options.batch)])
    model = BinaryTreeLSTM(options.hidden, options.hidden)
    by_generation, parameters = generations(batch), list(model.parameters())
    x, vector = torch.randn(batch.num_vertices, options.hidden), [torch.randn_like(p) for p in parameters]
    ours: tuple[Model, Tensor] = (lambda x: model(batch, x=x, outputs=batch.roots).h, x)
    by_hand: tuple[Model, Tensor] = (lambda x: in_generations(model, x, by_generation, node), x[by_generation.order])
    for name, step in (
        ("gradient penalty", lambda run, x: penalty(run, x, parameters)),
        ("Hessian times vector", lambda run, x: hessian_product(run, x, parameters, vector)),
    ):
        for ours_here, by_hand_here in zip(step(*ours), step(*by_hand), strict=True):
            torch.testing.assert_close(ours_here, by_hand_here, rtol=1e-3, atol=1e-5)
        step(*ours)
        times: list[list[float]] = [[], []]
        for _ in range(options.repeat):
            for contestant, of_contestant in zip((ours, by_hand), times, strict=True):
                start = time.perf_counter()
                step(*contestant)
                of_contestant.append(1000 * (time.perf_counter() - start))
        first, second = (sorted(of_contestant)[len(of_contestant) // 4] for of_contestant in times)
        print(f"{name:22} vertexflow {first:.1f} ms, by hand {second:.1f} ms, ratio {first / second:.2f}")
    return 0


def penalty(run: Model, x: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradients of a loss that has the gradients of inputs in it."""
    x = x.detach().requires_grad_()
    out = run(x)
    (slope,) = torch.autograd.grad(out.square().mean(), x, create_graph=True)
    return torch.autograd.grad(out.square().mean() + slope.square().sum(), parameters)


def hessian_product(run: Model, x: Tensor, parameters: Sequence[Tensor], vector: Sequence[Tensor]) -> Sequence[Tensor]:
    """The product of the Hessian of a loss and a vector."""
    slopes = torch.autograd.grad(run(x).square().mean(), parameters, create_graph=True)
    return torch.autograd.grad(slopes, parameters, vector)


if __name__ == "__main__":
    sys.exit(main())
