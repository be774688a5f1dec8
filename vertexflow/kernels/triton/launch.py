"""One kernel of a step: compiled, and at first launched, by Triton; then the native core has what it needs to launch it."""

from __future__ import annotations

import ctypes
import functools
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ... import log
from ..arguments import Stride
from ..binding import Numbers
from .source import INTEGERS, Launch
from .tiles import WARPS

Size = tuple[int, int]  # rows and columns of a program
Native = tuple[bool, int, Numbers, Numbers]  # whether its rows are edges, its columns, its variants, its arguments


@dataclass(eq=False)
class Binaries:
    """A kernel as compiled for one device and one alignment of its arguments. `kernels` has, by the size that its programs should
    have, the size that they have (smaller, if that would spill) and the compiled kernel. `variants` is the same for the native
    core: both sizes, the driver's function (0: not compiled, or Triton must launch it) and the bytes of shared memory."""

    launch: Launch
    kernels: dict[Size, tuple[Size, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.variants = np.array([[*size, *size, 0, 0] for size in self.launch.tile.sizes], np.int64)

    def add(self, size: Size, own_size: Size, kernel: Any, bits: list[int]) -> None:
        """Keep a compiled kernel; `bits` are those of its arguments."""
        self.kernels[size] = own_size, kernel
        line = self.variants[self.launch.tile.sizes.index(size)]
        line[2:4], line[5] = own_size, kernel.metadata.shared
        line[4] = function_of(kernel, bits)  # last, since another thread may launch the kernel as soon as it is there


@dataclass(frozen=True)
class Call:
    """A kernel with its pointers; `binaries` are None in the interpreter."""

    function: Any
    launch: Launch
    pointers: tuple[Tensor | int | None, ...]
    precision: str
    binaries: Binaries | None

    @functools.cached_property
    def addresses(self) -> tuple[int | None, ...]:
        """The pointers as a compiled kernel takes them."""
        return tuple(value.data_ptr() if isinstance(value, Tensor) else value for value in self.pointers)

    def start(self, rows: int, numbers: tuple[int, ...], stream: int, multiprocessors: int) -> None:
        """Launch the kernel for `rows` rows by Triton, compiled first if it is not yet."""
        tile = self.launch.tile
        size = tile.size(rows, multiprocessors)
        kernel, pointers, options = self.function, self.pointers, {}
        if self.binaries is not None:
            if size not in self.binaries.kernels:
                self._compile(self.binaries, size, numbers)
            size, kernel = self.binaries.kernels[size]
            pointers, options = self.addresses, {"stream": stream}
        down, across = tile.grid(rows, size)
        kernel[down, across, 1](*pointers, *numbers, *tile.blocks(size), self.precision, **options)

    def _compile(self, binaries: Binaries, largest: Size, numbers: tuple[int, ...]) -> None:
        tile = self.launch.tile
        for size in tile.sizes[tile.sizes.index(largest) :]:
            log.show("kernels", f"compiling {self.launch.name}, tiles of {size}, unless Triton has kept it")
            arguments = (*self.pointers, *numbers, *tile.blocks(size), self.precision)
            kernel = self.function.warmup(*arguments, grid=(1,), num_warps=WARPS)
            kernel.run  # noqa: B018 - loads it onto the device, which tells how much it spills
            if not kernel.n_spills:
                break
        bits = [32 if isinstance(argument, Stride) else 64 for argument in self.launch.pointers]
        sizes = zip(bits, self.pointers, strict=True)
        binaries.add(largest, size, kernel, [n for n, value in sizes if value is not None and (n, value) != (32, 1)])


def function_of(kernel: Any, bits: list[int]) -> int:
    """The driver's function of a compiled kernel, if its arguments have these bits, followed by the numbers of a step and up to
    two pointers that Triton adds (which no kernel here uses); 0 if not, or if a launch needs anything else."""
    metadata = kernel.metadata
    is_plain = metadata.num_ctas == 1 and metadata.num_warps == WARPS and "ptx" in kernel.asm
    needs = ("launch_cooperative_grid", "launch_pdl", "global_scratch_size", "profile_scratch_size")
    if not is_plain or any(getattr(metadata, need, True) for need in needs):
        return 0
    head = kernel.asm["ptx"].partition(".entry")[2].partition(")")[0]
    actual = list(map(int, re.findall(r"\.param \.[a-z](\d+)", head)))
    expected = [*bits, *[32] * len(INTEGERS)]
    if actual[: len(expected)] != expected or actual[len(expected) :] not in ([], [64], [64, 64]):
        return 0
    return int(kernel.function)


@functools.cache
def driver() -> int:
    """The address of the CUDA driver's function that launches kernels; 0 where there is none."""
    try:
        return ctypes.cast(ctypes.CDLL("libcuda.so.1").cuLaunchKernel, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0


def is_watched() -> bool:
    """Whether a profiler or the like asked Triton to be told of launches."""
    from triton import knobs

    hooks = (knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook)
    return any(getattr(hook, "calls", hook) for hook in hooks)
