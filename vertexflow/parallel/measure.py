"""Measure a cluster: time training steps that were made for it, and collectives, and fit what each thing costs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.distributed.device_mesh import DeviceMesh

from ..errors import InputError
from .assign import optimize
from .calibration import Task, seconds_of_a_call, tasks
from .cluster import Cluster, Link
from .cost import Floats
from .measure_links import largest, links_of
from .observe import observe
from .predict import work_of_ranks

_ROUNDS = 8  # the least of several medians is what the machine does when nothing disturbs it
_FLOOR = 1e-16  # seconds; what is fitted to cost nothing


@dataclass(frozen=True)
class Timed:
    """What was timed: the work of each task and one call, and its seconds."""

    work: Floats
    seconds: Floats


def measure(mesh: DeviceMesh | None, seconds: float) -> Cluster:
    """See `Cluster.measure`."""
    if mesh is not None and (mesh.ndim > 2 or mesh.device_type != "cpu"):
        raise InputError(
            f"the mesh has {mesh.ndim} dimensions of {mesh.device_type}; a mesh of one or two dimensions of CPUs is measured, "
            "other clusters are described: vf.parallel.Cluster(nodes=..., devices=..., flops=..., ...)"
        )
    costs = fit(time_tasks(list(tasks()), seconds))
    costs[-1] = seconds_of_a_call()
    links: dict[str, Link] = {}
    nodes, devices = 1, 1
    if mesh is not None:
        shape = [int(count) for count in mesh.mesh.shape]
        nodes, devices = shape if len(shape) == 2 else (1, shape[0])
        for dim, kind in enumerate(("nodes", "devices")[2 - len(shape) :]):
            if shape[dim] > 1:
                links |= links_of(kind, mesh.get_group(dim), shape[dim], python=float(costs[-1]))
        costs = largest(costs)
    call, *each, launch, small, python = costs.tolist()
    flops, cache, bandwidth, slow = (1 / max(cost, _FLOOR) for cost in each)
    memory = _memory() / (1 if mesh is None else mesh.size())
    return Cluster(nodes, devices, flops, bandwidth, memory, links, launch, small, call, cache, slow, python)


def time_tasks(made: Sequence[Task], seconds: float) -> Timed:
    """Time training steps of all tasks in turns."""
    work = []
    for task in made:
        task.step()
        task.step()
        (part,) = observe(task.model, (task.batch, {"x": task.x})).parts
        rank = np.zeros(task.batch.num_graphs, np.int64)
        work.append([1.0, *work_of_ranks(part, rank, 1)[0]])
    medians = time_in_turns([task.step for task in made], seconds)
    return Timed(np.array(work), medians)


def time_in_turns(steps: Sequence[Callable[[], Any]], seconds: float, rounds: int = _ROUNDS) -> Floats:
    """The seconds of each step: the least median of several rounds over all of them."""
    least = np.full(len(steps), np.inf)
    for _ in range(rounds):
        for number, step in enumerate(steps):
            taken: list[float] = []
            step()
            while sum(taken) < seconds / rounds / len(steps) or len(taken) < 3:
                begin = time.perf_counter()
                step()
                taken.append(time.perf_counter() - begin)
            least[number] = min(least[number], statistics.median(taken))
    return least


def fit(timed: Timed) -> Floats:
    """What a call, and each thing that is counted, costs: the non-negative numbers with the least relative errors, those of
    tasks that are far off weighted less."""
    nnls = optimize().nnls

    relative = timed.work / timed.seconds[:, None]
    scale = relative.max(0)
    is_used = scale > 0
    columns, weight = relative[:, is_used] / scale[is_used], np.ones(len(relative))
    for _ in range(10):
        found, _ = nnls(columns * weight[:, None], weight)
        weight = 1 / np.sqrt(np.maximum(np.abs(columns @ found - 1), 0.05))
    costs = np.zeros(len(scale))
    costs[is_used] = found / scale[is_used]
    return costs


def _memory() -> float:
    """The bytes of memory of this machine."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
