"""How large a piece of a kernel's work one program does: a rule, so that nothing has to be tuned at the first call."""

from __future__ import annotations

from dataclasses import dataclass

WARPS = 4


@dataclass(frozen=True)
class Tile:
    """`columns` elements a row, `block_n` of them a program; products go over `block_k` of their operand at a time. A
    program has as many rows as the largest of `heights` with which all multiprocessors have work, and nothing spills."""

    columns: int
    block_n: int
    block_k: int
    heights: tuple[int, ...]

    def height(self, rows: int, multiprocessors: int) -> int:
        """The rows of a program in a step of so many."""
        across = -(-self.columns // self.block_n)
        enough = (height for height in self.heights if -(-rows // height) * across >= multiprocessors)
        return next(enough, self.heights[-1])

    def blocks(self, height: int) -> tuple[int, int, int]:
        """BLOCK_M, BLOCK_N and BLOCK_K of a kernel with so many rows a program."""
        return height, self.block_n, self.block_k


def power_of_two(count: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(count - 1, 0).bit_length()


def choose(columns: int, accumulators: int, widest: int) -> Tile:
    """The tile of a kernel with so many accumulators, and rows of so many elements in registers besides.

    A program has 128 threads. Accumulators take 40 registers of each at most, so that there is room for what is
    computed from them; without accumulators a thread has 4 elements, which are one load of 16 bytes in float32.
    """
    if accumulators:
        block_n = 32 if columns > 16 else 16
        heights = (32, 16) if accumulators <= 5 and widest == 1 else (16,)
        return Tile(columns, block_n, 32, heights)
    block_n = min(power_of_two(columns), 128)
    height = min(512 // block_n, max(2048 // widest, 1))
    return Tile(columns, block_n, 16, (height,))
