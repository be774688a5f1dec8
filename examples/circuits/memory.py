"""What a training step on a whole circuit takes: `python -m examples.circuits.memory --help`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import vertexflow as vf

from .circuit import Circuit, cone
from .data import join, read_folder, sample
from .model import GateProbability


def saved_bytes(model: vf.VertexFunction, batch: vf.GraphBatch, inputs: dict[str, Tensor]) -> int:
    """Bytes that the forward keeps for the backward, without the parameters."""
    model(batch, **inputs)  # traced already, only what a run keeps is noted
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = model(batch, **inputs)  # must live until everything has been counted
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    del out
    return sum(kept.values())


def peak_bytes() -> int:
    """The most memory that this process has had since `forget_peak`, as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def forget_peak() -> int:
    """Begin to count anew; what the process has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def measure(circuit: Circuit, hidden: int, steps: int) -> tuple[float, int, int, int]:
    """Seconds of a training step (median), the memory that the first takes beyond what there was before, the bytes that its
    forward keeps, and the number of vertices. For a process of its own, in which no memory has been freed before."""
    model = GateProbability(hidden)
    optimizer = torch.optim.Adam(model.parameters())

    def step(batch: vf.GraphBatch, inputs: dict[str, Tensor], simulated: Tensor) -> None:
        loss = (model(batch, **inputs).p.squeeze(-1) - simulated).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def joined(piece: Circuit) -> tuple[vf.GraphBatch, dict[str, Tensor], Tensor]:
        return join([sample(piece, 64)])[:3]

    step(*joined(cone(circuit, len(circuit) - 1, 10)))  # traces the model
    batch, inputs, simulated = joined(circuit)
    before = forget_peak()
    step(batch, inputs, simulated)
    peak = peak_bytes() - before
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        step(batch, inputs, simulated)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[steps // 2], peak, saved_bytes(model, batch, inputs), batch.num_vertices


def main(arguments: Sequence[str] | None = None) -> None:
    """Print seconds and memory of a step (forward, backward, Adam) on each circuit."""
    folder = os.environ.get("VERTEXFLOW_DATA")
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.memory",
        description="Time and memory of a training step on each circuit of a folder, as one batch. Linux.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", type=Path, metavar="DIR", default=folder, required=folder is None, help="circuits")
    parser.add_argument("--hidden", type=int, default=64, metavar="N", help="hidden units")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="steps, whose median is told")
    chosen = parser.parse_args(arguments)
    if min(chosen.hidden, chosen.steps) < 1:
        parser.error("--hidden and --steps are at least 1")
    try:
        circuits = read_folder(chosen.data)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    form = "{:<12}{:>8}{:>7}{:>8}{:>8}{:>10}{:>14}{:>15}"
    print(form.format("circuit", "gates", "levels", "readers", "s/step", "peak MiB", "peak B/vertex", "saved B/vertex"))
    for circuit in sorted(circuits.values(), key=len):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            seconds, peak, saved, vertices = process.submit(measure, circuit, chosen.hidden, chosen.steps).result()
        gates, levels, readers = len(circuit), len(circuit.levels) - 1, np.bincount(circuit.operands.ravel()).max()
        sizes = f"{peak / 2**20:.0f}", f"{peak / vertices:.0f}", f"{saved / vertices:.0f}"
        print(form.format(circuit.name, f"{gates:,}", f"{levels:,}", readers, f"{seconds:.2f}", *sizes))


if __name__ == "__main__":
    main()
