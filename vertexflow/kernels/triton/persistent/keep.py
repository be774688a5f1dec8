"""Whether programs of a persistent kernel keep their weights in shared memory, and how large their tiles are then: by a rule.

A program that keeps weights has the same columns in all stages of a kernel; programs with the same columns share the rows of a
stage. All products of a core are kept, or none is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ...binding import Numbers
from ..source import Launch
from ..tiles import KEPT_SIZES, WARPS
from .work import FIXED, Choice, Sizes, Work, sizes_at

OTHERS = 4096  # bytes of shared memory for sums and the like
LEAST_STAGES = 4  # of a kernel that keeps its weights: the first reads them as ever
MOST_COMPILED = 3  # sizes that are tried, should the first ones spill: compiling takes ten seconds
MOST_WRITTEN = 4096  # multiply-adds of a thread in a tile, which are written one by one: 64 KiB of instructions
# What the compiler is told of registers: nothing; and if it spills, to take all that there are.
REGISTERS: tuple[dict[str, int], ...] = ({}, {"maxnreg": 255})


def choose(work: Work, multiprocessors: int, shared: int, precision: str) -> Choice:
    """Whether and how to keep weights in a run, with `shared` bytes of shared memory for a program on each multiprocessor, and
    products of float32 in this precision.

    They are kept where those of a program fit into shared memory, beside the rows that it multiplies with them; where, without
    instructions for whole matrices, the products of a tile are not too many instructions; where there are steps enough, and a
    program for each tile of columns; and where fewer bytes are read than without keeping them. Of the sizes with which that is
    so, those come first with which the stages are predicted to take the least time.
    """
    key = multiprocessors, shared, precision
    if key not in work.choices:
        work.choices[key] = _choice(work, multiprocessors, shared, precision)
    return work.choices[key]


def _choice(work: Work, multiprocessors: int, shared: int, precision: str) -> Choice:
    if not any(launch.kept for launch in work.launches):
        return Choice([])
    if not shared:
        return Choice([], "kept on NVIDIA's GPUs only")
    if max(len(_rows(work, number)) for number, launch in enumerate(work.launches) if launch.kept) < LEAST_STAGES:
        return Choice([], "too few steps")
    fitting = sizes_that_fit(work.launches, shared, precision)
    if not fitting:
        return Choice([], _why_none_fits(work.launches, shared, precision))
    with_programs = [sizes for sizes in fitting if columns_of(work.launches, sizes) <= multiprocessors]
    if not with_programs:
        least = min(columns_of(work.launches, sizes) for sizes in fitting)
        return Choice([], f"they are in {least} tiles of columns, and {multiprocessors} programs fit at once")
    without = _read(work, sizes_at(work.launches, work.size_number(multiprocessors)), None)
    times = {sizes: _time(work, sizes, multiprocessors) for sizes in with_programs}
    best = [sizes for sizes in with_programs if _read(work, sizes, multiprocessors) < without]
    return Choice(sorted(best, key=times.__getitem__)[:MOST_COMPILED], "" if best else "more would be read, of rows")


def kept_sizes(launches: Sequence[Launch]) -> list[Sizes]:
    """The sizes of the tiles of all kernels with which weights can be kept, from large ones to small ones."""
    sizes = [
        tuple(launch.tile.kept_size(number) if launch.kept else launch.tile.sizes[0] for launch in launches)
        for number in range(len(KEPT_SIZES))
    ]
    return list(dict.fromkeys(sizes))


def sizes_that_fit(launches: Sequence[Launch], shared: int, precision: str) -> list[Sizes]:
    """Those of `kept_sizes` with which a program has room for its weights, and not too many instructions."""
    return [
        sizes
        for sizes in kept_sizes(launches)
        if _memory_of(launches, sizes) <= shared and _written_of(launches, sizes, precision) <= MOST_WRITTEN
    ]


def _why_none_fits(launches: Sequence[Launch], shared: int, precision: str) -> str:
    least = min(kept_sizes(launches), key=lambda sizes: _memory_of(launches, sizes))
    if (memory := _memory_of(launches, least)) > shared:
        return f"with its rows a program would take {memory / 1024:.0f} KiB of shared memory, and there are {shared / 1024:.0f}"
    written = min(_written_of(launches, sizes, precision) for sizes in kept_sizes(launches))
    return f"a tile would be {written} multiply-adds of each thread, and {MOST_WRITTEN} are written at most"


def _memory_of(launches: Sequence[Launch], sizes: Sizes) -> int:
    """The bytes of shared memory that a program takes."""
    rows = (launch.kept.ahead * size[0] for launch, size in zip(launches, sizes, strict=True) if launch.kept)
    return weights_of(launches, sizes) + max(rows) + OTHERS


def _written_of(launches: Sequence[Launch], sizes: Sizes, precision: str) -> int:
    """The multiply-adds of a thread in a tile, but for those of instructions that multiply whole matrices."""
    most = 0
    for launch, size in zip(launches, sizes, strict=True):
        for dtype, count in launch.kept.of_element.items() if launch.kept else ():
            if dtype == torch.float64 or (dtype == torch.float32 and precision == "ieee"):
                most = max(most, count * math.prod(size) // (32 * WARPS))
    return most


def weights_of(launches: Sequence[Launch], sizes: Sizes) -> int:
    """The bytes of weights that a program keeps, at most: what is the same in several kernels is kept once."""
    return sum(_weights_of_each(launches, sizes))


def surely_kept(launches: Sequence[Launch], sizes: Sizes) -> int:
    """The bytes of weights that a program keeps at least: those of one kernel."""
    return max(_weights_of_each(launches, sizes))


def _weights_of_each(launches: Sequence[Launch], sizes: Sizes) -> list[int]:
    return [launch.kept.of_column * size[1] for launch, size in zip(launches, sizes, strict=True) if launch.kept]


def columns_of(launches: Sequence[Launch], sizes: Sizes) -> int:
    """How many tiles of columns there are, each of which needs a program."""
    return max(-(-launch.tile.columns // size[1]) for launch, size in zip(launches, sizes, strict=True) if launch.kept)


def programs_of(work: Work, sizes: Sizes, most: int) -> int:
    """How many programs to launch, of at most `most`: as many as have work in the largest stage."""
    return min(int(work.tiles(sizes).max()), most)


def _time(work: Work, sizes: Sizes, multiprocessors: int) -> float:
    """The predicted time of all stages, as in `Work.size_number`."""
    total = 0.0
    for number, (launch, size) in enumerate(zip(work.launches, sizes, strict=True)):
        rows = _rows(work, number)
        across = -(-launch.tile.columns // size[1])
        down = -(-rows // size[0])
        rounds = -(-down // (multiprocessors // across)) if launch.kept else -(-down * across // multiprocessors)
        total += float(rounds.sum()) * (math.prod(size) + FIXED)
    return total


def _read(work: Work, sizes: Sizes, kept_by: int | None) -> float:
    """The bytes that products read: left operands for each tile of columns, and weights for each tile of rows, or, if programs on
    `kept_by` multiprocessors keep them, once for each program."""
    total = 0.0
    for number, (launch, size) in enumerate(zip(work.launches, sizes, strict=True)):
        rows = _rows(work, number)
        if launch.kept is None or not len(rows):
            continue
        across, down = -(-launch.tile.columns // size[1]), -(-rows // size[0])
        times = int(down.sum()) if kept_by is None else min(int(down.max()), kept_by // across)
        total += times * launch.tile.columns * launch.kept.of_column
        total += float(rows.sum()) * across * launch.kept.of_row
    return total


def _rows(work: Work, number: int) -> Numbers:
    """The rows of all stages of a kernel."""
    rows: Numbers = work.lines[work.lines[:, 0] == number, 5].astype(np.int64)
    return rows
