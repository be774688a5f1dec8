"""A GPU of compute capability 9.0 that is not there: Triton compiles for it as ever, and what is launched does nothing.

Tensors lie on the CPU. Triton must compile in this process, not interpret.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

from vertexflow.kernels import triton
from vertexflow.kernels.triton import loop

MULTIPROCESSORS = 132
FUNCTION = 1  # of every kernel


class Launcher:
    """Instead of the one that Triton makes for a compiled kernel."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self.source, self.metadata = source, metadata

    def __call__(self, *arguments: Any) -> None:
        """Launch nothing."""


class Utils:
    """What Triton asks of a device."""

    def load_binary(self, *_: Any) -> tuple[object, int, int, int, int]:
        """A module and its function, registers, spills and the most threads."""
        return object(), FUNCTION, 0, 0, 1024

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232_448}


class Driver:
    """Triton's driver of this GPU."""

    def __init__(self, launcher: type[Launcher] = Launcher, utils: Utils | None = None) -> None:
        self.launcher_cls, self.utils = launcher, utils or Utils()

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@contextmanager
def absent_gpu(driver: Driver | None = None, stream: int = 0) -> Iterator[None]:
    """The backend `triton` runs on it, with tensors of the CPU."""
    from triton.runtime import driver as active

    active.set_active(driver or Driver())  # type: ignore[no-untyped-call]
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(triton, "interprets", return_value=True))  # tensors may lie on the CPU
        patches.enter_context(mock.patch.object(loop, "_device", return_value=nullcontext((stream, MULTIPROCESSORS))))
        yield


def nothing() -> int:
    """The address of a function that can be called as the driver's to launch kernels, and does nothing: C's `isalpha`, which
    looks at its first argument only, returns 0 for `FUNCTION`."""
    return ctypes.cast(ctypes.CDLL(None).isalpha, ctypes.c_void_p).value or 0
