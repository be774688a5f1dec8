"""What a program's parts share when they run: compiled functions, and values in buffers of all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx

from ..graph.nodes import on_edges
from ..graph.program import CORES, Program
from . import pool
from .failures import raise_with_line
from .memory import Arena, Buffers, Values
from .order import Ints, RowGroup, Step

Function = Callable[..., tuple[Tensor, ...]]


class Loop(Protocol):
    """A part as code of a backend that runs over steps."""

    gathers: bool  # whether it keeps the gathered rows that others read later

    @property
    def source(self) -> Any:
        """What it was made of; `text` is its code."""

    def describe(self, part: str) -> str:
        """In a few words, how that part runs, which is the one it was made of or its variant for leaves."""

    def scratch(self, group: RowGroup) -> Buffers:
        """The buffers that one run needs, by (role, what) of the argument."""

    def bind(
        self, resolve: Callable[[str, Any], Tensor | int], arenas: Sequence[Arena], known: MutableMapping[Any, Any]
    ) -> Any:
        """The arguments of one run, as `resolve` gives them by their role."""

    def run(self, arguments: Any, steps: Ints) -> None:
        """Compute these steps, lines as in `Step`, one after the other."""


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program whose parts are functions of one backend."""

    program: Program
    functions: Mapping[str, Function]
    sources: Mapping[str, str]  # the generated code of each part, to be read
    given: Mapping[str, Mapping[fx.Node, bool]]  # the outputs that each part writes into given memory, as `placed` says
    loops: Mapping[str, Loop] = field(default_factory=dict)  # parts that are native code
    reasons: Mapping[str, str] = field(default_factory=dict)  # why other parts are not

    def in_memory(self, stages: Iterable[str]) -> list[str]:
        """The parts of these stages that write all their results into given memory: cores, and native code."""
        names = [name for stage in stages for name in (stage, f"{stage}_inner")]
        return [name for name in names if name in CORES or name in self.loops]

    def scratch(self, parts: Iterable[str], group: RowGroup) -> Buffers:
        """The buffers that native code of these parts needs for itself, by what it calls them."""
        found: dict[Any, tuple[torch.dtype, int]] = {}
        for name in parts:
            found |= self.loops[name].scratch(group) if name in self.loops else {}
        return found


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
        self.group, self.trace = group, program.trace
        # Of each value: its dimension of rows, how many each has, and the row it begins with (-1: it has a row an edge).
        self.calls: list[tuple[Function, list[tuple[fx.Node, Tensor | None, int, int, int]]] | None] = []
        for name in (core, f"{core}_leaf"):
            if name not in program.parts:
                self.calls.append(None)
                continue
            part = program.parts[name]
            cuts = []
            for node in [*part.inputs, *part.outputs]:
                layout = node.meta.get("rows")
                base = -1 if on_edges(node) else 0 if program.is_whole(node) else group.num_leaves
                cuts.append(
                    (node, values.find(node), layout.dim if layout else -1, layout.per_vertex if layout else 0, base)
                )
            self.calls.append((compiled.functions[name], cuts))

    def run(self, step: Step, given: Mapping[fx.Node, Tensor]) -> None:
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
        try:
            function(step.stop - step.start, step.edge_stop - step.edge_start, *arguments)
        except Exception as error:
            raise_with_line(error, function, self.trace)


def argument(group: RowGroup, values: Values, role: str, what: Any) -> Tensor | int:
    """What native code is given of a group and of its values, by its role."""
    if role == "value":
        node, width = what
        value = values[node]
        if value.is_neg():  # its memory has the other sign
            value = values[node] = value.resolve_neg()
        if _is_one_row(value):
            return value
        if not value.is_contiguous():
            value = values[node] = value.contiguous()
        assert value.stride(0) == width or value.numel() == 0 or len(value) == 1, (
            f"{node.name} has rows of another width"
        )
        return value
    if role == "stride":
        return 0 if _is_one_row(values[what]) else values[what].stride(0)
    if role in ("param", "result"):
        return values[what].resolve_neg().contiguous()
    if role == "seed":  # of random numbers: drawn as PyTorch's own are, on the host
        return int(torch.randint(2**62, ()))
    if role == "num_computed":
        return group.num_rows + (group.edges.num_edges if group.edges else 0)
    if role in ("num_leaves", "child_rows"):
        return getattr(group, role)  # type: ignore[no-any-return]
    if role == "group_start":
        return group.start
    return getattr(group.edges, {"edge_rows": "child_rows", "edge_offset": "offset"}.get(role, role))  # type: ignore[no-any-return]


def _is_one_row(value: Tensor) -> bool:
    """Whether all rows are the same memory, as zeros are for a gradient that is not there."""
    return value.stride(0) == 0 and value[0].is_contiguous() if len(value) > 1 else False


def run_whole(compiled: Compiled, stage: str, group: RowGroup, values: Values) -> None:
    """Run a stage's parts once: over all rows, then, for what leaves do not need, over inner rows."""
    known = group.known.setdefault(compiled, {})
    if stage not in known:
        known[stage] = _calls(compiled, stage, group)
    for call in known[stage]:
        if isinstance(call, _NativeCall):
            for node, shape in call.results:
                values[node] = empty(node, shape)
            call.loop.run(call.loop.bind(partial(argument, group, values), values.arenas, group.known), call.steps)
        else:
            arguments = [values[node] if cut is None else values[node].narrow(*cut) for node, cut in call.inputs]
            try:
                results = call.function(*call.counts, *arguments)
            except Exception as error:
                raise_with_line(error, call.function, compiled.program.trace)
            values.update(zip(call.results, results, strict=True))


@dataclass(frozen=True)
class _Call:
    """A part as a function: of how many rows and edges, its inputs with the rows of them, and what it returns."""

    function: Function
    counts: tuple[int, int]
    inputs: list[tuple[fx.Node, tuple[int, int, int] | None]]
    results: list[fx.Node]


@dataclass(frozen=True)
class _NativeCall:
    """A part as native code: its rows as one step, and the results that have no rows."""

    loop: Loop
    steps: np.ndarray[Any, np.dtype[np.int32]]
    results: list[tuple[fx.Node, tuple[int, ...]]]


def _calls(compiled: Compiled, stage: str, group: RowGroup) -> list[_Call | _NativeCall]:
    program = compiled.program
    calls: list[_Call | _NativeCall] = []
    edges = group.edges.num_edges if group.edges is not None else 0
    for name, start in ((stage, 0), (f"{stage}_inner", group.num_leaves)):
        if name not in program.parts:
            continue
        part, given = program.parts[name], compiled.given[name]
        if name in compiled.loops:
            steps = np.array([Step(start, group.num_rows, edge_stop=edges)], np.int32)
            free = [node for node in part.outputs if node.meta.get("rows") is None]
            shapes = [(node, tuple(map(int, node.meta["val"].shape))) for node in free]
            calls.append(_NativeCall(compiled.loops[name], steps, shapes))
        else:
            inputs = [(node, cut(program, node, group, start)) for node in [*part.inputs, *given]]
            made = [node for node in part.outputs if node not in given]
            calls.append(_Call(compiled.functions[name], (group.num_rows - start, edges), inputs, made))
    return calls


def cut(program: Program, node: fx.Node, group: RowGroup, start: int) -> tuple[int, int, int] | None:
    """What of a value is rows [start, ...): dimension, start and length for `narrow`; None for all of it."""
    layout = node.meta.get("rows")
    base = 0 if program.is_whole(node) else group.num_leaves
    if layout is None or layout.edges or start == base:
        return None
    return layout.dim, (start - base) * layout.per_vertex, (group.num_rows - start) * layout.per_vertex


def empty(node: fx.Node, shape: Sequence[int]) -> Tensor:
    value = node.meta["val"]
    return pool.empty(shape, value.dtype, value.device)
