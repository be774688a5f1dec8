"""The peak of memory of one step."""

from __future__ import annotations

import ctypes
import gc
import statistics
from collections.abc import Callable
from pathlib import Path

MMAP_THRESHOLD = -3  # the number of this option of glibc's mallopt
SMALL = 64 * 1024


def peak(run: Callable[[], object], make_room: Callable[[], object], times: int = 3) -> int | None:
    """By how many bytes the resident memory of the process rises at most while `run` runs; the median of some runs.

    `make_room` lets go of what earlier runs left. All memory that `run` touches counts, whoever asks for it: PyTorch, or
    native code beside it. For that, the C library is told to keep no freed memory but small pieces, from here on, which
    makes whatever follows in this process slower. Linux with glibc only, else None.
    """
    rises = []
    for _ in range(times):
        make_room()
        gc.collect()
        try:
            library = ctypes.CDLL(None)
            library.mallopt(MMAP_THRESHOLD, SMALL)
            library.malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark begins again
        except (AttributeError, OSError):
            return None
        before = _status("VmRSS")
        run()
        rises.append(_status("VmHWM") - before)
    return int(statistics.median(rises))


def _status(field: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024
