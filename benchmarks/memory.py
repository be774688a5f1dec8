"""Memory of a training step, seen from outside: by how much the resident memory of a process rises in its first step.

    python -m benchmarks.memory [treelstm childsum circuits treefc] [--hidden 256] [--steps 3] [--max-vertices 1000]

Each contestant has a process of its own, in which a batch of two graphs has been trained on before: traces, compilers and code
are there. What *must be kept* is what a workload counts, states and saved activations, and beside it weight gradients and index
arrays: of each vertex its row and of each row its vertex, of each edge its two ends, in 4 bytes each. MiB above what the process
held: after the forward pass, at the peak, and after the step, gradients and output gone: what is retained. `then` is the same of
the last of `--steps` steps, above what the process held before the first; `ms` the median time of the steps after the first
(ask for more of them); `estimated` what `model.estimate_memory` says of the first peak. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import vertexflow as vf
from vertexflow.kernels.memory import pool

from .device import size_in, status
from .harness import OURS, RATE, Case, Contestant, Settings, mean_square
from .workloads import WORKLOADS

GRAPHS = {"treelstm": 136, "childsum": 64, "circuits": 64, "treefc": 64}  # the first has 5,202 vertices
MIB = 1 << 20


@dataclass(frozen=True)
class OneModel(Settings):
    """Settings whose cases all have the first one's model."""

    models: list[Any] = field(default_factory=list)

    def place(self, module: nn.Module) -> Any:
        self.models.append(super().place(module))
        return self.models[0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workloads", nargs="*", choices=[[], *GRAPHS], help=f"of {', '.join(GRAPHS)}; all if none")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--graphs", type=int, help="in a batch")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--max-vertices", type=int, help="that vertexflow computes at once")
    parser.add_argument("--only", help="this contestant alone, in this process; prints JSON")
    options = parser.parse_args(arguments)
    for name in options.workloads or list(GRAPHS):
        settings = OneModel(hidden=options.hidden, batch=options.graphs or GRAPHS[name])
        if options.only:
            print(json.dumps(measure(name, settings, options.only, options.steps, options.max_vertices)))
        else:
            show(name, settings, options.steps, options.max_vertices)
    return 0


def show(name: str, settings: OneModel, steps: int, max_vertices: int | None) -> None:
    """A line for each contestant."""
    small = WORKLOADS[name].make(replace(settings, batch=2))
    contestants = [one.name for one in small.contestants if one.every == 1]
    for number, contestant in enumerate(contestants):
        figures = _in_a_process(name, settings, contestant, steps, max_vertices)
        must = figures["kept"]
        if not number:
            print(f"{name}, hidden {settings.hidden}, {figures['title']}: {must / MIB:.1f} MiB must be kept")
            columns = ["forward", "peak", "of kept", "retained", "then", "retained", "ms", "estimated"]
            print(" " * 34, *(f"{column:>9}" for column in columns))
        steps_of = figures["steps"]
        first, last = steps_of[0], steps_of[-1]
        estimated = "" if figures["estimated"] is None else f"{figures['estimated'] / MIB:.1f}"
        forward = "" if first["forward"] is None else f"{first['forward'] / MIB:.1f}"
        milliseconds = statistics.median(step["seconds"] for step in steps_of[1:] or steps_of) * 1e3
        sizes = [forward, f"{first['peak'] / MIB:.1f}", f"{first['peak'] / must:.2f}"]
        sizes += [f"{size / MIB:.1f}" for size in (first["retained"], last["peak"], last["retained"])]
        print(f"    {contestant:30}", *(f"{cell:>9}" for cell in (*sizes, f"{milliseconds:.1f}", estimated)))


def _in_a_process(
    name: str, settings: OneModel, contestant: str, steps: int, max_vertices: int | None
) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", name, "--only", contestant, "--hidden", str(settings.hidden)]
    command += ["--graphs", str(settings.batch), "--steps", str(steps)]
    command += [] if max_vertices is None else ["--max-vertices", str(max_vertices)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def measure(
    name: str, settings: OneModel, contestant: str, steps: int, max_vertices: int | None = None
) -> dict[str, Any]:
    """The first steps of a contestant on a batch; bytes."""
    small = WORKLOADS[name].make(replace(settings, batch=2))
    for module in small.model.modules():  # the model of all cases
        if isinstance(module, vf.VertexFunction):
            module.max_vertices = max_vertices
    (before,) = (one for one in small.contestants if one.name == contestant)
    for _ in range(2):
        _step(small.model, before)
    del small, before
    torch.manual_seed(1)
    case = WORKLOADS[name].make(settings)
    (one,) = (one for one in case.contestants if one.name == contestant)
    trim()
    start = status("VmRSS")
    return {
        "title": case.title,
        "kept": kept_bytes(case),
        "steps": [_weighed(case.model, one, start) for _ in range(steps)],
        "estimated": case.estimate().peak if case.estimate and contestant == OURS else None,  # last: it leaves traces
    }


def kept_bytes(case: Case) -> int:
    """What must be kept: the rule is in the text of this module."""
    weights = sum(parameter.numel() for parameter in case.model.parameters())
    return (case.kept + weights) * next(case.model.parameters()).element_size() + 4 * case.num_indices


def _weighed(model: nn.Module, contestant: Contestant, start: int) -> dict[str, float | None]:
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark begins again
    begin = time.perf_counter()
    forward = _step(model, contestant)
    seconds = time.perf_counter() - begin
    now = Path("/proc/self/status").read_text()  # at one moment: between two, memory may grow
    return {
        "forward": forward and forward - start,
        "peak": size_in(now, "VmHWM") - start,
        "retained": size_in(now, "VmRSS") - start,
        "seconds": seconds,
    }


def _step(model: nn.Module, contestant: Contestant) -> int | None:
    """A training step; the resident memory after the forward pass, if that is there to be seen."""
    forward = None
    if contestant.train is None:
        loss = mean_square(contestant.forward())
        forward = status("VmRSS")
        loss.backward()
        del loss
    else:
        mean_square(contestant.train())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=RATE)
            parameter.grad = None
    return forward


def trim() -> None:
    """Give back what earlier steps have left to be used again."""
    gc.collect()
    pool.clear()
    ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    raise SystemExit(main())
