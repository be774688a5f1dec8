"""Graph in, graph out: every operation is written in one way, the only one that later passes and backends need to know.

After this pass:
- all positional arguments are given, defaults too; keyword arguments are given only where they are no defaults;
- dimensions are counted from the front, and a reduction over all dimensions lists them;
- bounds of slices and indices of selections lie within a static extent: `0 <= start <= end <= extent`, `0 <= index < extent`;
- of operations that are aliases of each other one is left (`RULES`), and operations that change nothing are gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import fx
from torch._ops import OpOverload

from ....errors import VertexFunctionError
from . import rules
from .rewrite import replace
from .rules import rank_of

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten

DIMS = {"dim", "dims", "dim0", "dim1", "dim2", "dimension", "axis"}  # arguments that are dimensions
_OF_MEMORY = {aten.as_strided.default, aten.as_strided_scatter.default}
_MASKED = {aten._unsafe_masked_index.default, aten._unsafe_masked_index_put_accumulate.default}
_NO_DIMS_ARE_ALL = {aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default}


def canonical(trace: Trace) -> None:
    """Rewrite `trace.graph` in place; the tables of `trace` follow."""
    for node in list(trace.graph.nodes):
        if not isinstance(node.target, OpOverload):
            continue
        if node.target in _OF_MEMORY:
            raise VertexFunctionError(
                f"the vertex function uses `{node.target}`, whose result depends on where values lie in memory; that is "
                f"vertexflow's to choose: index, reshape or permute instead\n  in the vertex function, {trace.where(node)}"
            )
        _fill_in(node)
        if node.target in _MASKED and _indexes_rows(node):  # `check_rows` may miss it: the mask may hide it there
            raise VertexFunctionError(
                f"the vertex function mixes rows: `{node.target}` takes an index along the dimension of the vertices of a step"
                f"\n  in the vertex function, {trace.where(node)}"
            )
        _resolve_dims(node)
        rule = RULES.get(node.target)
        new = rule(node) if rule is not None else node
        if new.target is aten.split.Tensor:  # its pieces have sizes that differ from step to step
            raise VertexFunctionError(
                "the vertex function cuts the dimension of the vertices of a step into pieces (split or chunk of what was joined "
                "along it); torch.stack what belongs to one vertex along another dimension"
                f"\n  in the vertex function, {trace.where(node)}"
            )
        if new is not node:
            replace(trace, node, new)
            trace.graph.erase_node(node)


def _fill_in(node: fx.Node) -> None:
    """Give positional arguments their defaults, and drop keyword arguments that are defaults."""
    kwargs, schema = dict(node.kwargs), cast(OpOverload, node.target)._schema
    args = list(node.args)
    for argument in schema.arguments:
        if argument.kwarg_only:
            if argument.name in kwargs and _is_default(kwargs[argument.name], argument.default_value):
                del kwargs[argument.name]
        elif len(args) <= schema.arguments.index(argument):
            args.append(kwargs.pop(argument.name, argument.default_value))
    node.args, node.kwargs = tuple(args), kwargs


def _indexes_rows(node: fx.Node) -> bool:
    indices, shape = cast("list[fx.Node | None]", node.args[2]), node.all_input_nodes[0].meta["val"].shape
    return any(
        index is not None and isinstance(size, torch.SymInt) for index, size in zip(indices, shape, strict=False)
    )


def _is_default(value: Any, default: Any) -> bool:
    return not isinstance(value, fx.Node) and type(value) in (type(default), int, bool) and value == default


def _resolve_dims(node: fx.Node) -> None:
    """Count dimensions from the front."""
    rank = rank_of(node)
    for number, argument in enumerate(cast(OpOverload, node.target)._schema.arguments):
        if argument.name not in DIMS or argument.kwarg_only:
            continue
        dims: Any = node.args[number]
        if isinstance(dims, int):
            node.update_arg(number, dims % max(rank, 1))
        elif dims or node.target not in _NO_DIMS_ARE_ALL:
            node.update_arg(number, dims and [dim % max(rank, 1) for dim in dims])
        else:
            node.update_arg(number, list(range(rank)))


RULES: dict[Any, rules.Rule] = {
    **dict.fromkeys((aten.detach.default, aten.alias.default, aten.clone.default, aten.lift_fresh_copy.default,
                     aten.lift_fresh.default), rules.source_itself),
    aten._to_copy.default: rules.source_if_the_same,
    **dict.fromkeys((aten.view.default, aten._unsafe_view.default, aten._reshape_alias.default, aten.reshape.default),
                    rules.resized(aten.reshape.default)),
    aten.expand.default: rules.resized(aten.expand.default),
    **dict.fromkeys((aten.t.default, aten.transpose.int, aten.permute.default), rules.permuted),
    **dict.fromkeys((aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims), rules.squeezed),
    **dict.fromkeys((aten.split.Tensor, aten.unsafe_split.Tensor, aten.split_with_sizes.default,
                     aten.unsafe_split_with_sizes.default), rules.split),
    aten.unbind.int: rules.unbound,
    aten.cat.default: rules.joined,
    aten.slice.Tensor: rules.sliced(rules.source_of, 2),
    aten.slice_backward.default: rules.sliced(lambda node: node, 3),
    aten.slice_scatter.default: rules.slice_replaced,
    aten.select.int: rules.selected(rules.source_of, 2),
    aten.select_backward.default: rules.selected(lambda node: node, 3),
    aten.select_scatter.default: rules.row_replaced,
    **dict.fromkeys((aten.copy.default, aten.fill.Tensor), rules.copied),
    aten.sum.default: rules.summed(aten.sum.dim_IntList),
    aten.mean.default: rules.summed(aten.mean.dim),
    aten.sum.dim_IntList: rules.in_its_dtype,
    aten.mean.dim: rules.in_its_dtype,
    **{operation.Scalar: rules.with_tensor(operation.Tensor) for operation in (aten.add, aten.sub, aten.mul, aten.div)},
    aten.div.Scalar_mode: rules.with_tensor(aten.div.Tensor_mode),
    **dict.fromkeys((aten.clamp_min.default, aten.clamp_max.default), rules.clamped),
    **dict.fromkeys((aten.zeros.default, aten.ones.default, aten.full.default, aten.scalar_tensor.default,
                     aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.new_zeros.default,
                     aten.new_ones.default, aten.new_full.default, aten.fill.Scalar), rules.filled),
    **dict.fromkeys((aten.masked_fill.Scalar, aten.masked_fill.Tensor), rules.masked_fill),
    aten._prelu_kernel.default: rules.prelu,
    aten._prelu_kernel_backward.default: rules.prelu_backward,
    aten._linalg_solve_ex.default: rules.solved,
    aten._linalg_det.default: rules.determinant(lu=1),
    aten._linalg_slogdet.default: rules.determinant(lu=2),
    aten.native_group_norm.default: rules.dense(0, unchecked=(0,)),
    aten.native_group_norm_backward.default: rules.dense(0, 1, unchecked=(0, 1)),
}  # fmt: skip
