"""Cores as launches of Triton kernels: a fixed number for each step, none of which waits for the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import log
from ...graph.program import CORES, Program
from ..memory import Arena
from ..operations import Unsupported
from ..order import RowGroup
from .build import interprets, load
from .source import Launch, Source, write_core
from .tiles import WARPS

Size = tuple[int, int]  # rows and columns of a program
Resolve = Callable[[str, Any], "Tensor | int"]


@dataclass(frozen=True)
class Call:
    """A kernel with its pointers. What a GPU runs is compiled for where these are aligned, and kept by the size that a
    program should have: that which it has, which is less if it would spill, and the kernel. None in the interpreter."""

    function: Any
    launch: Launch
    pointers: tuple[Tensor | int | None, ...]
    addresses: tuple[int | None, ...]
    precision: str
    compiled: dict[Size, tuple[Size, Any]] | None

    def start(self, rows: int, numbers: tuple[int, ...], stream: int, multiprocessors: int) -> None:
        """Launch it for so many rows; after the first time that takes as little of the host's time as Triton allows."""
        tile = self.launch.tile
        size = tile.size(rows, multiprocessors)
        kernel, pointers, options = self.function, self.pointers, {}
        if self.compiled is not None:
            if size not in self.compiled:
                self.compiled[size] = self._compile(size, numbers)
            size, kernel = self.compiled[size]
            pointers, options = self.addresses, {"stream": stream}
        down, across = tile.grid(rows, size)
        kernel[down, across, 1](*pointers, *numbers, *tile.blocks(size), self.precision, **options)

    def _compile(self, most: Size, numbers: tuple[int, ...]) -> tuple[Size, Any]:
        tile = self.launch.tile
        for size in tile.sizes[tile.sizes.index(most) :]:
            log.show("kernels", f"compiling {self.launch.name}, tiles of {size}, unless Triton has kept it")
            given = (*self.pointers, *numbers, *tile.blocks(size), self.precision)
            kernel = self.function.warmup(*given, grid=(1,), num_warps=WARPS)
            kernel.run  # noqa: B018 - brings it to the device, which tells what it spills
            if not kernel.n_spills:
                break
        return size, kernel


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
    compiled: dict[Any, dict[Size, tuple[Size, Any]]] = field(
        default_factory=dict
    )  # kernels by what they are compiled for
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
        compiled = None if interprets() else self.compiled.setdefault(key, {})
        return Call(self.functions[launch.name], launch, given, addresses, precision(), compiled)

    def run(self, arguments: Arguments, steps: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        """Launch the kernels of these steps, lines [n, 7] as in `Step`, one after the other."""
        with _device(arguments.device) as (stream, multiprocessors):
            for start, stop, _, _, _, edge_start, edge_stop in steps.tolist():
                inner = start - arguments.num_leaves
                for call in arguments.inner if inner >= 0 else arguments.leaf:
                    rows = edge_stop - edge_start if call.launch.on_edges else stop - start
                    if rows > 0:
                        numbers = (start, inner, arguments.group_start + start, edge_start, rows)
                        call.start(rows, numbers, stream, multiprocessors)


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
