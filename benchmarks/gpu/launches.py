"""Training steps whose kernels the native core launches, and Triton, by turns in one process.

    python -m benchmarks.gpu.launches FOLDER [--hidden 256] [--rounds 30]

writes FOLDER/launches.json. All ways must give the same gradients, to the bit. Exit code 1 if they do not, 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import json
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

from ..graphs import random_tree
from ..harness import summary, time_in_turns
from ..host import count_launches
from ..zoo import ZOO
from .ceilings import NO_GPU

NATIVE, TRITON = "by the native core", "by Triton"
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
    parser.add_argument("--hidden", type=int, default=256, help="hidden size")
    parser.add_argument("--rounds", type=int, default=30, help="training steps of each")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    found = {name: measure(name, options.hidden, options.rounds) for name in BATCHES}
    (options.folder / "launches.json").write_text(json.dumps(found, indent=1) + "\n")
    differing = [name for name, one in found.items() if not one["is_same"]]
    if differing:
        print(f"gradients differ by who launches the kernels: {', '.join(differing)}", file=sys.stderr)
    return 1 if differing else 0


def measure(name: str, hidden: int, rounds: int) -> dict[str, Any]:
    """Medians and quartiles of each way on one batch, and whether they agree."""
    model, make = BATCHES[name]
    animal = ZOO[model](hidden)
    animal.model.cuda()
    for function in animal.functions():
        function.backend = "triton"
    batch = vf.pack(make(random.Random(0))).to("cuda")
    x = torch.randn(batch.num_vertices, hidden, device="cuda")

    def step() -> list[Tensor]:
        animal.model.zero_grad(set_to_none=True)
        animal.model(batch, x=x).h.square().mean().backward()
        return [parameter.grad for parameter in animal.model.parameters() if parameter.grad is not None]

    def by_triton() -> list[Tensor]:
        with mock.patch.object(loop, "driver", return_value=0):
            return step()

    ways: dict[str, Callable[[], list[Tensor]]] = {NATIVE: step, TRITON: by_triton}
    results = {way: [grad.clone() for grad in run()] for way, run in ways.items()}
    is_same = all(all(map(torch.equal, results[NATIVE], grads)) for grads in results.values())
    seconds = time_in_turns(ways, rounds, {}, device="cuda")
    found = {
        "launches": count_launches(animal.model, batch, x),
        "is_same": is_same,
        "ways": {way: summary(each) for way, each in seconds.items()},
    }
    print(name, found, flush=True)
    return found


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
