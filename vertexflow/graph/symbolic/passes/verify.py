"""A check of what `canonical` promises, independent of its rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch._ops import OpOverload

from ....errors import VertexFunctionError
from .canonical import DIMS, RULES
from .rules import DIMS_OF_RESULT

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten

STAY = {  # operations with a rule that a canonical graph has nevertheless: rules or later passes create them
    aten.clone.default, aten._to_copy.default, aten.reshape.default, aten.expand.default, aten.permute.default,
    aten.squeeze.dims, aten.cat.default, aten.split_with_sizes.default, aten.slice.Tensor, aten.slice_backward.default,
    aten.slice_scatter.default, aten.select.int, aten.select_backward.default, aten.select_scatter.default,
    aten.sum.dim_IntList, aten.mean.dim, aten.full.default, aten.native_group_norm.default,
    aten._linalg_solve_ex.default, aten._linalg_det.default, aten._linalg_slogdet.default,
    aten.native_group_norm_backward.default,
}  # fmt: skip
_BOUNDS = {  # arguments that lie within the extent along the dimension, in ascending order
    aten.slice.Tensor: ("start", "end"), aten.slice_backward.default: ("start", "end"),
    aten.slice_scatter.default: ("start", "end"), aten.select.int: ("index",), aten.select_backward.default: ("index",),
    aten.select_scatter.default: ("index",),
}  # fmt: skip


def check_canonical(trace: Trace) -> None:
    """Refuse a graph that is not canonical: later passes and backends rely on it, and would silently compute something else."""
    for node in trace.graph.nodes:
        if isinstance(node.target, OpOverload) and not is_canonical(node):
            raise VertexFunctionError(
                f"vertexflow did not understand `{node.format_node()}`; this is a defect of vertexflow, please report it"
                f"\n  in the vertex function, {trace.where(node)}"
            )


def is_canonical(node: fx.Node) -> bool:
    """Whether a call of an operator is in canonical form."""
    target: Any = node.target
    names = [argument.name for argument in target._schema.arguments if not argument.kwarg_only]
    if (target in RULES and target not in STAY) or len(node.args) != len(names):
        return False
    arguments: dict[str, Any] = dict(zip(names, node.args, strict=True))
    dim_arguments = [arguments[name] for name in DIMS & arguments.keys() if arguments[name] is not None]
    dims = [dim for value in dim_arguments for dim in (value if isinstance(value, Sequence) else [value])]
    if not dims:
        return True
    shape = (node if target in DIMS_OF_RESULT else node.all_input_nodes[0]).meta["val"].shape
    if not all(0 <= dim < max(len(shape), 1) for dim in dims):
        return False
    bounds = [arguments[name] for name in _BOUNDS.get(target, ())]
    if not bounds or not isinstance(shape[dims[0]], int):
        return True
    last = shape[dims[0]] - (len(bounds) == 1)
    return all(isinstance(bound, int) for bound in bounds) and 0 <= bounds[0] <= bounds[-1] <= last
