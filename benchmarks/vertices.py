"""One circuit that several processes compute together: `vf.parallel.divide`, memory and time of a training step.

    python -m benchmarks.vertices [--gates 200000] [--width 2000] [--hidden 64] [--ranks 1 2 4] [--backend auto]
                                  [--seconds 8] [--processor-time]

The circuit (`wide_circuit` in `graphs.py`) is divided by one process, which writes a file for each rank; the ranks are
processes of one thread, which read their own alone. A step is forward and backward pass of one layer of a DAGNN, with
gradients of all outputs. For each
number of ranks: vertices of the largest part over the mean; the sum over levels of the largest part's vertices, over the mean
(what the work that ranks do at the same time is above the mean); states that cross in percent of all; exchanges, beside
levels; the seconds of dividing; of the rank with most, the bytes that its step takes (the peak of its resident memory in its
first step, above what it held with model and inputs; a step on a small circuit was before, and what it left is given back),
those that a plan predicts, all rows that are computed, the median milliseconds of a step, and those that a plan predicts, from
what `Cluster.measure` found on
the same ranks for so many seconds, between steps. With `--processor-time` everything is in processor seconds of a rank, also
what the cluster is measured by: what others do on the machine then matters little, and waiting for other ranks is not seen.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import distributed
from torch import multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

import vertexflow as vf
from vertexflow.parallel import calibration, measure, measure_links
from vertexflow.parallel.divide_graph import levels_of

from .graphs import wide_circuit
from .memory import trim

MIB = 1 << 20


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vertices", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gates", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=2_000)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--seconds", type=float, default=8, help="of measuring the cluster")
    parser.add_argument("--processor-time", action="store_true")
    options = parser.parse_args(arguments)
    batch, small = (vf.pack([wide_circuit(0, gates, options.width)]) for gates in (options.gates, 4 * options.width))
    levels = levels_of(batch)
    print(
        f"{options.gates:,} gates in {levels.max() + 1} levels, hidden {options.hidden}, backend {options.backend}\n"
        f"{'ranks':>5} {'largest':>8} {'at once':>8} {'cross %':>8} {'exchanges':>9} {'divide s':>8} "
        f"{'peak MiB':>9} {'predicted':>9} {'rows':>9} {'ms':>8} {'predicted':>9}  limited by"
    )
    for ranks in options.ranks:
        show(options, batch, small, levels, ranks)


def show(options: Any, batch: vf.GraphBatch, small: vf.GraphBatch, levels: Any, ranks: int) -> None:
    """The line of a number of ranks."""
    begin = time.perf_counter()
    parts = vf.parallel.divide(batch, ranks)
    seconds = time.perf_counter() - begin
    rows = np.stack([np.bincount(levels[part.own], minlength=levels.max() + 1) for part in parts])
    with tempfile.TemporaryDirectory() as folder:
        for name, each in (("whole", parts), ("small", vf.parallel.divide(small, ranks))):
            for part in each:
                part.save(f"{folder}/{name} {part.rank}")
        mp.spawn(_rank, (ranks, folder, options), nprocs=ranks)
        measured = [torch.load(f"{folder}/found {rank}") for rank in range(ranks)]
        predicted = predict(options, batch, ranks, vf.parallel.Cluster.load(f"{folder}/cluster"))
    cross = sum(int(part.upward.sent.sum()) for part in parts) / batch.num_vertices
    print(
        f"{ranks:>5} {max(part.num_vertices for part in parts) * ranks / batch.num_vertices:>8.3f} "
        f"{rows.max(0).sum() * ranks / batch.num_vertices:>8.3f} {100 * cross:>8.2f} {parts[0].upward.num_exchanges:>9} "
        f"{seconds:>8.1f} {max(each['peak'] for each in measured) / MIB:>9.0f} "
        f"{predicted.memory / MIB:>9.0f} {max(part.upward.batch.num_vertices for part in parts):>9,} "
        f"{max(each['ms'] for each in measured):>8.0f} {predicted.seconds * 1e3:>9.0f}  "
        + ", ".join(f"{name} {share:.0%}" for name, share in predicted.shares.items() if share >= 0.01),
        flush=True,
    )


def model_of(options: Any) -> vf.nn.DAGNN:
    torch.manual_seed(0)
    return vf.nn.DAGNN(options.hidden, options.hidden, num_layers=1, backend=options.backend)


def predict(options: Any, batch: vf.GraphBatch, ranks: int, cluster: vf.parallel.Cluster) -> vf.parallel.Prediction:
    """What a plan says of so many ranks."""
    model, x = model_of(options), torch.empty(batch.num_vertices, options.hidden, device="meta")
    like = vf.parallel.Plan(
        {"vertices": ranks}, {"": "whole", "layers.0": "whole"}, step_cost=vf.parallel.StepCost()
    )  # as it was divided
    found = vf.parallel.plan(model, [(batch, x)], cluster, optimizer=0, like=like, call=loss)
    assert found.prediction is not None
    return found.prediction


def losses(model: Any, arguments: tuple[Any, torch.Tensor]) -> torch.Tensor:
    """Of all rows."""
    return model(*arguments).h.square()  # type: ignore[no-any-return]


def loss(model: Any, arguments: tuple[Any, torch.Tensor]) -> torch.Tensor:
    """What a step goes back from."""
    return vf.parallel.mean(losses(model, arguments))


def _rank(rank: int, ranks: int, folder: str, options: Any) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    model = DistributedDataParallel(model_of(options))
    small, part = (vf.parallel.GraphPart.load(f"{folder}/{name} {rank}") for name in ("small", "whole"))
    clock = time.process_time if options.processor_time else time.perf_counter
    step(model, small, torch.randn(small.num_vertices, options.hidden), clock)
    x = torch.randn(part.num_vertices, options.hidden)
    trim()
    before = _peak_from_now()
    times = [step(model, part, x, clock)]
    peak = _status("VmHWM") - before
    times = [step(model, part, x, clock) for _ in range(options.steps - 1)]
    with measured_by(clock):
        cluster = vf.parallel.Cluster.measure(init_device_mesh("cpu", (ranks,)), seconds=options.seconds)
    times += [step(model, part, x, clock) for _ in range(options.steps)]  # minutes differ: before it and after it
    if rank == 0:
        cluster.save(f"{folder}/cluster")
    torch.save({"peak": peak, "ms": statistics.median(times) * 1e3}, f"{folder}/found {rank}")
    distributed.barrier()
    distributed.destroy_process_group()


@contextmanager
def measured_by(clock: Callable[[], float]) -> Iterator[None]:
    """`Cluster.measure` reads this clock."""
    with ExitStack() as stack:
        for module in (measure, measure_links, calibration):
            stack.enter_context(patch.object(module, "time", SimpleNamespace(perf_counter=clock)))
        yield


def step(model: Any, part: vf.parallel.GraphPart, x: torch.Tensor, clock: Callable[[], float]) -> float:
    """The seconds of a training step."""
    begin = clock()
    model.zero_grad()
    loss(model, (part, x)).backward()
    return clock() - begin


def _peak_from_now() -> int:
    """Forget the peak of this process's memory so far; returns what it holds."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _status(name: str) -> int:
    """Bytes that Linux tells of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
