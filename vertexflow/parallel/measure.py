"""Measure a cluster: time training steps that were made for it, and collectives, and fit what each thing costs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.distributed.device_mesh import DeviceMesh

from ..errors import InputError
from .assign import optimize
from .calibration import LEAST, Task, seconds_of_a_call, seconds_of_a_fresh_byte, tasks
from .cluster import Cluster, Link
from .cost import Floats
from .measure_links import largest, links_of
from .observe import observe
from .predict import work_of_ranks
from .work import COUNTED

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
    costs = fit(time_tasks(tasks(), seconds))
    costs[-1] = seconds_of_a_call()
    costs[1 + COUNTED.index("fresh")] = seconds_of_a_fresh_byte(seconds / 10)
    links: dict[str, Link] = {}
    nodes, devices = 1, 1
    if mesh is not None:
        shape = [int(count) for count in mesh.mesh.shape]
        nodes, devices = shape if len(shape) == 2 else (1, shape[0])
        for dim, kind in enumerate(("nodes", "devices")[2 - len(shape) :]):
            if shape[dim] > 1:
                links |= links_of(kind, mesh.get_group(dim), shape[dim], float(costs[-1]), seconds)
        groups = mesh.get_all_groups()
        costs = _of_all(costs, groups)
        links = {name: _slowest(link, groups) for name, link in links.items()}
        links |= {kind: links[f"{kind}.all_reduce"] for kind in ("devices", "nodes") if f"{kind}.all_reduce" in links}
    call, *each, launch, small, python = costs.tolist()
    flops, cache, bandwidth, slow, fresh = (1 / max(cost, _FLOOR) for cost in each)
    memory = _memory() / (1 if mesh is None else mesh.size())
    return Cluster(nodes, devices, flops, bandwidth, memory, links, launch, small, call, cache, slow, python, fresh)


def _of_all(values: Floats, groups: Sequence[Any]) -> Floats:
    """The largest of all ranks of a mesh, one dimension after the other; ranks that are not in the mesh are not asked."""
    for group in groups:
        values = largest(values, group)
    return values


def _slowest(link: Link, groups: Sequence[Any]) -> Link:
    """Of links that several rows of the mesh have measured."""
    latency, per_byte = _of_all(np.array([link.latency, 1 / link.bandwidth]), groups).tolist()
    return Link(latency, 1 / per_byte)


def time_tasks(tasks: Iterable[Task], seconds: float) -> Timed:
    """Time training steps of the tasks in turns; of the first ones alone, if to prepare them all takes longer than `seconds`."""
    started = time.perf_counter()
    work: list[list[float]] = []
    timed: list[Task] = []
    for task in tasks:
        if len(timed) >= LEAST and time.perf_counter() - started > seconds:
            break
        task.step()
        task.step()
        (part,) = observe(task.model, (task.batch, {"x": task.x})).parts
        rank = np.zeros(task.batch.num_graphs, np.int64)
        work.append([1.0, *work_of_ranks(part, rank, 1)[0]])
        timed.append(task)
    medians = time_in_turns([task.step for task in timed], seconds)
    return Timed(np.array(work), medians)


def time_in_turns(steps: Sequence[Callable[[], Any]], seconds: float, rounds: int = _ROUNDS) -> Floats:
    """The seconds of each step: the least median of several rounds over all of them; of fewer, where a round takes long."""
    least = np.full(len(steps), np.inf)
    started = time.perf_counter()
    for turn in range(rounds):
        if turn and time.perf_counter() - started > seconds:
            break
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
        scaled, _ = nnls(columns * weight[:, None], weight)
        weight = 1 / np.sqrt(np.maximum(np.abs(columns @ scaled - 1), 0.05))
    costs = np.zeros(len(scale))
    costs[is_used] = scaled / scale[is_used]
    return costs


def _memory() -> float:
    """The bytes of memory of this machine."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
