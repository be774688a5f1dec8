"""What a part computes for no rows, or no edges, without calling those of PyTorch's kernels that divide by their number.

Values with rows are empty, sums over rows are zero, and everything else is computed as always.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ...graph.symbolic.nodes import has_rows, on_edges
from ...graph.symbolic.passes.stops import STOP
from ...graph.symbolic.program import Part
from .. import products


def run_without(part: Part, rows: int, edges: int, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The outputs of a part whose inputs have this number of rows and edges, one of which is 0."""
    values: dict[fx.Node, Any] = {}
    arguments = iter([rows, edges, *inputs])
    for node in part.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(arguments)
        elif node.op == "output":
            return tuple(values[result] for result in node.args[0])
        elif _reads_nothing(node, rows, edges):
            values[node] = _empty(node.meta["val"], _layouts(node), rows, edges)
        else:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = _called(node, *args, **kwargs)
    raise AssertionError(f"{part.name} has no outputs")


def _called(node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    """The result of an operation, as `source` writes it."""
    if node.meta.get("collected"):
        *added, rows, matrix = args
        return sum(added, products.product(rows, matrix))
    if node.target is STOP:
        return args[0].detach()
    target: Any = node.target
    return target(*args, **kwargs)


def _reads_nothing(node: fx.Node, rows: int, edges: int) -> bool:
    """Whether an operation's result, or all that it reads with rows, is empty because there are no rows, or no edges."""
    if node.target is operator.getitem or isinstance(node.meta.get("val"), (int, torch.SymInt)):
        return False
    is_empty = [
        (edges if on_edges(operand) else rows) == 0 for operand in (node, *node.all_input_nodes) if has_rows(operand)
    ]
    return bool(is_empty) and (is_empty[0] if has_rows(node) else all(is_empty))


def _layouts(node: fx.Node) -> Any:
    """The layout of a value's rows; for several results, a layout by number."""
    if isinstance(node.meta["val"], Tensor):
        return node.meta.get("rows")
    return {user.args[1]: user.meta.get("rows") for user in node.users if user.target is operator.getitem}


def _empty(value: Any, layout: Any, rows: int, edges: int) -> Any:
    if isinstance(value, (list, tuple)):
        return [_empty(item, layout.get(number), rows, edges) for number, item in enumerate(value)]
    if value is None:
        return None
    shape = [size if isinstance(size, int) else 0 for size in value.shape]
    if layout is not None:
        shape[layout.dim] = layout.per_vertex * (edges if layout.edges else rows)
    return torch.zeros(shape, dtype=value.dtype, device=value.device)
