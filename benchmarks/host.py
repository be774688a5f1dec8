"""The host's time of training steps on a GPU, without one: kernels are compiled, launches do nothing, tensors have few elements.

    python -m benchmarks.host [--graphs 64] [--hidden 2] [--repeat 200]

prints for each model, by turns in one process, medians over training steps with compiled kernels launched by the native core,
and by Triton; and first, what it costs at each call to notice whether a model of 20 submodules has changed since it was traced.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from unittest import mock

import torch
from torch import nn

import vertexflow as vf
from vertexflow.call import programs
from vertexflow.kernels.triton import loop

from .absent import absent_gpu, nothing
from .graphs import random_tree
from .zoo import ZOO

MODELS = {
    "README": lambda rng: vf.tree(random_tree(rng, rng.randint(5, 35))),
    "LSTM": lambda rng: vf.chain(rng.randint(5, 60)),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.host", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--graphs", type=int, default=64, help="in a batch: trees of 5 to 35 leaves, or chains of 5 to 60"
    )
    parser.add_argument("--hidden", type=int, default=2, help="hidden size")
    parser.add_argument("--repeat", type=int, default=200, help="training steps of each kind")
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        print(
            "python -m benchmarks.host: launches of compiled kernels are measured: unset TRITON_INTERPRET",
            file=sys.stderr,
        )
        return 2
    torch.set_num_threads(1)
    notice(options.repeat)
    with absent_gpu():
        for name, graph in MODELS.items():
            rng = random.Random(0)
            batch = vf.pack([graph(rng) for _ in range(options.graphs)])
            show(name, batch, options.hidden, options.repeat)
    return 0


def notice(repeat: int) -> None:
    """Measure how long a look at a model takes: whether it has changed, and where its parameters and buffers are."""
    layers = [part for _ in range(6) for part in (nn.Linear(8, 8), nn.Dropout(0.1), nn.LayerNorm(8))]
    model = Twenty(*layers)
    programs.see(model._programs, model)
    times = []
    for _ in range(20 * repeat):
        start = time.perf_counter()
        programs.see(model._programs, model)
        times.append(time.perf_counter() - start)
    assert len(list(model.modules())) == 20
    print(f"a model of 20 submodules is looked at in {statistics.median(times) * 1e6:.1f} us at each call")


class Twenty(vf.VertexFunction):
    """Has submodules, which do nothing here."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(state={})
        self.parts = nn.ModuleList(parts)


def show(name: str, batch: vf.GraphBatch, hidden: int, repeat: int) -> None:
    """Measure one model, and print a line."""
    animal = ZOO[name](hidden)
    for function in animal.functions():
        function.backend = "triton"
    x = torch.randn(batch.num_vertices, hidden)
    times: dict[int, list[float]] = {nothing(): [], 0: []}
    for _ in range(repeat + 2):  # the first compile
        for address, durations in times.items():
            with mock.patch.object(loop, "driver", return_value=address):
                start = time.perf_counter()
                animal.model(batch, x=x).h.sum().backward()
                durations.append(time.perf_counter() - start)
    native, by_triton = (statistics.median(durations[2:]) * 1e3 for durations in times.values())
    launches = count_launches(animal.model, batch, x)
    print(
        f"{name:12}{launches:5} launches: {native:.2f} ms a training step; {by_triton:.2f} ms if Triton launches them"
    )


def count_launches(model: torch.nn.Module, batch: vf.GraphBatch, x: torch.Tensor) -> int:
    """The launches of a training step."""
    start = loop.Call.start
    with (
        mock.patch.object(loop, "driver", return_value=0),
        mock.patch.object(loop.Call, "start", autospec=True) as counted,
    ):
        counted.side_effect = start
        model(batch, x=x).h.sum().backward()
    return counted.call_count


if __name__ == "__main__":
    sys.exit(main())
