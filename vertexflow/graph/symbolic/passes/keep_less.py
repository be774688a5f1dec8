"""Graph in, graph out: the derivative reads less from what the forward pass keeps.

Where it reads some columns of a value, these are kept and not the value; a sum or a product of two kept values is not kept, but
computed again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from ..nodes import ancestors, has_rows, is_free, reads, sources
from .rewrite import insert

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten

CHEAP = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.neg.default}


def keep_less(trace: Trace) -> None:
    """Rewrite `trace.graph` in place. `meta["copies"]` marks what the part of its source makes, `meta["again"]` what is computed
    again for those that read it."""
    forward = ancestors([*trace.scatters.values(), *trace.pushes.values()])
    _keep_columns(trace, forward)
    _compute_again(trace, forward)


def _keep_columns(trace: Trace, forward: set[fx.Node]) -> None:
    """Copy the columns that the derivative reads, where they are fewer than the value has."""
    pieces: dict[fx.Node, list[fx.Node]] = {}  # by value: the views of it, or itself, that the derivative reads
    for node in trace.graph.nodes:
        if has_rows(node) and isinstance(node.meta["val"], Tensor) and _readers(node, forward):
            for source in sources(node):
                pieces.setdefault(source, []).append(node)
    for source, views in pieces.items():
        is_computed = source in forward and source.op == "call_function" and source not in trace.scatters.values()
        if is_computed and source not in views and sum(map(_width, views)) < _width(source):
            for view in views:
                readers = _readers(view, forward)
                copy = insert(view.next, aten.clone.default, view)
                copy.meta |= {"rows": view.meta["rows"], "line": view.meta.get("line"), "copies": True}
                for reader in readers:
                    reader.replace_input_with(view, copy)


def _compute_again(trace: Trace, forward: set[fx.Node]) -> None:
    exchanged = {*trace.scatters.values(), *trace.gathers.values(), *trace.pulls.values()}
    for node in list(trace.graph.nodes):
        if node not in forward or node.target not in CHEAP or not has_rows(node) or node in exchanged:
            continue
        readers = _readers(node, forward)
        others = any(_is_read(user, forward) for user in node.users if is_free(user))
        kept = (_is_read(source, forward) for source in reads(node) if has_rows(source))
        if readers and not others and all(kept):
            again = insert(node.next, node.target, *node.args, **node.kwargs)
            again.meta |= {"rows": node.meta["rows"], "line": node.meta.get("line"), "again": True}
            for reader in readers:
                reader.replace_input_with(node, again)


def _readers(node: fx.Node, forward: set[fx.Node]) -> list[fx.Node]:
    """The operations of the derivative that read a value, or a copy of it, themselves."""
    return [user for user in node.users if user not in forward and user.op == "call_function" and not is_free(user)]


def _is_read(node: fx.Node, forward: set[fx.Node]) -> bool:
    """Whether the derivative reads a value, or a view of it."""
    return bool(_readers(node, forward)) or any(_is_read(user, forward) for user in node.users if is_free(user))


def _width(node: fx.Node) -> float:
    """The numbers of a row; NaN, which is not less than any, where they do not lie one after the other."""
    value, rows = node.meta["val"], node.meta.get("rows")
    is_plain = isinstance(value, Tensor) and rows is not None and rows.dim == 0 and rows.per_vertex == 1
    return math.prod(map(int, value.shape[1:])) if is_plain and not node.meta.get("interleaved") else math.nan
