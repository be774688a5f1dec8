"""What a persistent kernel does: a line for each stage, which is one kernel of one step, in the order of execution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...binding import Numbers
from ...order import Ints
from ..source import Launch

WIDTH = 8  # numbers of a line, of which the last is not used
FIXED = 64  # what a tile takes beside its elements, in elements: counted from instructions, see docs/performance.md

Chosen = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
Sizes = tuple[tuple[int, int], ...]  # rows and columns of a tile of each kernel


@dataclass(frozen=True)
class Choice:
    """The sizes of tiles with which weights are kept, the best first; none, and `why`, where they are not. `why` is empty as well
    where there are no weights."""

    sizes: list[Sizes]
    why: str = ""


@dataclass(frozen=True)
class Work:
    """The stages of a run over some steps.

    Attributes:
        lines: [stages, 8]: the number of the kernel (those of steps with children, then those of leaves), `start`, `inner`,
            `absolute`, `edge_start` and `rows` as a launch a step has them, and 1 where programs must meet before the next stage.
        launches: the kernels.
        choices: those that `keep.choose` made, by where the run is.
    """

    lines: Ints
    launches: Sequence[Launch]
    choices: dict[tuple[int, int, str], Choice] = field(default_factory=dict, compare=False)

    def tiles(self, sizes: Sizes) -> Numbers:
        """How many tiles each stage has, whose kernels have tiles of these sizes."""
        height, width = np.array(sizes, np.int64).T
        columns = np.array([launch.tile.columns for launch in self.launches], np.int64)
        kernel, rows = self.lines[:, 0], self.lines[:, 5].astype(np.int64)
        tiles: Numbers = -(-rows // height[kernel]) * -(-columns // width)[kernel]
        return tiles

    def size_number(self, multiprocessors: int) -> int:
        """Which of the sizes of all tiles to take: the one with which the stages are predicted to take the least time, one after
        the other, with a program on each multiprocessor."""

        def time(number: int) -> float:
            sizes = sizes_at(self.launches, number)
            area = np.array([math.prod(size) for size in sizes], np.int64)[self.lines[:, 0]]
            return float((-(-self.tiles(sizes) // multiprocessors) * (area + FIXED)).sum())

        return min(range(most_sizes(self.launches)), key=time)


def most_sizes(launches: Sequence[Launch]) -> int:
    """How many sizes there are to choose from."""
    return max(len(launch.tile.sizes) for launch in launches)


def sizes_at(launches: Sequence[Launch], number: int) -> Sizes:
    """The sizes of the tiles of all kernels, from large ones (0) to small ones."""
    return tuple(launch.tile.sizes[min(number, len(launch.tile.sizes) - 1)] for launch in launches)


@dataclass(frozen=True)
class Kind:
    """The kernels of steps of one kind: with children (`inner`) or without (`leaf`); the number of leaves of its group of rows,
    the group's first row in a state, and its number in the lines of steps (None: all steps are of this kind)."""

    inner: Sequence[Launch]
    leaf: Sequence[Launch]
    num_leaves: int
    group_start: int
    number: int | None = None


def work_of(kinds: Sequence[Kind], steps: Ints) -> Work:
    """The stages of steps, lines as in `Step`, with the kernels of all kinds numbered one kind after the other; stages without
    rows are left out.

    Programs meet between stages of different steps, and between those of different levels in a step.
    """
    launches: list[Launch] = []
    tables = []
    for kind in kinds:
        of_kind = steps[:, 4] == kind.number if kind.number is not None else np.ones(len(steps), bool)
        tables += _stages(kind, steps, of_kind, len(launches))
        launches += [*kind.inner, *kind.leaf]
    all_lines = np.concatenate(tables) if tables else np.zeros((0, 8), np.int64)
    all_lines = all_lines[np.lexsort((all_lines[:, 2], all_lines[:, 0]))]  # by step, then by kernel
    lines = np.zeros((len(all_lines), WIDTH), np.int32)
    lines[:, :6] = all_lines[:, 2:]
    lines[:-1, 6] = (all_lines[1:, :2] != all_lines[:-1, :2]).any(1)
    return Work(lines, launches)


def _stages(kind: Kind, steps: Ints, of_kind: Chosen, first: int) -> list[Numbers]:
    """For each kernel of a kind, the first of which has number `first`: the step, the level and the line of each stage."""
    start, stop, edge_start, edge_stop = (steps[:, column].astype(np.int64) for column in (0, 1, 5, 6))
    is_inner = start >= kind.num_leaves
    tables = []
    for number, launch in enumerate([*kind.inner, *kind.leaf]):
        rows = edge_stop - edge_start if launch.on_edges else stop - start
        (step,) = np.nonzero(of_kind & (is_inner == (number < len(kind.inner))) & (rows > 0))
        numbers = (start, start - kind.num_leaves, start + kind.group_start, edge_start, rows)
        columns = [np.full_like(step, first + number), *(each[step] for each in numbers)]
        tables.append(np.stack([step, np.full_like(step, launch.level), *columns], 1))
    return tables
