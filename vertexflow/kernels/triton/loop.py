"""Cores as launches of Triton kernels: a fixed number for each step, none of which waits for the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ... import _core
from ...graph.program import CORES, Program
from ..memory import Arena
from ..operations import Unsupported
from ..order import Ints, RowGroup
from .build import interprets, load
from .launch import Binaries, Call, driver, is_watched
from .source import Launch, Source, write_core
from .tiles import WARPS

Resolve = Callable[[str, Any], "Tensor | int"]


@dataclass(frozen=True)
class Arguments:
    """The kernels of steps of vertices with children and of others, ready to be launched."""

    inner: list[Call]
    leaf: list[Call]
    num_leaves: int
    group_start: int
    device: torch.device


@dataclass(frozen=True, eq=False)
class Loop:
    """A core as kernels that are launched for each step."""

    source: Source
    functions: dict[str, Any]
    compiled: dict[Any, Binaries] = field(default_factory=dict)  # kernels by what they are compiled for
    gathers = False  # gathered rows are read where they are, and kept for the backward by others

    def scratch(self, group: RowGroup) -> dict[Any, int]:
        """The buffers that one run needs, by (role, what) of the argument, and how many elements each has."""
        rows = max((step.stop - step.start for step in group.steps), default=0)
        edges = max((step.edge_stop - step.edge_start for step in group.steps), default=0)
        pointers = (pointer for launch in self._launches() for pointer in launch.pointers)
        return {
            (role, what): what[2] * (edges if what[3] == "edges" else rows)
            for role, what in pointers
            if role == "scratch"
        }

    def describe(self, part: str) -> str:
        """In a few words, how a part runs."""
        count = len(self.source.leaf if part.endswith("_leaf") else self.source.inner)
        return f"Triton kernels, {count} launch{'es' if count != 1 else ''} a step"

    def _launches(self) -> list[Launch]:
        return [*self.source.inner, *self.source.leaf]

    def bind(self, resolve: Resolve, arenas: Sequence[Arena], known: MutableMapping[Any, Any]) -> Arguments:
        """The kernels with the arguments of one run, as `resolve` gives them by their role."""
        found: dict[tuple[str, Any], Tensor | int | None] = {}
        for role, what in {pointer: None for launch in self._launches() for pointer in launch.pointers}:
            key = what[0] if role == "value" else (role, what)
            arena = next((arena for arena in arenas if key in arena.layout.places), None)
            is_odd = role == "value" and what[0].meta["rows"].dim > 0  # rows behind a dimension of size 1
            value = arena[key] if arena is not None else resolve("param", what[0]) if is_odd else resolve(role, what)
            found[role, what] = value if isinstance(value, Tensor) or role == "stride" else None
        num_leaves, group_start = resolve("num_leaves", None), resolve("group_start", None)
        assert isinstance(num_leaves, int)
        assert isinstance(group_start, int)
        device = next((value.device for value in found.values() if isinstance(value, Tensor)), torch.device("cpu"))
        calls = [
            [self._call(launch, [found[pointer] for pointer in launch.pointers], device) for launch in launches]
            for launches in (self.source.inner, self.source.leaf)
        ]
        return Arguments(calls[0], calls[1], num_leaves, group_start, device)

    def _call(self, launch: Launch, pointers: Iterable[Tensor | int | None], device: torch.device) -> Call:
        given = tuple(pointers)
        addresses = tuple(value.data_ptr() if isinstance(value, Tensor) else value for value in given)
        kinds = tuple(value if value is None else value % 16 == 0 for value in addresses)
        key = (launch.name, kinds, precision(), device)
        if not interprets() and key not in self.compiled:
            self.compiled[key] = Binaries(launch)
        return Call(self.functions[launch.name], launch, given, addresses, precision(), self.compiled.get(key))

    def run(self, arguments: Arguments, steps: Ints) -> None:
        """Launch the kernels of these steps, lines [n, 7] as in `Step`, one after the other."""
        with _device(arguments.device) as (stream, multiprocessors):
            native, at = self._native(arguments, steps, stream, multiprocessors), 0
            width = max(len(arguments.inner), len(arguments.leaf), 1)
            while (at := native(at)) < len(steps) * width:
                self._start(arguments, steps[at // width].tolist(), at % width, stream, multiprocessors)
                at += 1

    def _native(self, arguments: Arguments, steps: Ints, stream: int, multiprocessors: int) -> Callable[[int], int]:
        """What launches all kernels that are compiled, from a number on, and tells where it stopped."""
        cuda = 0 if interprets() or is_watched() else driver()
        if not cuda:
            return lambda at: at
        inner, leaf = ([call.native() for call in calls] for calls in (arguments.inner, arguments.leaf))
        of_group, lines = (arguments.num_leaves, arguments.group_start), steps.reshape(-1)
        return lambda at: _core.launch(cuda, stream, multiprocessors, 32 * WARPS, inner, leaf, *of_group, lines, at)

    def _start(self, arguments: Arguments, line: list[int], number: int, stream: int, multiprocessors: int) -> None:
        """Launch one kernel of a step by Triton."""
        start, stop, _, _, _, edge_start, edge_stop = line
        inner = start - arguments.num_leaves
        calls = arguments.inner if inner >= 0 else arguments.leaf
        rows = edge_stop - edge_start if number < len(calls) and calls[number].launch.on_edges else stop - start
        if number < len(calls) and rows > 0:
            numbers = (start, inner, arguments.group_start + start, edge_start, rows)
            calls[number].start(rows, numbers, stream, multiprocessors)


@contextmanager
def _device(device: torch.device) -> Iterator[tuple[int, int]]:
    """A device as the current one: its stream, and how many multiprocessors it has."""
    if device.type != "cuda":
        yield 0, 1
        return
    with torch.cuda.device(device):
        count = torch.cuda.get_device_properties(device).multi_processor_count
        yield torch.cuda.current_stream(device).cuda_stream, count


def precision() -> str:
    """How products of float32 are computed, by PyTorch's own switch, however it was set."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def loops_of(program: Program) -> tuple[dict[str, Loop], dict[str, str]]:
    """The cores of a program that can be Triton kernels; and why the others cannot."""
    loops: dict[str, Loop] = {}
    reasons: dict[str, str] = {}
    for name in CORES:
        if name in program.parts:
            try:
                source = write_core(program, name)
                module = load(source.text)
                launches = [*source.inner, *source.leaf]
                loops[name] = Loop(source, {launch.name: getattr(module, launch.name) for launch in launches})
            except Unsupported as reason:
                reasons[name] = str(reason)
    return loops, reasons
