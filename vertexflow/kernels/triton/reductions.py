"""Operations that read whole rows: sums and maxima over elements, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import fx

from ..lower.index import Index
from ..lower.views import Coords, extents
from .expressions import literal

aten = torch.ops.aten


class Writer(Protocol):
    """What writes a kernel."""

    def load(self, node: fx.Node, coords: Coords) -> str:
        """The name of a value's elements."""

    def total(self, key: Any, sizes: list[int], coords: Coords, value: Callable[[Coords], str], op: str = "sum") -> str:
        """The sum, or maximum, of `value` over all places in `sizes`, at `coords`; kept by `key` for who asks again."""


def _dims(node: fx.Node, position: int = 1) -> list[int]:
    """The dimensions that are reduced, of the operand."""
    asked: Any = node.args[position]
    return [asked] if isinstance(asked, int) else sorted(asked)


def _source(node: fx.Node) -> fx.Node:
    return node.all_input_nodes[0]


def _with(coords: Coords, dims: list[int], places: Coords) -> Coords:
    """`coords` with other places in these dimensions."""
    given = iter(places)
    return tuple(next(given) if dim in dims else at for dim, at in enumerate(coords))


def _sum(writer: Writer, node: fx.Node, coords: Coords, op: str = "sum") -> str:
    source, dims = _source(node), _dims(node)
    given = list(coords)
    if not node.args[2]:
        for dim in dims:
            given.insert(dim, Index())
    whole = _with(tuple(given), dims, (Index(),) * len(dims))
    sizes = [extents(source)[dim] for dim in dims]
    total = writer.total(
        node,
        sizes,
        whole,
        lambda places: writer.load(source, _with(whole, dims, places)),
        "max" if op == "max" else "sum",
    )
    return f"{total} * {literal(1 / math.prod(sizes))}" if op == "mean" else total


def _softmax(writer: Writer, node: fx.Node, coords: Coords) -> str:
    source, dims = _source(node), _dims(node)
    rest, size = _with(coords, dims, (Index(),)), [extents(source)[dims[0]]]

    def value(places: Coords) -> str:
        return writer.load(source, _with(coords, dims, places))

    most = writer.total((node, "max"), size, rest, value, "max")
    total = writer.total((node, "sum"), size, rest, lambda places: f"tl.exp({value(places)} - {most})")
    if node.target is aten._log_softmax.default:
        return f"{writer.load(source, coords)} - {most} - tl.log({total})"
    return f"tl.exp({writer.load(source, coords)} - {most}) / {total}"


def _softmax_backward(writer: Writer, node: fx.Node, coords: Coords) -> str:
    grad, out = node.args[:2]
    assert isinstance(grad, fx.Node)
    assert isinstance(out, fx.Node)
    dims = _dims(node, 2)
    rest, size = _with(coords, dims, (Index(),)), [extents(out)[dims[0]]]

    def value(places: Coords) -> str:
        at = _with(coords, dims, places)
        g = writer.load(grad, at)
        return g if node.target is aten._log_softmax_backward_data.default else f"{g} * {writer.load(out, at)}"

    total = writer.total((node, "sum"), size, rest, value)
    g, y = writer.load(grad, coords), writer.load(out, coords)
    return (
        f"{g} - tl.exp({y}) * {total}"
        if node.target is aten._log_softmax_backward_data.default
        else f"({g} - {total}) * {y}"
    )


def _layer_norm(writer: Writer, node: fx.Node, coords: Coords) -> str:
    """Result number `node.args[1]` of a layer norm: the values, the mean, or one over the deviation."""
    norm, number = _source(node), node.args[1]
    x, shape, weight, bias, eps = norm.args
    assert isinstance(x, fx.Node)
    dims = list(range(len(extents(x)) - len(shape), len(extents(x))))  # type: ignore[arg-type]
    rest, sizes = _with(coords, dims, (Index(),) * len(dims)), [extents(x)[dim] for dim in dims]
    scale = literal(1 / math.prod(sizes))

    def value(places: Coords) -> str:
        return writer.load(x, _with(coords, dims, places))

    mean = f"({writer.total((norm, 'mean'), sizes, rest, value)} * {scale})"
    if number == 1:
        return mean
    squares = writer.total(
        (norm, "squares"), sizes, rest, lambda places: f"({value(places)} - {mean}) * ({value(places)} - {mean})"
    )
    deviation = f"tl.rsqrt({squares} * {scale} + {literal(eps)})"
    if number == 2:
        return deviation
    text = f"({writer.load(x, coords)} - {mean}) * {deviation}"
    inner = tuple(coords[dim] for dim in dims)
    if weight is not None:
        text += f" * {writer.load(weight, inner)}"  # type: ignore[arg-type]
    return text if bias is None else f"{text} + {writer.load(bias, inner)}"  # type: ignore[arg-type]


def _layer_norm_backward(writer: Writer, node: fx.Node, coords: Coords) -> str:
    norm = _source(node)
    grad, x, shape, mean, deviation, weight = norm.args[:6]
    assert isinstance(x, fx.Node)
    dims = list(range(len(extents(x)) - len(shape), len(extents(x))))  # type: ignore[arg-type]
    rest, sizes = _with(coords, dims, (Index(),) * len(dims)), [extents(x)[dim] for dim in dims]
    scale = literal(1 / math.prod(sizes))

    def scaled(at: Coords) -> str:
        g = writer.load(grad, at)  # type: ignore[arg-type]
        return g if weight is None else f"({g} * {writer.load(weight, tuple(at[dim] for dim in dims))})"  # type: ignore[arg-type]

    def normal(at: Coords) -> str:
        row = _with(at, dims, (Index(),) * len(dims))
        return f"(({writer.load(x, at)} - {writer.load(mean, row)}) * {writer.load(deviation, row)})"  # type: ignore[arg-type]

    total = writer.total((norm, "sum"), sizes, rest, lambda places: scaled(_with(coords, dims, places)))
    both = writer.total(
        (norm, "both"), sizes, rest,
        lambda places: f"{scaled(_with(coords, dims, places))} * {normal(_with(coords, dims, places))}",
    )  # fmt: skip
    inverse = writer.load(deviation, rest)  # type: ignore[arg-type]
    return f"{inverse} * ({scaled(coords)} - {scale} * {total} - {scale} * {normal(coords)} * {both})"


def _bmm(writer: Writer, node: fx.Node, coords: Coords) -> str:
    a, b = node.all_input_nodes
    n, i, j = coords
    return writer.total(
        node, [extents(a)[2]], coords, lambda at: f"{writer.load(a, (n, i, at[0]))} * {writer.load(b, (n, at[0], j))}"
    )


def product(writer: Writer, node: fx.Node, coords: Coords, a: fx.Node, b: fx.Node) -> str:
    """A product with a parameter, element by element."""
    row, column = coords
    return writer.total(
        node, [extents(a)[1]], coords, lambda at: f"{writer.load(a, (row, at[0]))} * {writer.load(b, (at[0], column))}"
    )


REDUCTIONS: dict[Any, Callable[..., str]] = {
    aten.sum.dim_IntList: _sum,
    aten.mean.dim: lambda writer, node, coords: _sum(writer, node, coords, "mean"),
    aten.amax.default: lambda writer, node, coords: _sum(writer, node, coords, "max"),
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _softmax,
    aten._softmax_backward_data.default: _softmax_backward,
    aten._log_softmax_backward_data.default: _softmax_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.bmm.default: _bmm,
}
