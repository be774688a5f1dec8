"""Products with weights that a program keeps: it loads its columns of them once, before all steps, which multiply with them.

A program loads `kept`, a tuple of blocks [BLOCK_N, BLOCK_K], rows of the transposed weights, and its tiles multiply with the
transposed blocks. Written so, Triton stores the blocks in shared memory before the loop over steps, and reads operands of
`tl.dot` from there: such stores depend on nothing in the loop, so that they are moved out of it, while reads stay where they are.
(Blocks that are multiplied as they were loaded would be moved out of the loop as operands, all of them, in registers, and spill.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import fx

from ..lower.index import index_of
from .body import KernelWriter
from .plan import factors
from .products import Tiles, by_operand, dot_operand, pieces_of, write_zeros

AHEAD = 256  # columns of a left operand that are loaded together, since a program waits for them in every step


@dataclass(frozen=True)
class Kept:
    """A kernel whose weights are kept.

    Attributes:
        weights: the lines that load `kept`, for the columns `tile_column` of programs.
        lines: the body, which computes one tile with `kept`.
        of_column: the bytes of weights for one column of a tile.
        of_row: the bytes of left operands that a tile reads for each of its rows; and `ahead`, how many of them together.
        of_element: by the dtype of products, the multiply-adds for one element of a tile.
    """

    weights: list[str]
    lines: list[str]
    of_column: int
    of_row: int
    ahead: int
    of_element: dict[torch.dtype, int]


def written_kept(new_writer: Callable[[], KernelWriter]) -> Kept:
    """A kernel with products, which `new_writer` writes, in this form."""
    writer, loader = new_writer(), new_writer()
    lines = writer.write(_write_products)
    products = by_operand(writer)
    depth, of_element = writer.tile.block_k, dict[torch.dtype, int]()
    of_column = of_row = ahead = 0
    for a, tiles in products.items():
        dtype = a.meta["val"].dtype
        widths = [-(-width // depth) * depth for _, _, width in pieces_of(writer, a)]
        multiplied = sum(widths) * len(tiles)
        of_element[dtype] = of_element.get(dtype, 0) + multiplied
        of_column += multiplied * dtype.itemsize
        of_row += sum(widths) * dtype.itemsize
        ahead = max(ahead, min(AHEAD, max(widths)) * dtype.itemsize)
    return Kept(_weights(loader, products), lines, of_column, of_row, ahead, of_element)


def _weights(writer: KernelWriter, products: dict[fx.Node, Tiles]) -> list[str]:
    """The lines that load the weights of all products, in the order in which `_write_products` counts them."""
    writer.blocks["j"] = replace(writer.blocks["j"], rows="BLOCK_N", columns="1")
    writer.line("kept = ()")
    for a, tiles in products.items():
        start = 0
        for _, _, width in pieces_of(writer, a):
            k = writer.fresh("k")
            with writer.nested(f"for {k} in tl.static_range(0, {width}, BLOCK_K):"):
                masked = bool(width % writer.tile.block_k)
                down = writer.block("down", f"{k} + tl.arange(0, BLOCK_K)[None, :]", width, ("1", "BLOCK_K"), masked)
                for node, offset in tiles:
                    right = writer.element(factors(node)[1], (index_of(down) + start, index_of(writer.j) + offset))
                    text = dot_operand(writer, right, a.meta["val"].dtype, ("BLOCK_N", "BLOCK_K"))
                    writer.line(f"kept += ({text},)")
            start += width
    head = ["j = tile_column * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]"]
    if mask := writer.blocks["j"].mask:
        head.append(f"{mask} = j < {writer.tile.columns}")
    return [*head, *writer.scopes[0].lines, "return kept"]


def _write_products(writer: KernelWriter) -> None:
    """Write the lines that compute all accumulators with `kept`, in the order of `products.write_products`."""
    first_block = 0
    for a, tiles in by_operand(writer).items():
        write_zeros(writer, tiles)
        for piece, first, width in pieces_of(writer, a):
            for begin in range(0, width, AHEAD):
                turns = f"tl.static_range({begin}, {min(begin + AHEAD, width)}, BLOCK_K)"
                ahead = _write_loads(writer, a, (piece, first, width), turns)
                k = writer.fresh("k")
                with writer.nested(f"for {k} in {turns}:"):
                    left = f"{ahead}[({k} - {begin}) // BLOCK_K]" if begin else f"{ahead}[{k} // BLOCK_K]"
                    turn = f"{k} // BLOCK_K * {len(tiles)}" if len(tiles) > 1 else f"{k} // BLOCK_K"
                    for number, key in enumerate(tiles):
                        block = f"kept[{turn} + {first_block + number}]"
                        name = writer.accumulators[key]
                        writer.line(f"{name} = add_product({name}, {left}, tl.trans({block}), PRECISION)")
            first_block += -(-width // writer.tile.block_k) * len(tiles)


def _write_loads(writer: KernelWriter, a: fx.Node, place: tuple[fx.Node, int, int], turns: str) -> str:
    """Write the lines that load some columns of a left operand; returns the tuple of their blocks."""
    (piece, first, width), k, ahead = place, writer.fresh("k"), writer.fresh("ahead")
    writer.line(f"{ahead} = ()")
    with writer.nested(f"for {k} in {turns}:"):
        masked = bool(width % writer.tile.block_k)
        across = writer.block("across", f"{k} + tl.arange(0, BLOCK_K)[None, :]", width, ("1", "BLOCK_K"), masked)
        left = writer.element(piece, (index_of(writer.m), index_of(across) + first))
        text = dot_operand(writer, left, a.meta["val"].dtype, ("BLOCK_M", "BLOCK_K"))
        writer.line(f"{ahead} += ({text},)")
    return ahead
