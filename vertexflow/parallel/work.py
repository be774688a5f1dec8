"""What a row, an edge and a run of each part of a program cost, counted from its graph: flops, bytes, functions, launches."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx

from ..graph.symbolic.nodes import has_rows, is_view, on_edges
from ..graph.symbolic.program import Part
from ..kernels.compiled import Compiled
from ..kernels.native.plan import MATRICES, SLOW, Plan, factors, plan_part, work_of
from ..kernels.operations import CONSTANT, Unsupported
from ..kernels.torch.loop import Once, Steps
from .cost import Floats

# What is counted. `fresh` are bytes of large tensors that PyTorch's own operations make anew; `small` are launches of so few
# elements that they are not spread over a device.
COUNTED = ("flops", "weights", "bytes", "slow", "fresh", "launches", "small", "calls")
SMALL = 1024  # elements
_FLOPS, _WEIGHTS, _BYTES, _SLOW, _FRESH, _LAUNCHES, _SMALL, _CALLS = range(len(COUNTED))


@dataclass(frozen=True)
class PartWork:
    """What a part does: float64 [len(COUNTED)] for each row, for each edge, and each time that it runs.

    Attributes:
        row, edge, run: flops of products (two for a multiplication and an addition); bytes of parameters that products read;
            bytes that loops over elements read and write; elements of functions such as `exp` and `tanh`; launches of loops and
            products that come one after the other; calls of PyTorch, where a part is no generated code.
        elements: of a row, to tell which runs are small.
    """

    row: Floats
    edge: Floats
    run: Floats
    elements: int

    def of(self, rows: Floats, edges: Floats) -> Floats:
        """The work of many runs over so many rows and edges each, [..., len(COUNTED)]; runs without rows are none."""
        done = rows[..., None] * self.row + edges[..., None] * self.edge + (rows > 0)[..., None] * self.run
        is_small = (rows + edges) * self.elements <= SMALL
        done[..., _SMALL] = np.where(is_small, done[..., _LAUNCHES], 0)
        done[..., _LAUNCHES] = np.where(is_small, 0, done[..., _LAUNCHES])
        return done


def works_of(compiled: Compiled) -> dict[str, PartWork]:
    """The work of each part of a program, by name."""
    of_pytorch = {name for name, loop in compiled.loops.items() if isinstance(loop, (Once, Steps))} | set(
        compiled.reasons
    )
    parts = compiled.program.parts
    return {name: work_of_part(part, name.removesuffix("_leaf") in of_pytorch) for name, part in parts.items()}


def work_of_part(part: Part, is_called: bool = False) -> PartWork:
    """Count the operations of a part; with `is_called`, PyTorch runs them one by one."""
    row, edge, run = np.zeros((3, len(COUNTED)))

    def add(node: fx.Node, what: int, amount: float) -> None:
        to = run if not has_rows(node) else edge if on_edges(node) else row
        to[what] += amount

    plan = None if is_called else _plan(part)
    stored: Collection[fx.Node] = _computed(part) if plan is None else plan.stored
    for node in part.graph.nodes:
        if node.op == "placeholder" and node.name not in ("rows", "edges") and has_rows(node):
            add(node, _BYTES, size_of(node))
        if node.op != "call_function" or is_view(node):
            continue
        if node.target in MATRICES:
            a, b = factors(node)
            is_sum = has_rows(a) and not has_rows(node)  # over rows: the gradient of a parameter
            add(a if is_sum else node, _FLOPS, 2 * elements_of(a) * int(b.meta["val"].shape[-1]))
            if not has_rows(b):
                run[_WEIGHTS] += size_of(b)
        if node.target in SLOW:
            add(node, _SLOW, elements_of(node))
        if node in stored:
            add(node, _BYTES, 2 * size_of(node))  # written, and read by what comes after
    if plan is None:
        run[_CALLS] = len(stored)
    else:
        run[_LAUNCHES] = sum(any(vars(stage).values()) for stage in plan.stages)
    return PartWork(row, edge, run, work_of(plan) if plan is not None else SMALL)


def elements_of(node: fx.Node) -> float:
    """How many elements a row of a value has; of a value without rows, how many it has."""
    layout, value = node.meta.get("rows"), node.meta["val"]
    if not isinstance(value, torch.Tensor):
        return 0.0
    extents = (layout.per_vertex if layout and dim == layout.dim else int(n) for dim, n in enumerate(value.shape))
    return float(math.prod(extents))


def size_of(node: fx.Node) -> float:
    """The bytes of a row of a value; of a value without rows, its bytes."""
    value = node.meta["val"]
    return elements_of(node) * value.element_size() if isinstance(value, torch.Tensor) else 0.0


def _plan(part: Part) -> Plan | None:
    try:
        return plan_part(part, may_call=True)
    except Unsupported:
        return None


def _computed(part: Part) -> set[fx.Node]:
    nodes = (node for node in part.graph.nodes if node.op == "call_function" and node.target is not CONSTANT)
    return {node for node in nodes if not is_view(node) and isinstance(node.meta.get("val"), torch.Tensor)}
