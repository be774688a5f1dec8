"""Cores as launches of Triton kernels: a fixed number for each step, without waiting for the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ... import _core
from ...errors import BackendError, VertexFlowError
from ...graph.symbolic.program import CORES, Program
from ..arguments import RunArgument, Scratch, Seed, Stride, finder
from ..binding import BoundArguments, Numbers, Template, bind_arguments, key_of
from ..compiled import Loop
from ..cut import Cut
from ..memory.layout import Buffers, size_in_a_step
from ..operations import Unsupported
from ..order import Extent, Ints, RowGroup
from ..run import Run
from . import persistent
from .build import interprets, load
from .launch import Binaries, Call, Native, driver, is_watched
from .persistent import Persistent
from .persistent.launch import Given, Resident, Rows
from .source import Launch, Source, write_core
from .tiles import WARPS


@dataclass(frozen=True)
class Kernels:
    """The kernels as compiled for arguments of one alignment, by name; and for the native core those of steps with children, and
    of steps without: whether rows are edges, the columns, the compiled variants, and the places of the arguments."""

    binaries: dict[str, Binaries]
    native: tuple[list[Native], list[Native]]
    resident: dict[Any, Resident] = field(default_factory=dict)  # kernels of all steps, as in `persistent.launch.Given`


@dataclass(frozen=True)
class KernelArguments:
    """The arguments of the kernels in one run: addresses and numbers, and `value`, which gives the tensor behind an address."""

    bound: BoundArguments
    kernels: Kernels
    group: RowGroup
    device: torch.device
    value: Callable[[RunArgument], Tensor | int | None]


@dataclass(frozen=True, eq=False)
class Together:
    """The cores of several kinds as one kernel; and what is compiled of it, by what the kernels of each are compiled for."""

    persistent: Persistent
    compiled: dict[tuple[int, ...], dict[Any, Resident]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TritonLoop:
    """A core as kernels that are launched for each step, or as one kernel of them that is launched for all steps."""

    source: Source
    functions: dict[str, Any]
    persistent: Persistent
    kernels: dict[Any, Kernels] = field(default_factory=dict)  # by what they are compiled for
    templates: WeakKeyDictionary[RowGroup, Template] = field(default_factory=WeakKeyDictionary)
    together: dict[tuple[TritonLoop, ...], Together] = field(default_factory=dict)  # with loops of other kinds
    in_arenas = True

    @property
    def keeps(self) -> bool:
        """Whether gathered rows are kept in buffers: kernels of a core read them where they are."""
        return self.source.name != "core"

    @property
    def text(self) -> str:
        return self.source.text

    @cached_property
    def launches(self) -> list[Launch]:
        """All kernels."""
        return [*self.source.inner, *self.source.leaf]

    @cached_property
    def pointers(self) -> list[RunArgument]:
        """The arguments of all kernels, without duplicates."""
        return list(dict.fromkeys(pointer for launch in self.launches for pointer in launch.pointers))

    @cached_property
    def folded(self) -> Numbers:
        """For each of `pointers`, the value that Triton compiles into a kernel: a missing pointer (0), a stride of 1."""
        return np.array([isinstance(pointer, Stride) for pointer in self.pointers], np.int64)

    def scratch(self, group: RowGroup, extent: Extent) -> Buffers:
        """The further buffers that one run needs; no more than `extent` is computed at a time."""
        return {
            scratch: size_in_a_step(scratch, group, extent) for scratch in self.pointers if isinstance(scratch, Scratch)
        }

    def describe(self, part: str) -> str:
        """In a few words, how a part runs."""
        if persistent.is_asked_for() and self.persistent.last == "":
            return f"Triton kernels, one launch for all steps{self.persistent.describe()}"
        count = len(self.source.leaf if part.endswith("_leaf") else self.source.inner)
        is_refused = persistent.is_asked_for() and self.persistent.last
        why = f", not one for all ({self.persistent.last})" if is_refused else ""
        return f"Triton kernels, {count} launch{'es' if count != 1 else ''} a step{why}"

    def bind(self, run: Run) -> KernelArguments:
        """The arguments of one run, and the kernels compiled for such arguments."""
        bound = bind_arguments(self.pointers, run, self.templates, {})
        group, device = run.group, run.values.arenas[0].layout.device

        def value(pointer: RunArgument) -> Tensor | int | None:
            if isinstance(pointer, Stride | Seed):
                return int(bound.numbers[self.pointers.index(pointer)])
            key = key_of(pointer)
            placed = None if key is None else run.values.in_arena(key)
            tensor = finder(pointer)(run) if placed is None else placed
            return tensor if isinstance(tensor, Tensor) else None

        return KernelArguments(bound, self._kernels(bound.numbers, device), group, device, value)

    def _kernels(self, numbers: Numbers, device: torch.device) -> Kernels:
        """The kernels for arguments like these; each is compiled at its first launch."""
        is_seed = np.array([isinstance(pointer, Seed) for pointer in self.pointers], bool)
        is_folded, is_aligned = (numbers == self.folded) & ~is_seed, (numbers % 16 == 0) & ~is_seed
        key = (is_folded.tobytes(), is_aligned.tobytes(), precision(), device)
        if key not in self.kernels:
            binaries = {launch.name: Binaries(launch) for launch in self.launches}
            places = {pointer: at for at, pointer in enumerate(self.pointers) if not is_folded[at]}

            def native(launch: Launch) -> Native:
                places_of_pointers = np.array(
                    [places[pointer] for pointer in launch.pointers if pointer in places], np.int64
                )
                return (
                    launch.on_edges,
                    launch.tile.columns,
                    binaries[launch.name].variants.reshape(-1),
                    places_of_pointers,
                )

            inner, leaf = list(map(native, self.source.inner)), list(map(native, self.source.leaf))
            self.kernels[key] = Kernels(binaries, (inner, leaf))
        return self.kernels[key]

    def run(self, arguments: KernelArguments, steps: Ints) -> None:
        """Launch the kernels of these steps, lines [n, 7] as in `Step`, one after the other."""
        with _device(arguments.device) as (stream, multiprocessors):
            if persistent.is_asked_for() and self._in_one_launch(arguments, steps, stream, multiprocessors):
                return
            native, at = self._native(arguments, steps, stream, multiprocessors), 0
            width = max(len(self.source.inner), len(self.source.leaf), 1)
            calls: dict[str, Call] = {}
            while (at := native(at)) < len(steps) * width:
                self._start(arguments, calls, steps[at // width].tolist(), at % width, stream, multiprocessors)
                at += 1

    def _in_one_launch(self, arguments: KernelArguments, steps: Ints, stream: int, multiprocessors: int) -> bool:
        """Compute all steps in one launch; False if nothing was done."""
        kernels = arguments.kernels.resident
        rows = [Rows(arguments.group, arguments.value)]
        given = Given(rows, kernels, arguments.device, stream, multiprocessors, precision())
        with _telling_defects(f"{self.source.name} of all steps"):
            return self.persistent.run(given, steps)

    def run_together(self, kinds: Mapping[int, tuple[Loop, Callable[[], KernelArguments]]], steps: Ints) -> bool:
        """Compute the steps of several kinds in one launch; False if nothing was done."""
        if not persistent.is_asked_for():
            return False
        loops = [loop for loop, _ in kinds.values() if isinstance(loop, TritonLoop)]
        if len(loops) < len(kinds):
            return False
        arguments = [bind() for _, bind in kinds.values()]
        key = tuple(loops)
        if key not in self.together:
            self.together[key] = Together(Persistent([loop.source for loop in loops]))
        together = self.together[key]
        compiled = together.compiled.setdefault(tuple(id(each.kernels) for each in arguments), {})
        rows = [Rows(each.group, each.value, number) for number, each in zip(kinds, arguments, strict=True)]
        with (
            _device(arguments[0].device) as (stream, multiprocessors),
            _telling_defects(f"{self.source.name} of all kinds"),
        ):
            given = Given(rows, compiled, arguments[0].device, stream, multiprocessors, precision())
            is_done = together.persistent.run(given, steps)
        for loop in loops:
            loop.persistent.note(together.persistent)
        return is_done

    def _native(
        self, arguments: KernelArguments, steps: Ints, stream: int, multiprocessors: int
    ) -> Callable[[int], int]:
        """A function that launches kernels from a number on until one is not compiled, and returns the number of that one."""
        cuda = 0 if interprets() or is_watched() else driver()
        if not cuda:
            return lambda at: at
        run_arguments = (
            *arguments.kernels.native,
            arguments.bound.numbers,
            arguments.group.num_leaves,
            arguments.group.start,
        )
        lines = steps.reshape(-1)
        return lambda at: _core.launch(cuda, stream, multiprocessors, 32 * WARPS, *run_arguments, lines, at)

    def _start(
        self,
        arguments: KernelArguments,
        calls: dict[str, Call],
        line: list[int],
        number: int,
        stream: int,
        multiprocessors: int,
    ) -> None:
        """Launch one kernel of a step by Triton; `calls` are those of this run so far, by name."""
        start, stop, _, _, _, edge_start, edge_stop = line
        inner = start - arguments.group.num_leaves
        launches = self.source.inner if inner >= 0 else self.source.leaf
        if number >= len(launches):
            return
        launch = launches[number]
        rows = edge_stop - edge_start if launch.on_edges else stop - start
        if rows <= 0:
            return
        if launch.name not in calls:
            pointers = tuple(map(arguments.value, launch.pointers))
            binaries = None if interprets() else arguments.kernels.binaries[launch.name]
            calls[launch.name] = Call(self.functions[launch.name], launch, pointers, precision(), binaries)
        numbers = (start, inner, arguments.group.start + start, edge_start, rows)
        with _telling_defects(launch.name):
            calls[launch.name].start(rows, numbers, stream, multiprocessors)


@contextmanager
def _telling_defects(kernel: str) -> Iterator[None]:
    """What goes wrong when a kernel is compiled or launched is no fault of the user's."""
    try:
        yield
    except (VertexFlowError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise BackendError(
            f"the Triton kernel {kernel} cannot be compiled or launched: {type(error).__name__}: {str(error)[:2000]}. "
            'This is a defect of vertexflow, or of Triton, please report it; backend="torch" computes without kernels'
        ) from error


@contextmanager
def _device(device: torch.device) -> Iterator[tuple[int, int]]:
    """Make a device the current one; yields its stream and its number of multiprocessors."""
    if device.type != "cuda":
        yield 0, 1
        return
    with torch.cuda.device(device):
        count = torch.cuda.get_device_properties(device).multi_processor_count
        yield torch.cuda.current_stream(device).cuda_stream, count


def precision() -> str:
    """The precision of products of float32, as PyTorch's own switch is set."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def loops_of(program: Program) -> tuple[dict[str, TritonLoop | Cut], dict[str, str]]:
    """Loops for the cores of a program that can be Triton kernels; and why other cores, or operations in them, cannot."""
    loops: dict[str, TritonLoop | Cut] = {}
    reasons: dict[str, str] = {}
    for name in CORES:
        if name in program.parts:
            try:
                sources = write_core(program, name)
            except Unsupported as reason:
                reasons[name] = str(reason)
                continue
            pieces = [_loop(source) for source in sources.pieces]
            loops[name] = pieces[0] if len(pieces) == 1 else Cut("Triton kernels", pieces, sources.inner, sources.leaf)
            if sources.reasons:
                reasons[name] = "; ".join(dict.fromkeys(sources.reasons))
    return loops, reasons


def _loop(source: Source) -> TritonLoop:
    module = load(source.text)
    functions = {launch.name: getattr(module, launch.name) for launch in (*source.inner, *source.leaf)}
    return TritonLoop(source, functions, Persistent([source]))
