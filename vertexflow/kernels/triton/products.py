"""Products of a kernel: their results in registers, a tile for each block of columns that is read, before all else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx

from ...graph.nodes import operands
from ..lower.index import of
from ..lower.views import Coords
from .dtypes import HALF, TYPES, dtype_of, in_registers
from .places import Gathered
from .plan import Apart, factors, is_free, looked_through, source_of, space_of

if TYPE_CHECKING:
    from .body import KernelWriter

aten = torch.ops.aten

Tiles = list[tuple[fx.Node, int]]  # products, with the first column of the tile


def accumulator(writer: KernelWriter, node: fx.Node, coords: Coords) -> str:
    """An expression for columns of a product's result, which is computed before all else.

    Raises:
        Apart: what is read is no tile of it.
    """
    columns, offset = writer.tile.columns, coords[1].offset_from(writer.j)
    if coords[0] != of(writer.m) or offset is None or space_of(node)[0] != writer.kernel.space[0]:
        raise Apart(node)
    if offset < 0 or offset + columns > int(node.meta["val"].shape[1]):
        raise Apart(node)
    key = (node, offset)
    if key not in writer.accumulators:
        writer.accumulators[key] = writer.fresh(f"{node.name}_{offset // columns}")
    bias = factors(node)[2]
    name = writer.accumulators[key]
    return name if bias is None else f"{name} + {writer.load(bias, (coords[1],))}"


def write_products(writer: KernelWriter) -> None:
    """Lines that compute all tiles that were asked for; those with the same operand together."""
    by_operand: dict[fx.Node, Tiles] = {}
    for node, offset in writer.accumulators:
        by_operand.setdefault(factors(node)[0], []).append((node, offset))
    for a, wanted in by_operand.items():
        for key in wanted:
            kind = in_registers(dtype_of(key[0]))
            writer.line(f"{writer.accumulators[key]} = tl.zeros((BLOCK_M, BLOCK_N), {kind})", 0)
        start = 0
        for piece, first, width in _pieces(writer, a):
            _add_products(writer, a, piece, first, width, start, wanted)
            start += width


def _add_products(
    writer: KernelWriter, a: fx.Node, piece: fx.Node, first: int, width: int, start: int, wanted: Tiles
) -> None:
    """Add the product of `width` columns of `piece`, which are those of `a` from `start` on, with rows of weights."""
    k, writer.raw = writer.fresh("k"), True
    masked = bool(width % writer.tile.block_k)
    dtype = dtype_of(a)
    with writer.nested(f"for {k} in range(0, {width}, BLOCK_K):"):
        numbers = f"{k} + tl.arange(0, BLOCK_K)"
        across = writer.block("across", f"{numbers}[None, :]", width, ("1", "BLOCK_K"), masked)
        down = writer.block("down", f"{numbers}[:, None]", width, ("BLOCK_K", "1"), masked)
        left = writer.load(piece, (of(writer.m), of(across) + first))
        left = _operand(writer, piece, left, dtype, "(BLOCK_M, BLOCK_K)")
        for node, offset in wanted:
            b = factors(node)[1]
            weight = writer.load(b, (of(down) + start, of(writer.j) + offset))
            weight = _operand(writer, b, weight, dtype, "(BLOCK_K, BLOCK_N)")
            name = writer.accumulators[node, offset]
            writer.line(f"{name} = add_product({name}, {left}, {weight}, PRECISION)")
    writer.raw = False


def _operand(writer: KernelWriter, node: fx.Node, value: str, dtype: torch.dtype, shape: str) -> str:
    """A value as `tl.dot` takes it: all of its elements, in the dtype of the product."""
    is_whole = True
    while is_free(node) and not writer.in_memory(node):
        is_whole = is_whole and node.target is not aten.expand.default
        node = looked_through(node)
    if not is_whole or not writer.in_memory(node):
        value = f"tl.broadcast_to({value}, {shape})"
    elif dtype_of(node) == dtype and dtype not in HALF:
        return value
    return f"{value}.to({TYPES[dtype]})"


def _pieces(writer: KernelWriter, node: fx.Node) -> list[tuple[fx.Node, int, int]]:
    """The values that an operand is made of, side by side: each with its first column and the number of columns."""
    width = int(node.meta["val"].shape[1])
    if not writer.in_memory(node):
        if node.target is aten.cat.default:
            return [piece for operand in operands(node) for piece in _pieces(writer, operand)]
        if (
            node.target is aten._to_copy.default
            and dtype_of(node) in HALF
            and dtype_of(source_of(node)) == torch.float32
        ):
            return _pieces(writer, source_of(node))  # `tl.dot` takes it rounded as it is
    elif node.op == "placeholder":
        place = writer.made_place(node)
        if isinstance(place, Gathered) and place.beside > 1:
            return [(node, slot * place.width, place.width) for slot in range(place.beside)]
    return [(node, 0, width)]
