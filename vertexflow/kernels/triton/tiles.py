"""How large a piece of a kernel's work one program does: a rule, so that nothing has to be tuned at the first call."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARPS = 4
SIZES = ((64, 64), (64, 32), (32, 32), (16, 32), (16, 16))  # rows and columns of a program that has products
ACROSS = 128  # columns of a program without products, at most
REGISTERS = 40  # of each thread for accumulators, at most


@dataclass(frozen=True)
class Tile:
    """Of `columns` elements a row, a program computes as many, of as many rows, as the first of `sizes` (rows, columns) with
    which all multiprocessors have work, and nothing spills; products go over `block_k` of their operand at a time."""

    columns: int
    block_k: int
    sizes: tuple[tuple[int, int], ...]

    def size(self, rows: int, multiprocessors: int) -> tuple[int, int]:
        """The rows and columns of a program in a step of so many rows."""
        return next(
            (size for size in self.sizes if math.prod(self.grid(rows, size)) >= multiprocessors), self.sizes[-1]
        )

    def grid(self, rows: int, size: tuple[int, int]) -> tuple[int, int]:
        """The programs of this size, down and across, for so many rows."""
        return -(-rows // size[0]), -(-self.columns // size[1])

    def blocks(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """BLOCK_M, BLOCK_N and BLOCK_K of a kernel whose programs are of this size."""
        return *size, self.block_k


def power_of_two(count: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(count - 1, 0).bit_length()


def choose(columns: int, accumulators: int, widest: int) -> Tile:
    """The tile of a kernel with so many accumulators, and rows of so many elements in registers besides.

    A program has 128 threads. Accumulators leave room in their registers for what is computed from them; without
    accumulators a thread has 4 elements, which are one load of 16 bytes in float32. A step of few rows has more programs in
    smaller pieces: what one takes is the time of the step.
    """
    if not accumulators:
        block_n = min(power_of_two(columns), ACROSS)
        return Tile(columns, 16, ((min(512 // block_n, max(2048 // widest, 1)), block_n),))
    rows, most = 64 if widest == 1 else 16, max(power_of_two(columns), 16)
    sizes = dict.fromkeys((height, min(width, most)) for height, width in SIZES if height <= rows)
    fitting = [size for size in sizes if accumulators * math.prod(size) <= REGISTERS * 32 * WARPS]
    return Tile(columns, 32, tuple(fitting))
