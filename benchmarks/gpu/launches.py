"""Training steps whose kernels the native core launches, beside those that Triton does, by turns in one process.

    python -m benchmarks.gpu.launches FOLDER [--one-launch] [--hidden 256] [--rounds 30]

writes FOLDER/launches.json, after each batch; with --one-launch, FOLDER/one-launch.json, of training steps in one launch a pass
beside those of the native core. Whoever launches a step, gradients must be the same to the bit; in one launch, whose tiles may
be others, to 1e-5. Exit code 1 if they are not, 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import vertexflow as vf
from vertexflow.kernels.triton import loop
from vertexflow.kernels.triton.persistent.launch import VARIABLE

from ..graphs import random_tree
from ..harness import summary, time_in_turns
from ..host import count_launches
from ..zoo import ZOO
from .ceilings import NO_GPU

NATIVE, TRITON, ONE = "by the native core", "by Triton", "in one launch"
MOST = {
    NATIVE: 0.0,
    TRITON: 0.0,
    ONE: 1e-5,
}  # how far gradients may be from those of the native core, relative to the norm
BATCHES: dict[str, tuple[str, Callable[[random.Random], list[vf.InputGraph]]]] = {
    "64 trees": ("README", lambda rng: [vf.tree(random_tree(rng, rng.randint(5, 35))) for _ in range(64)]),
    "1 tree": ("README", lambda rng: [vf.tree(random_tree(rng, 20))]),
    "64 sequences": ("LSTM", lambda rng: [vf.chain(64) for _ in range(64)]),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.launches",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where the file goes")
    parser.add_argument("--one-launch", action="store_true", help="one launch for all steps, in the place of Triton")
    parser.add_argument("--hidden", type=int, default=256, help="hidden size")
    parser.add_argument("--rounds", type=int, default=30, help="training steps of each")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    results: dict[str, Any] = {}
    for name in BATCHES:
        results[name] = measure(name, options.hidden, options.rounds, ONE if options.one_launch else TRITON)
        path = options.folder / ("one-launch.json" if options.one_launch else "launches.json")
        path.write_text(json.dumps(results, indent=1) + "\n")
    differing = [name for name, one in results.items() if not one["is_same"]]
    if differing:
        print(f"gradients differ by who launches the kernels: {', '.join(differing)}", file=sys.stderr)
    return 1 if differing else 0


def measure(name: str, hidden: int, rounds: int, other: str, device: str = "cuda") -> dict[str, Any]:
    """Medians and quartiles of the native core's launches and of another way on one batch, and whether they agree."""
    model, make = BATCHES[name]
    animal = ZOO[model](hidden)
    animal.model.to(device)
    for function in animal.functions():
        function.backend = "triton"
    batch = vf.pack(make(random.Random(0))).to(device)
    x = torch.randn(batch.num_vertices, hidden, device=device)

    def step() -> list[Tensor]:
        animal.model.zero_grad(set_to_none=True)
        animal.model(batch, x=x).h.square().mean().backward()
        return [parameter.grad for parameter in animal.model.parameters() if parameter.grad is not None]

    def by_triton() -> list[Tensor]:
        with mock.patch.object(loop, "driver", return_value=0):
            return step()

    def in_one_launch() -> list[Tensor]:
        with mock.patch.dict(os.environ, {VARIABLE: "1"}):
            return step()

    ways: dict[str, Callable[[], list[Tensor]]] = {NATIVE: step, other: {TRITON: by_triton, ONE: in_one_launch}[other]}
    results = {way: [grad.clone() for grad in run()] for way, run in ways.items()}
    differences = {
        way: max(float((one - exact).norm() / exact.norm()) for one, exact in zip(grads, results[NATIVE], strict=True))
        for way, grads in results.items()
    }
    is_same = all(difference <= MOST[way] for way, difference in differences.items())  # nor is NaN
    seconds = time_in_turns(ways, rounds, {}, device=device)
    figures = {
        "launches": count_launches(animal.model, batch, x),
        "is_same": is_same,
        "differences": differences,
        "explain": explained(animal.functions()[0]),
        "ways": {way: summary(each) for way, each in seconds.items()},
    }
    print(name, figures, flush=True)
    return figures


def explained(function: vf.VertexFunction) -> str:
    """What came of asking for one launch."""
    with mock.patch.dict(os.environ, {VARIABLE: "1"}):
        return function.explain()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
