"""The peak of memory of one step."""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Callable
from pathlib import Path


def peak(run: Callable[[], object], times: int = 3) -> int | None:
    """By how many bytes the resident memory of the process rises at most while `run` runs; the median of some runs.

    What the C library keeps of freed memory is given back before, so that all memory that `run` touches counts, whoever
    asks for it: PyTorch, or native code beside it. Linux only, else None.
    """
    rises = []
    for _ in range(times):
        try:
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark begins again
        except (AttributeError, OSError):
            return None
        before = _status("VmRSS")
        run()
        rises.append(_status("VmHWM") - before)
    return int(statistics.median(rises))


def _status(field: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024
