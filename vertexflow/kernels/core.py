"""What a program's parts share when they run: compiled functions, and values in buffers of all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from ..graph.nodes import on_edges
from ..graph.program import Program
from .native.loop import Loop
from .order import RowGroup, Step

Values = dict[fx.Node, Tensor]  # values of nodes of the joint graph, over all rows or over inner rows
Function = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Compiled:
    """A program whose parts are functions of one backend."""

    program: Program
    functions: Mapping[str, Function]
    sources: Mapping[str, str]  # the generated code of each part, to be read
    given: Mapping[str, Mapping[fx.Node, bool]]  # the outputs that each part writes into given memory, as `placed` says
    loops: Mapping[str, Loop] = field(default_factory=dict)  # cores that run natively over all steps
    reasons: Mapping[str, str] = field(default_factory=dict)  # why other cores do not


def placed(program: Program, name: str) -> dict[fx.Node, bool]:
    """The outputs that a part writes into given memory, and whether that is contiguous; others are returned.

    Given are all outputs of cores, and states.
    """
    found = program.trace
    states = set(found.scatters.values())
    columns = {node for (_, slot), node in program.gather_grads.items() if slot >= 0 and found.num_slots > 1}
    result = {}
    for node in program.parts[name].outputs:
        if "core" in name or node in states:
            layout = node.meta.get("rows")
            result[node] = node not in columns and (layout is None or layout.dim == 0)
    return result


class Core:
    """The function of a core with its buffers, cut to the rows of one step at each call."""

    def __init__(self, compiled: Compiled, core: str, group: RowGroup, values: Values) -> None:
        program = compiled.program
        self.program, self.group, self.values = program, group, values
        # Of each value: its dimension of rows, how many each has, and the row it begins with (-1: it has a row an edge).
        self.calls: list[tuple[Function, list[tuple[fx.Node, Tensor | None, int, int, int]]] | None] = []
        if core in program.parts:
            self._allocate(program, core, group, values)
        for name in (core, f"{core}_leaf") if core not in compiled.loops else ():
            if name not in program.parts:
                self.calls.append(None)
                continue
            part = program.parts[name]
            cuts = []
            for node in [*part.inputs, *part.outputs]:
                layout = node.meta.get("rows")
                base = -1 if on_edges(node) else 0 if program.is_whole(node) else group.num_leaves
                cuts.append(
                    (node, values.get(node), layout.dim if layout else -1, layout.per_vertex if layout else 0, base)
                )
            self.calls.append((compiled.functions[name], cuts))

    @staticmethod
    def _allocate(program: Program, core: str, group: RowGroup, values: Values) -> None:
        exchanged = set(program.gather_grads.values())
        for node in program.parts[core].outputs:
            if node in values or node in exchanged:
                continue
            count = group.num_rows - (0 if program.is_whole(node) else group.num_leaves)
            layout = node.meta["rows"]
            if layout.edges:
                assert group.edges is not None
                count = group.edges.num_edges
            shape = list(node.meta["val"].shape)
            shape[layout.dim] = count * layout.per_vertex
            values[node] = empty(node, shape)

    def argument(self, role: str, what: Any) -> Tensor | int:
        """What native code is given of the group and of its values, by its role."""
        group = self.group
        if role == "value":
            node, width = what
            value = self.values[node]
            if not _is_row_major(value, width):
                value = self.values[node] = value.contiguous()
                assert _is_row_major(value, width), f"{node.name} has rows of another width"
            return value
        if role == "param":
            return self.values[what].contiguous()
        if role == "num_computed":
            return group.num_inner + (group.edges.num_edges if group.edges else 0)
        if role == "packed":
            node, more = what
            return torch.empty(self.values[node].numel() + more, dtype=self.program.trace.state_dtype)
        if role == "scratch":
            _, width, of_edges = what
            sizes = [step.edge_stop - step.edge_start if of_edges else step.stop - step.start for step in group.steps]
            return torch.empty(max(sizes, default=0) * width, dtype=self.program.trace.state_dtype)
        if role in ("num_leaves", "child_rows"):
            return getattr(group, role)  # type: ignore[no-any-return]
        if role == "group_start":
            return group.start
        return getattr(group.edges, {"edge_rows": "child_rows", "edge_offset": "offset"}.get(role, role))  # type: ignore[no-any-return]

    def run(self, step: Step, given: Values) -> None:
        """Compute the rows of a step; `given` are the values that belong to it alone."""
        call = self.calls[step.start < self.group.num_leaves]
        if call is None or step.start == step.stop:
            return
        function, cuts = call
        arguments: list[Tensor | None] = []
        for node, value, dim, per_vertex, base in cuts:
            start, stop = (step.edge_start, step.edge_stop) if base < 0 else (step.start - base, step.stop - base)
            if node in given:
                value = given[node]
            elif dim == 0 and per_vertex == 1:
                value = value[start:stop]  # type: ignore[index]
            elif dim >= 0:
                value = value.narrow(dim, start * per_vertex, (stop - start) * per_vertex)  # type: ignore[union-attr]
            arguments.append(value)
        function(step.stop - step.start, step.edge_stop - step.edge_start, *arguments)


def run_whole(compiled: Compiled, stage: str, group: RowGroup, values: Values) -> None:
    """Run a stage's parts once: over all rows, then, for what leaves do not need, over inner rows."""
    program = compiled.program
    for name, start in ((stage, 0), (f"{stage}_inner", group.num_leaves)):
        part = program.parts.get(name)
        if part is None:
            continue
        in_place = compiled.given[name]
        arguments = [
            between(program, node, values[node], group, start, group.num_rows) for node in [*part.inputs, *in_place]
        ]
        edges = group.edges.num_edges if group.edges is not None else 0
        results = compiled.functions[name](group.num_rows - start, edges, *arguments)
        values.update(zip((node for node in part.outputs if node not in in_place), results, strict=True))


def between(program: Program, node: fx.Node, value: Tensor, group: RowGroup, start: int, stop: int) -> Tensor:
    """Rows [start, stop) of a value; all of a value that has no rows."""
    layout = node.meta.get("rows")
    base = 0 if program.is_whole(node) else group.num_leaves
    if layout is None or layout.edges or (start == base and stop == group.num_rows):
        return value
    return value.narrow(layout.dim, (start - base) * layout.per_vertex, (stop - start) * layout.per_vertex)


def _is_row_major(value: Tensor, width: int) -> bool:
    """Whether the elements of each row lie one after the other, and the next row `width` elements on."""
    if value.is_contiguous() and value.stride(0) == width:
        return True
    stride = 1
    for size, step in zip(value.shape[:0:-1], value.stride()[:0:-1], strict=True):
        if size != 1 and step != stride:
            return False
        stride *= size
    return value.stride(0) == width or value.shape[0] <= 1


def empty(node: fx.Node, shape: Iterable[int]) -> Tensor:
    value = node.meta["val"]
    return torch.empty(tuple(shape), dtype=value.dtype, device=value.device)
