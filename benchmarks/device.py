"""One run on its device: how long it takes, and the peak of its memory."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

MMAP_THRESHOLD = -3  # the number of this option of glibc's mallopt
SMALL = 64 * 1024


def seconds_of(run: Callable[[], object], device: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """How long a run takes by a clock; on a GPU between two events around it, so that waiting for the host counts, too."""
    if device != "cuda":
        start = clock()
        run()
        return clock() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3


def graphed(run: Callable[[], object]) -> Callable[[], object]:
    """The same as a CUDA graph, captured once after warm-up: launches cost the host nothing any more."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def peak(run: Callable[[], object], make_room: Callable[[], object], device: str = "cpu", times: int = 3) -> int | None:
    """By how many bytes memory rises at most while `run` runs; the median of some runs.

    `make_room` lets go of what earlier runs left. On a GPU that is what PyTorch's allocator gives out. On a CPU it is the
    resident memory of the process: all memory that `run` touches counts, whoever asks for it, PyTorch or native code beside it.
    For that, the C library is told to keep no freed memory but small pieces, from here on, which makes whatever follows in
    this process slower. Linux with glibc only, else None.
    """
    rises = []
    for _ in range(times):
        make_room()
        gc.collect()
        rise = _rise_on_gpu(run) if device == "cuda" else _rise_of_process(run)
        if rise is None:
            return None
        rises.append(rise)
    return int(statistics.median(rises))


def _rise_on_gpu(run: Callable[[], object]) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def _rise_of_process(run: Callable[[], object]) -> int | None:
    try:
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, SMALL)
        library.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark begins again
    except (AttributeError, OSError):
        return None
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def status(field: str) -> int:
    """A size that Linux tells of this process, in bytes."""
    return size_in(Path("/proc/self/status").read_text(), field)


def size_in(text: str, field: str) -> int:
    """The same in what Linux told at some moment."""
    return int(text.split(f"{field}:")[1].split()[0]) * 1024
