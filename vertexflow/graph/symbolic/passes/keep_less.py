"""Graph in, graph out: the forward pass keeps less for the derivative.

Where the derivative reads some columns of a value, only these are kept; where a state tells as much as a value, only the state
is. What is cheap may be computed again (`compute_again.py`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from ..nodes import ancestors, has_rows, is_free, same_shape, sources
from .compute_again import compute_again
from .rewrite import insert

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten


def keep_less(trace: Trace) -> None:
    """Rewrite `trace.graph` in place.

    `meta["copies"]` marks copies of columns, which belong to the part that computes their source, and `meta["again"]` values
    that are computed again, which belong to the part that reads them.
    """
    forward = ancestors([*trace.scatters.values(), *trace.pushes.values()])
    _keep_columns(trace, forward)
    _read_chosen(trace, forward)
    compute_again(trace, forward)


def _keep_columns(trace: Trace, forward: set[fx.Node]) -> None:
    """Copy the columns of a value that the derivative reads, if it does not read all of them."""
    views_of: dict[fx.Node, list[fx.Node]] = {}  # of each value, those that the derivative reads; also the value itself
    for node in trace.graph.nodes:
        if has_rows(node) and isinstance(node.meta["val"], Tensor) and _readers(node, forward):
            for source in sources(node):
                views_of.setdefault(source, []).append(node)
    for source, views in views_of.items():
        is_computed = source in forward and source.op == "call_function" and source not in trace.scatters.values()
        if is_computed and source not in views and sum(map(_width, views)) < _width(source):
            for view in views:
                readers = _readers(view, forward)
                copy = insert(view.next, aten.clone.default, view)
                copy.meta |= {"rows": view.meta["rows"], "line": view.meta.get("line"), "copies": True}
                for reader in readers:
                    reader.replace_input_with(view, copy)


def _read_chosen(trace: Trace, forward: set[fx.Node]) -> None:
    """Where a state is chosen from a rectified value and others, its sign is read in the place of that value's.

    Where it was not chosen, the gradient that comes to it is zero, and stays so whatever the sign.
    """
    for node in trace.graph.nodes:
        if node in forward or node.target is not aten.threshold_backward.default:
            continue
        grad, value, _ = node.args
        if grad.target is not aten.where.self or not _is_zero(grad.args[2]):
            continue
        for chosen in trace.scatters.values():
            is_alike = chosen.target is aten.where.self and chosen.args[:2] == (grad.args[0], value)
            if is_alike and same_shape(chosen.meta["val"], value.meta["val"]):
                node.replace_input_with(value, chosen)
                break


def _is_zero(node: object) -> bool:
    return isinstance(node, fx.Node) and node.target is aten.full.default and bool(node.args[1] == 0)


def _readers(node: fx.Node, forward: set[fx.Node]) -> list[fx.Node]:
    """The operations of the derivative that read a value directly, not through a view."""
    return [user for user in node.users if user not in forward and user.op == "call_function" and not is_free(user)]


def _width(node: fx.Node) -> float:
    """The number of elements of a row; NaN, which is less than no number, if they do not lie one after the other."""
    value, rows = node.meta["val"], node.meta.get("rows")
    is_plain = isinstance(value, Tensor) and rows is not None and rows.dim == 0 and rows.per_vertex == 1
    return math.prod(map(int, value.shape[1:])) if is_plain and not node.meta.get("interleaved") else math.nan
