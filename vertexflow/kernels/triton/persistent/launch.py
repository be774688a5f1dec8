"""One launch for many steps, where its programs fit on the device at once; else the caller launches each step."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from .... import log
from ....errors import BackendError
from ...arguments import RunArgument
from ...memory import rehearsal
from ...order import Ints, RowGroup
from ..build import interprets, load
from ..source import Source
from ..tiles import WARPS
from . import keep
from .source import PersistentSource, write_persistent
from .work import Kind, Sizes, Work, most_sizes, sizes_at, work_of

VARIABLE = "VERTEXFLOW_ONE_LAUNCH"
LEAST_STEPS = 2  # with which one launch is taken: with one step there is nothing to save
INTERPRETED_PROGRAMS = 3  # the interpreter runs one after the other: enough that they share tiles
INTERPRETED_SHARED = 232_448  # bytes of shared memory, in the interpreter: those of compute capability 9.0


def is_asked_for() -> bool:
    """Whether the environment variable `VERTEXFLOW_ONE_LAUNCH` asks for one launch.

    Raises:
        BackendError: it is neither 0 nor 1.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "0", "1"):
        raise BackendError(
            f"{VARIABLE} is {value!r}; 1 asks for all steps of a core in one launch, 0 for a launch a step"
        )
    return value == "1"


@dataclass(frozen=True)
class Resident:
    """A compiled kernel, the sizes of the tiles in it, and how many of its programs fit on the device at once: none, and `why`,
    if it cannot be launched."""

    kernel: Any
    sizes: Sizes
    most_programs: int
    why: str = ""


@dataclass(frozen=True)
class Rows:
    """The rows of a kind in a run, and what its arguments are; `number` is that of their group in steps (None: there is one)."""

    group: RowGroup
    value: Callable[[RunArgument], Tensor | int | None]
    number: int | None = None


@dataclass(frozen=True)
class Given:
    """What a run gives: the rows of each kind, what is compiled for such arguments, and where it runs."""

    kinds: Sequence[Rows]
    compiled: dict[Any, Resident]  # by whether weights are kept, and the sizes, or their number, that were asked for
    device: torch.device
    stream: int
    multiprocessors: int
    precision: str


@dataclass(frozen=True)
class Form:
    """A core as one kernel: its source and its function."""

    written: PersistentSource
    function: Any

    def blocks(self, sizes: Sizes) -> list[int]:
        """The constants of tiles of these sizes."""
        pairs = zip(self.written.launches, sizes, strict=True)
        return [block for launch, size in pairs for block in launch.tile.blocks(size)]


@dataclass(eq=False)
class Persistent:
    """A core as one kernel, of a source for each kind. `last` says of the latest run why it was not taken; empty, if it was.
    `weights` says why programs did not keep their weights; empty, if they did, and None where there are none. `kinds` is of how
    many kinds the launch was."""

    sources: Sequence[Source]
    last: str | None = None
    weights: str | None = None
    kinds: int = 1
    works: WeakKeyDictionary[RowGroup, dict[bytes, tuple[Work, Tensor]]] = field(default_factory=WeakKeyDictionary)

    @cached_property
    def plain(self) -> Form:
        """The kernel that reads weights in every step, written when it is first asked for."""
        return self._form(keeps=False)

    @cached_property
    def kept(self) -> Form:
        """The kernel whose programs keep their weights."""
        return self._form(keeps=True)

    def _form(self, keeps: bool) -> Form:
        written = write_persistent(self.sources, keeps)
        return Form(written, getattr(load(written.text), written.name))

    def describe(self) -> str:
        """Of how many kinds the latest run in one launch was, and how it went about its weights."""
        kinds = f" of {self.kinds} kinds" if self.kinds > 1 else ""
        if self.weights is None:
            return kinds
        return f"{kinds}, weights " + (
            f"read in every step ({self.weights})" if self.weights else "kept in shared memory"
        )

    def note(self, of_all: Persistent) -> None:
        """Note how a run together with other kinds went."""
        self.last, self.weights, self.kinds = of_all.last, of_all.weights, len(of_all.sources)

    def run(self, given: Given, steps: Ints) -> bool:
        """Compute these steps, lines as in `Step`, in one launch; False if nothing was done, `last` says why.

        It is refused before it starts where fewer programs fit on the device at once than are launched, since programs wait for
        each other: at most the multiprocessors times what fits on each by registers and shared memory, as the driver says.
        """
        self.kinds = len(self.sources)
        if len(steps) < LEAST_STEPS:
            self.last = "a run of one step"
            return False
        work, lines = self._work(given, steps)
        if not len(work.lines):
            self.last = "no rows"
            return False
        self.last = self._launch(given, work, lines)
        return not self.last

    def _work(self, given: Given, steps: Ints) -> tuple[Work, Tensor]:
        """The stages of these steps, and their lines on the device; kept for each structure."""
        kept = self.works.setdefault(given.kinds[0].group, {})
        places = [number for rows in given.kinds for number in (rows.group.num_leaves, rows.group.start)]
        key = np.array(places).tobytes() + steps.tobytes()
        if key not in kept:
            kinds = [
                Kind(source.inner, source.leaf, rows.group.num_leaves, rows.group.start, rows.number)
                for source, rows in zip(self.sources, given.kinds, strict=True)
            ]
            work = work_of(kinds, steps)
            with rehearsal.interrupted(), torch.inference_mode(False):
                kept[key] = work, torch.from_numpy(work.lines).to(given.device, non_blocking=True)
        return kept[key]

    def _launch(self, given: Given, work: Work, lines: Tensor) -> str:
        """Launch the kernel, with weights kept where that is possible; returns why it was refused, or nothing."""
        run = _Run(given, work, lines)
        choice = keep.choose(work, run.programs_at_once, run.shared, given.precision)
        self.weights = choice.why if choice.sizes or choice.why else None
        if choice.sizes:
            self.weights = run.keeping(self.kept, choice.sizes)
            if not self.weights:
                return ""
        return run.reading(self.plain)


@dataclass(frozen=True)
class _Run:
    """One launch."""

    given: Given
    work: Work
    lines: Tensor

    @property
    def programs_at_once(self) -> int:
        """How many programs there can be that each have a multiprocessor."""
        return INTERPRETED_PROGRAMS if interprets() else self.given.multiprocessors

    @property
    def shared(self) -> int:
        """The bytes of shared memory that a program may have."""
        return INTERPRETED_SHARED if interprets() else shared_memory()

    def keeping(self, form: Form, choice: list[Sizes]) -> str:
        """Launch the kernel whose programs keep their weights, with the first sizes of `choice` with which it can be; returns why
        it was not launched, or nothing."""
        if interprets():
            self._interpret(form, choice[0], keep.programs_of(self.work, choice[0], self.programs_at_once))
            return ""
        key = True, choice[0]
        if key not in self.given.compiled:
            self.given.compiled[key] = self._compile_kept(form, choice)
        return self._start(form, key, keep.columns_of(self.work.launches, self.given.compiled[key].sizes))

    def reading(self, form: Form) -> str:
        """Launch the kernel that reads weights in every step; returns why it was not launched, or nothing."""
        number = self.work.size_number(self.given.multiprocessors)
        if interprets():
            sizes = sizes_at(self.work.launches, number)
            self._interpret(form, sizes, keep.programs_of(self.work, sizes, INTERPRETED_PROGRAMS))
            return ""
        key = False, number
        if key not in self.given.compiled:
            self.given.compiled[key] = self._compile(form, number)
        return self._start(form, key, 1)

    def _start(self, form: Form, key: Any, least: int) -> str:
        """Launch a compiled kernel, of at least `least` programs; returns why it was refused, or nothing."""
        resident = self.given.compiled[key]
        if resident.why:
            return resident.why
        programs = keep.programs_of(self.work, resident.sizes, resident.most_programs)
        if programs < least:
            return "none of its programs fits on a multiprocessor"
        values = self._arguments(form, resident.sizes, 0, len(self.work.lines))
        addresses = [value.data_ptr() if isinstance(value, Tensor) else value for value in values]
        try:
            resident.kernel[programs, 1, 1](*addresses, stream=self.given.stream)
        except RuntimeError as error:
            if "cooperative launch" not in str(error):
                raise
            self.given.compiled[key] = replace(resident, most_programs=0)  # others hold a part of the device
            return f"the driver refused {programs} programs at once"
        return ""

    def _interpret(self, form: Form, sizes: Sizes, programs: int) -> None:
        """Run the kernel in Triton's interpreter, in which several programs run one after the other, and cannot wait for each
        other: then a stage at a time."""
        count = len(self.work.lines) if programs == 1 else 1
        for at in range(0, len(self.work.lines), count):
            interpret(form, programs, self._arguments(form, sizes, at, at + count))

    def _arguments(self, form: Form, sizes: Sizes, first: int, end: int) -> tuple[Any, ...]:
        given = self.given
        pointers = [given.kinds[kind].value(pointer) for kind, pointer in form.written.pointers]
        meeting = meeting_place(given.device, given.stream)
        return (*pointers, self.lines, first, end, meeting, *form.blocks(sizes), given.precision)

    def _compile(self, form: Form, largest: int) -> Resident:
        """Compile with these sizes, or with the first smaller ones that do not spill."""
        for number in range(largest, most_sizes(self.work.launches)):
            sizes = sizes_at(self.work.launches, number)
            kernel = self._compiled(form, sizes)
            kernel.run  # noqa: B018 - loads it onto the device, which tells how much it spills
            if not kernel.n_spills:
                break
        return Resident(kernel, sizes, self.given.multiprocessors * _occupancy_of(kernel))

    def _compile_kept(self, form: Form, choice: list[Sizes]) -> Resident:
        """Compile with the first sizes with which weights are in shared memory, and nothing spills."""
        why = ""
        for sizes, options in itertools.product(choice, keep.REGISTERS):
            kernel, weights = self._compiled(form, sizes, **options), keep.surely_kept(self.work.launches, sizes)
            if not weights <= kernel.metadata.shared <= self.shared:
                why = f"compiled, it takes {kernel.metadata.shared} bytes of shared memory, {weights} of them weights"
                continue
            kernel.run  # noqa: B018 - as above
            if not kernel.n_spills:
                return Resident(kernel, sizes, self.given.multiprocessors * _occupancy_of(kernel))
            why = "it would spill"
        return Resident(None, choice[0], 0, why)

    def _compiled(self, form: Form, sizes: Sizes, **options: Any) -> Any:
        log.show("kernels", f"compiling {form.written.name}, tiles of {sizes}, unless Triton has kept it")
        arguments = self._arguments(form, sizes, 0, len(self.work.lines))
        return form.function.warmup(*arguments, grid=(1,), num_warps=WARPS, launch_cooperative_grid=True, **options)


def interpret(form: Form, programs: int, arguments: tuple[Any, ...]) -> None:
    """Run a kernel in Triton's interpreter."""
    form.function[programs, 1, 1](*arguments)


def shared_memory() -> int:
    """The bytes of shared memory that a program can keep weights in on the current device: none, if it is not one of NVIDIA's."""
    from triton.runtime import driver

    active = driver.active
    is_nvidia = active.get_current_target().backend == "cuda"
    return int(active.utils.get_device_properties(active.get_current_device())["max_shared_mem"]) if is_nvidia else 0


_meetings: dict[tuple[torch.device, int], Tensor] = {}


def meeting_place(device: torch.device, stream: int) -> Tensor:
    """The number of a barrier: one for each stream, whose launches come one after the other. A captured graph has its own, since
    it may be replayed beside other work."""

    def new() -> Tensor:
        with rehearsal.interrupted(), torch.inference_mode(False):
            return torch.zeros(1, dtype=torch.int32, device=device)

    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return new()
    if (device, stream) not in _meetings:
        _meetings[device, stream] = new()
    return _meetings[device, stream]


@functools.cache
def _driver() -> Any:
    """The CUDA driver; None where there is none."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def _occupancy_of(kernel: Any) -> int:
    return occupancy(int(kernel.function), int(kernel.metadata.shared))


def occupancy(function: int, shared: int) -> int:
    """How many programs of a kernel fit on one multiprocessor, as the driver says; 0 if it cannot."""
    driver, count = _driver(), ctypes.c_int()
    if driver is None:
        return 0
    ask = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor
    code = ask(ctypes.byref(count), ctypes.c_void_p(function), ctypes.c_int(32 * WARPS), ctypes.c_size_t(shared))
    return count.value if code == 0 else 0
