"""The matrix products of a kernel, computed first: an accumulator in registers for each tile of columns that is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx

from ...graph.symbolic.nodes import operands
from ..lower.index import Index, index_of
from ..lower.scalar import Cast, Expression, Load, in_dtype, wide
from ..lower.views import broadcast
from .places import GatheredRows
from .plan import MustBeStored, factors, source_of, space_of
from .spellings import TYPES, register

if TYPE_CHECKING:
    from .body import KernelWriter

aten = torch.ops.aten

Tiles = list[tuple[fx.Node, int]]  # products, with the first column of the tile


def accumulator(writer: KernelWriter, node: fx.Node, row: Index, column: Index) -> str:
    """An expression for columns of a product's result, and its accumulator.

    Raises:
        MustBeStored: the columns that are read are no tile of the result.
    """
    columns, offset = writer.tile.columns, column.offset_from(writer.j)
    if row != index_of(writer.m) or offset is None or space_of(node)[0] != writer.kernel.space[0]:
        raise MustBeStored(node)
    if offset < 0 or offset + columns > int(node.meta["val"].shape[1]):
        raise MustBeStored(node)
    key = (node, offset)
    if key not in writer.accumulators:
        writer.accumulators[key] = writer.fresh(f"{node.name}_{offset // columns}")
    name, bias = writer.accumulators[key], factors(node)[2]
    if bias is None:
        return name
    element = writer.element(bias, broadcast(bias, (row, column)))
    return f"{name} + {writer.text(in_dtype(element, wide(node.meta['val'].dtype)))}"


def write_products(writer: KernelWriter) -> None:
    """Write the lines that compute all accumulators, those with the same left operand together."""
    for a, tiles in by_operand(writer).items():
        write_zeros(writer, tiles)
        start = 0
        for piece, first, width in pieces_of(writer, a):
            _add_products(writer, a, piece, first, width, start, tiles)
            start += width


def by_operand(writer: KernelWriter) -> dict[fx.Node, Tiles]:
    """The accumulators of a kernel, by the left operand of their products."""
    tiles: dict[fx.Node, Tiles] = {}
    for node, offset in writer.accumulators:
        tiles.setdefault(factors(node)[0], []).append((node, offset))
    return tiles


def write_zeros(writer: KernelWriter, tiles: Tiles) -> None:
    """Write the lines that make accumulators, of zeros."""
    for key in tiles:
        kind = register(key[0].meta["val"].dtype)
        writer.line(f"{writer.accumulators[key]} = tl.zeros((BLOCK_M, BLOCK_N), {kind})", 0)


def _add_products(
    writer: KernelWriter, a: fx.Node, piece: fx.Node, first: int, width: int, start: int, tiles: Tiles
) -> None:
    """Add the product of `width` columns of `piece`, which are the columns of `a` from `start` on, with rows of weights."""
    k, dtype = writer.fresh("k"), a.meta["val"].dtype
    masked = bool(width % writer.tile.block_k)
    with writer.nested(f"for {k} in range(0, {width}, BLOCK_K):"):
        numbers = f"{k} + tl.arange(0, BLOCK_K)"
        across = writer.block("across", f"{numbers}[None, :]", width, ("1", "BLOCK_K"), masked)
        down = writer.block("down", f"{numbers}[:, None]", width, ("BLOCK_K", "1"), masked)
        left = writer.element(piece, (index_of(writer.m), index_of(across) + first))
        left_text = dot_operand(writer, left, dtype, ("BLOCK_M", "BLOCK_K"))
        for node, offset in tiles:
            right = writer.element(factors(node)[1], (index_of(down) + start, index_of(writer.j) + offset))
            right_text = dot_operand(writer, right, dtype, ("BLOCK_K", "BLOCK_N"))
            name = writer.accumulators[node, offset]
            writer.line(f"{name} = add_product({name}, {left_text}, {right_text}, PRECISION)")


def dot_operand(writer: KernelWriter, value: Expression, dtype: torch.dtype, shape: tuple[str, str]) -> str:
    """A value as an operand of `tl.dot`: with all of its elements, in the dtype of the product, to which casts round as well."""
    if isinstance(value, Cast) and value.operand.dtype in (torch.float32, dtype):
        value = value.operand
    if isinstance(value, Load) and writer.in_memory(value.array):
        text, text_dtype = writer.raw(value), value.dtype
    else:
        text, text_dtype = writer.text(value), wide(value.dtype)
    if writer.shape(writer.names_of(value)) != shape:
        text = f"tl.broadcast_to({text}, ({', '.join(shape)}))"
    return text if text_dtype == dtype else f"{text}.to({TYPES[dtype]})"


def pieces_of(writer: KernelWriter, node: fx.Node) -> list[tuple[fx.Node, int, int]]:
    """The values that form an operand side by side, each with its first column and the number of columns."""
    width = int(node.meta["val"].shape[1])
    if not writer.in_memory(node):
        if node.target is aten.cat.default:
            return [piece for operand in operands(node) for piece in pieces_of(writer, operand)]
        if node.target is aten._to_copy.default and source_of(node).meta["val"].dtype == torch.float32:
            return pieces_of(writer, source_of(node))  # `tl.dot` takes it rounded as it is
    elif node.op == "placeholder":
        place = writer.place_in_memory(node)
        if isinstance(place, GatheredRows) and place.num_side_by_side > 1:
            return [(node, slot * place.width, place.width) for slot in range(place.num_side_by_side)]
    return [(node, 0, width)]
