"""One launch for many steps, where its programs fit on the device at once; else the caller launches each step."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

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
from .source import PersistentSource, write_persistent
from .work import Sizes, Work, most_sizes, sizes_at, work_of

VARIABLE = "VERTEXFLOW_ONE_LAUNCH"
LEAST_STEPS = 2  # with which one launch is taken: with one step there is nothing to save
INTERPRETED_PROGRAMS = 3  # the interpreter runs one after the other: enough that they share tiles


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
    """A compiled kernel, the sizes of the tiles in it, and how many of its programs fit on the device at once."""

    kernel: Any
    sizes: Sizes
    most_programs: int


@dataclass(frozen=True)
class Given:
    """What a run gives: its rows, what its arguments are, what is compiled for such arguments, and where it runs."""

    group: RowGroup
    value: Callable[[RunArgument], Tensor | int | None]
    compiled: dict[int, Resident]  # by the number of the sizes that were asked for
    device: torch.device
    stream: int
    multiprocessors: int
    precision: str


@dataclass(eq=False)
class Persistent:
    """A core as one kernel. `last` says of the latest run why it was not taken; empty, if it was."""

    source: Source
    last: str | None = None
    works: WeakKeyDictionary[RowGroup, dict[bytes, tuple[Work, Tensor]]] = field(default_factory=WeakKeyDictionary)

    @cached_property
    def written(self) -> PersistentSource:
        """Its source, written when it is first asked for."""
        return write_persistent(self.source)

    @cached_property
    def function(self) -> Any:
        return getattr(load(self.written.text), self.written.name)

    def run(self, given: Given, steps: Ints) -> bool:
        """Compute these steps, lines as in `Step`, in one launch; False if nothing was done, `last` says why.

        It is refused before it starts where fewer programs fit on the device at once than are launched, since programs wait for
        each other: at most the multiprocessors times what fits on each by registers and shared memory, as the driver says.
        """
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
        kept = self.works.setdefault(given.group, {})
        key = steps.tobytes()
        if key not in kept:
            group = given.group
            work = work_of(self.source.inner, self.source.leaf, steps, group.num_leaves, group.start)
            with rehearsal.interrupted(), torch.inference_mode(False):
                kept[key] = work, torch.from_numpy(work.lines).to(given.device, non_blocking=True)
        return kept[key]

    def _launch(self, given: Given, work: Work, lines: Tensor) -> str:
        """Launch the kernel; returns why it was refused, or nothing."""
        pointers = [given.value(pointer) for pointer in self.written.pointers]
        meeting = meeting_place(given.device, given.stream)
        number = work.size_number(given.multiprocessors)

        def arguments(sizes: Sizes, first: int, end: int) -> tuple[Any, ...]:
            return (*pointers, lines, first, end, meeting, *self._blocks(sizes), given.precision)

        if interprets():
            sizes = sizes_at(work.launches, number)
            programs = min(int(work.tiles(sizes).max()), INTERPRETED_PROGRAMS)
            count = (
                len(work.lines) if programs == 1 else 1
            )  # several run one after the other, and cannot wait for each other
            for at in range(0, len(work.lines), count):
                self.interpret(programs, arguments(sizes, at, at + count))
            return ""
        end = len(work.lines)
        if number not in given.compiled:
            given.compiled[number] = self._compile(
                number, lambda sizes: arguments(sizes, 0, end), given.multiprocessors
            )
        resident = given.compiled[number]
        programs = min(int(work.tiles(resident.sizes).max()), resident.most_programs)
        if programs < 1:
            return "none of its programs fits on a multiprocessor"
        values = arguments(resident.sizes, 0, end)
        addresses = [value.data_ptr() if isinstance(value, Tensor) else value for value in values]
        try:
            resident.kernel[programs, 1, 1](*addresses, stream=given.stream)
        except RuntimeError as error:
            if "cooperative launch" not in str(error):
                raise
            given.compiled[number] = Resident(resident.kernel, resident.sizes, 0)  # others hold a part of the device
            return f"the driver refused {programs} programs at once"
        return ""

    def interpret(self, programs: int, arguments: tuple[Any, ...]) -> None:
        """Run the kernel in Triton's interpreter."""
        self.function[programs, 1, 1](*arguments)

    def _blocks(self, sizes: Sizes) -> list[int]:
        return [
            block
            for launch, size in zip(self.written.launches, sizes, strict=True)
            for block in launch.tile.blocks(size)
        ]

    def _compile(self, largest: int, arguments: Callable[[Sizes], Sequence[Any]], multiprocessors: int) -> Resident:
        """Compile with these sizes, or with the first smaller ones that do not spill."""
        for number in range(largest, most_sizes(self.written.launches)):
            sizes = sizes_at(self.written.launches, number)
            log.show("kernels", f"compiling {self.written.name}, tiles of {sizes}, unless Triton has kept it")
            kernel = self.function.warmup(*arguments(sizes), grid=(1,), num_warps=WARPS, launch_cooperative_grid=True)
            kernel.run  # noqa: B018 - loads it onto the device, which tells how much it spills
            if not kernel.n_spills:
                break
        return Resident(kernel, sizes, multiprocessors * occupancy(int(kernel.function), int(kernel.metadata.shared)))


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


def occupancy(function: int, shared: int) -> int:
    """How many programs of a kernel fit on one multiprocessor, as the driver says; 0 if it cannot."""
    driver, count = _driver(), ctypes.c_int()
    if driver is None:
        return 0
    ask = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor
    code = ask(ctypes.byref(count), ctypes.c_void_p(function), ctypes.c_int(32 * WARPS), ctypes.c_size_t(shared))
    return count.value if code == 0 else 0
