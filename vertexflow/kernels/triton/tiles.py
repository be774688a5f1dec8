"""How large the tile of one program is: by a rule, so that nothing is tuned at the first call."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARPS = 4
SIZES = ((64, 64), (64, 32), (32, 32), (16, 32), (16, 16))  # rows and columns of a program that has products
KEPT_SIZES = ((32, 32), (16, 32), (32, 16), (16, 16), (32, 8), (16, 8))  # of a program that keeps its weights
ACROSS = 128  # columns of a program without products, at most
REGISTERS = 40  # of each thread for accumulators, at most


@dataclass(frozen=True)
class Tile:
    """The tiles of a kernel whose rows have `columns` elements: the first of `sizes` (rows, columns of a program) that gives all
    multiprocessors work and does not spill. Products go over `block_k` columns of their operand at a time."""

    columns: int
    block_k: int
    sizes: tuple[tuple[int, int], ...]

    def size(self, rows: int, multiprocessors: int) -> tuple[int, int]:
        """The rows and columns of a program in a step of `rows` rows."""
        return next(
            (size for size in self.sizes if math.prod(self.grid(rows, size)) >= multiprocessors), self.sizes[-1]
        )

    def grid(self, rows: int, size: tuple[int, int]) -> tuple[int, int]:
        """How many programs of this size there are, down and across, for `rows` rows."""
        return -(-rows // size[0]), -(-self.columns // size[1])

    def kept_size(self, number: int) -> tuple[int, int]:
        """The rows and columns of a program that keeps its weights: one of `KEPT_SIZES`, but no larger than others are."""
        (height, width), (most_rows, most_columns) = KEPT_SIZES[number], self.sizes[0]
        return min(height, most_rows), min(width, most_columns)

    def blocks(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """BLOCK_M, BLOCK_N and BLOCK_K of a kernel whose programs are of this size."""
        return *size, self.block_k


def power_of_two(count: int) -> int:
    """The least power of two that is not less than `count`."""
    return 1 << max(count - 1, 0).bit_length()


def choose(columns: int, accumulators: int, widest: int) -> Tile:
    """The tile of a kernel with this number of accumulators, and with `widest` further elements of a row in registers.

    A program has 128 threads. Accumulators leave registers for what is computed from them; without accumulators a thread has
    4 elements, one load of 16 bytes in float32. A step of few rows uses smaller tiles: the time of one program is the time
    of the step.
    """
    if not accumulators:
        block_n = min(power_of_two(columns), ACROSS)
        return Tile(columns, 16, ((min(512 // block_n, max(2048 // widest, 1)), block_n),))
    rows, most = 64 if widest == 1 else 16, max(power_of_two(columns), 16)
    sizes = dict.fromkeys((height, min(width, most)) for height, width in SIZES if height <= rows)
    fitting = [size for size in sizes if accumulators * math.prod(size) <= REGISTERS * 32 * WARPS]
    return Tile(columns, 32, tuple(fitting))
