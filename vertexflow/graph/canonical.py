"""Graph in, graph out: every operation is written in one way, so that no pass and no backend behind this one knows another.

After it:
- arguments that have defaults are there, in their places; keyword arguments are there only where they change something;
- dimensions are counted from the front, and a reduction of all dimensions lists them;
- slices and selections of static extents lie within these: `0 <= start <= end <= extent`, `0 <= index < extent`;
- of operations that are one another's alias, one is left (`RULES`), and none that changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from ..errors import VertexFunctionError
from .rewrite import insert, replace

if TYPE_CHECKING:
    from .trace import Trace

aten = torch.ops.aten

END = sys.maxsize  # of a slice to the end of an extent that is not known
DIMS = {"dim", "dims", "dim0", "dim1", "dim2", "dimension", "axis"}  # arguments that are dimensions
OF_RESULT = {  # whose dimensions are the result's, not those of what is read
    aten.unsqueeze.default, aten.cat.default, aten.stack.default, aten.diag_embed.default, aten.slice_backward.default,
    aten.select_backward.default, aten.diagonal_backward.default, aten.unfold_backward.default,
}  # fmt: skip
_NO_DIMS_ARE_ALL = {aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default}


def canonical(found: Trace) -> None:
    """Rewrite `found.graph` in place; the tables of `found` follow."""
    for node in list(found.graph.nodes):
        if not isinstance(node.target, OpOverload):
            continue
        _fill_in(node)
        _resolve_dims(node)
        rule = RULES.get(node.target)
        try:
            new = rule(node) if rule is not None else node
        except VertexFunctionError as error:
            error.args = (f"{error}\n  in the vertex function, {found.where(node)}",)
            raise
        if new is not node:
            replace(found, node, new)
            found.graph.erase_node(node)


def _fill_in(node: fx.Node) -> None:
    """Defaults where arguments have places; none where they have names."""
    kwargs, schema = dict(node.kwargs), cast(OpOverload, node.target)._schema
    args = list(node.args)
    for argument in schema.arguments:
        if argument.kwarg_only:
            if argument.name in kwargs and _is_default(kwargs[argument.name], argument.default_value):
                del kwargs[argument.name]
        elif len(args) <= schema.arguments.index(argument):
            args.append(kwargs.pop(argument.name, argument.default_value))
    node.args, node.kwargs = tuple(args), kwargs


def _is_default(value: Any, default: Any) -> bool:
    return not isinstance(value, fx.Node) and type(value) in (type(default), int, bool) and value == default


def _resolve_dims(node: fx.Node) -> None:
    """Count dimensions from the front."""
    rank = _rank(node)
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


def _rank(node: fx.Node) -> int:
    """How many dimensions there are to choose from."""
    values = [node.meta.get("val")] if node.target in OF_RESULT else [n.meta.get("val") for n in node.all_input_nodes]
    return next((value.dim() for value in values if isinstance(value, Tensor)), 0)


def _shape(node: fx.Node) -> Sequence[Any]:
    return cast(Tensor, node.meta["val"]).shape


def _source(node: fx.Node) -> fx.Node:
    return cast(fx.Node, node.args[0])


def _is_same(one: Any, other: Any) -> bool:
    """Whether two sizes, or shapes, are the same whatever the number of rows is."""
    if isinstance(one, Sequence):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, torch.SymInt) and isinstance(other, torch.SymInt):
        return bool(one.node.expr == other.node.expr)
    return isinstance(one, int) and isinstance(other, int) and one == other


# Rules: what stands for a node, itself (perhaps with another operation or other arguments) or another


def _source_itself(node: fx.Node) -> fx.Node:
    return _source(node)


def _source_if_the_same(node: fx.Node) -> fx.Node:
    value, source = node.meta["val"], _source(node).meta["val"]
    return _source(node) if (value.dtype, value.device) == (source.dtype, source.device) else node


def _with_tensor(target: Any) -> Rule:
    """Of operations that take a number for a tensor (comparisons do not), one is left; it names the factor of what is added."""

    def rule(node: fx.Node) -> fx.Node:
        if len(node.args) > 2 and node.args[2] != 1:
            node.kwargs = {**node.kwargs, "alpha": node.args[2]}
        node.target, node.args = target, node.args[:2]
        return node

    return rule


def _resized(target: Any) -> Rule:
    """Sizes that are -1 are given, but for the number of rows; what has the shape already stays as it is."""

    def rule(node: fx.Node) -> fx.Node:
        if _is_same(_shape(node), _shape(_source(node))):
            return _source(node)
        node.target = target
        asked: Any = node.args[1]
        node.update_arg(1, [size if isinstance(size, int) else given
                            for size, given in zip(_shape(node), asked, strict=True)])  # fmt: skip
        return node

    return rule


def _permuted(node: fx.Node) -> fx.Node:
    source, rank = _source(node), len(_shape(node))
    dims = list(range(rank))
    if node.target is aten.t.default:
        dims.reverse()
    elif node.target is aten.transpose.int:
        one, other = cast("tuple[int, int]", node.args[1:])
        dims[one], dims[other] = other, one
    else:
        dims = cast("list[int]", node.args[1])
    if source.target is aten.permute.default:  # nodes before this one are canonical
        before = cast("list[int]", source.args[1])
        source, dims = _source(source), [before[dim] for dim in dims]
    if dims == list(range(rank)):
        return source
    node.target, node.args = aten.permute.default, (source, dims)
    return node


def _squeezed(node: fx.Node) -> fx.Node:
    """Only what is always one: a step may have a single row."""
    asked: Any = node.args[1] if len(node.args) > 1 else range(_rank(node))
    shape = _shape(_source(node))
    dims = [dim for dim in ([asked] if isinstance(asked, int) else sorted(asked)) if shape and _is_same(shape[dim], 1)]
    if not dims:
        return _source(node)
    node.target, node.args = aten.squeeze.dims, (_source(node), dims)
    return node


def _split(node: fx.Node) -> fx.Node:
    dim = cast(int, node.args[2])
    sizes = [piece.shape[dim] for piece in node.meta["val"]]
    if all(isinstance(size, int) for size in sizes):
        node.target, node.args = aten.split_with_sizes.default, (_source(node), sizes, dim)
    return node


def _unbound(node: fx.Node) -> fx.Node:
    """Each of the pieces is a selection."""
    for item in list(node.users):
        index = item.args[1]
        item.target, item.args = aten.select.int, (_source(node), node.args[1], index)
    return node


def _sliced(shape_of: Callable[[fx.Node], fx.Node], first: int) -> Rule:
    """Bounds of a slice, the first of which is argument number `first`, of what `shape_of` tells the shape of."""

    def rule(node: fx.Node) -> fx.Node:
        dim, start, end, step = cast("tuple[int, Any, Any, int]", node.args[first - 1 : first + 3])
        extent = _shape(shape_of(node))[dim]
        if isinstance(extent, int):
            start = _within(start, 0, extent)
            end = max(_within(end, extent, extent), start)
        else:
            start, end = start or 0, END if end is None or _is_extent(end, extent) else end
        if (
            step == 1
            and isinstance(start, int)
            and start == 0
            and _is_same(end, extent if isinstance(extent, int) else END)
        ):
            return cast(fx.Node, node.args[1]) if node.target is aten.slice_scatter.default else _source(node)
        node.args = (*node.args[: first - 1], dim, start, end, step)
        return node

    return rule


def _within(bound: int | None, default: int, extent: int) -> int:
    bound = default if bound is None else bound
    return min(max(bound + extent if bound < 0 else bound, 0), extent)


def _is_extent(end: Any, extent: torch.SymInt) -> bool:
    value = end.meta["val"] if isinstance(end, fx.Node) else end
    return _is_same(value, extent) or (isinstance(value, int) and value >= 2**31)


def _selected(shape_of: Callable[[fx.Node], fx.Node], position: int) -> Rule:
    """The index, which is argument number `position`, is counted from the front."""

    def rule(node: fx.Node) -> fx.Node:
        extent = _shape(shape_of(node))[cast(int, node.args[position - 1])]
        if isinstance(extent, int):
            node.update_arg(position, cast(int, node.args[position]) % extent)
        return node

    return rule


def _summed(target: Any) -> Rule:
    """A reduction of everything lists all dimensions."""

    def rule(node: fx.Node) -> fx.Node:
        node.target, node.args = target, (_source(node), list(range(_rank(node))), False)
        return _in_its_dtype(node)

    return rule


def _in_its_dtype(node: fx.Node) -> fx.Node:
    """A dtype is named only where it is another than that of what is read."""
    if node.kwargs.get("dtype") == _source(node).meta["val"].dtype:
        node.kwargs = {name: value for name, value in node.kwargs.items() if name != "dtype"}
    return node


def _clamped(node: fx.Node) -> fx.Node:
    source, bound = node.args
    node.args = (source, bound, None) if node.target is aten.clamp_min.default else (source, None, bound)
    node.target = aten.clamp.default
    return node


def _masked_fill(node: fx.Node) -> fx.Node:
    """`where`, in the dtype of what is filled."""
    (source, mask, value), result = node.args, node.meta["val"]
    kind = {"dtype": result.dtype, "device": result.device}
    if isinstance(value, fx.Node):
        given = value.meta["val"]
        same = (given.dtype, given.device) == (result.dtype, result.device)
        filling = value if same else insert(node, aten._to_copy.default, value, **kind)
    else:
        filling = insert(node, aten.scalar_tensor.default, value, **kind)
    node.target, node.args = aten.where.self, (mask, filling, source)
    return node


def _prelu(node: fx.Node) -> fx.Node:
    x, weight = node.args
    positive = insert(node, aten.gt.Scalar, x, 0)
    return insert(node, aten.where.self, positive, x, insert(node, aten.mul.Tensor, weight, x), val=node.meta["val"])


def _prelu_backward(node: fx.Node) -> fx.Node:
    """Each of its two results is an operation of its own."""
    grad, x, weight = node.args
    positive = insert(node, aten.gt.Scalar, x, 0)
    for item in list(node.users):
        if item.args[1] == 0:
            chosen = (grad, insert(node, aten.mul.Tensor, weight, grad))
        else:
            value = item.meta["val"]
            zero = insert(node, aten.scalar_tensor.default, 0.0, dtype=value.dtype, device=value.device)
            chosen = (zero, insert(node, aten.mul.Tensor, x, grad))
        item.target, item.args = aten.where.self, (positive, *chosen)
    return node


def _unsafely_indexed(node: fx.Node) -> fx.Node:
    """Rows that a mask hides in one call are read in another."""
    indices, shape = cast("list[fx.Node | None]", node.args[2]), _shape(_source(node))
    if any(index is not None and isinstance(size, torch.SymInt) for index, size in zip(indices, shape, strict=False)):
        raise VertexFunctionError(
            f"the vertex function mixes rows: `{node.target}` takes an index along the dimension of the vertices of a step"
        )
    return node


def _refused(node: fx.Node) -> fx.Node:
    raise VertexFunctionError(
        f"the vertex function uses `{node.target}`, which depends on where values lie in memory; that is not the user's "
        "here. Index, reshape or permute instead"
    )


Rule = Callable[[fx.Node], fx.Node]
RULES: dict[Any, Rule] = {
    **dict.fromkeys((aten.detach.default, aten.alias.default, aten.clone.default, aten.lift_fresh_copy.default,
                     aten.lift_fresh.default), _source_itself),
    aten._to_copy.default: _source_if_the_same,
    **dict.fromkeys((aten.view.default, aten._unsafe_view.default, aten._reshape_alias.default, aten.reshape.default),
                    _resized(aten.reshape.default)),
    aten.expand.default: _resized(aten.expand.default),
    **dict.fromkeys((aten.t.default, aten.transpose.int, aten.permute.default), _permuted),
    **dict.fromkeys((aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims), _squeezed),
    **dict.fromkeys((aten.split.Tensor, aten.unsafe_split.Tensor, aten.split_with_sizes.default,
                     aten.unsafe_split_with_sizes.default), _split),
    aten.unbind.int: _unbound,
    aten.slice.Tensor: _sliced(_source, 2),
    aten.slice_backward.default: _sliced(lambda node: node, 3),
    aten.slice_scatter.default: _sliced(lambda node: node, 3),
    aten.select.int: _selected(_source, 2),
    aten.select_backward.default: _selected(lambda node: node, 3),
    aten.select_scatter.default: _selected(lambda node: node, 3),
    aten.sum.default: _summed(aten.sum.dim_IntList),
    aten.mean.default: _summed(aten.mean.dim),
    aten.sum.dim_IntList: _in_its_dtype,
    aten.mean.dim: _in_its_dtype,
    **{operation.Scalar: _with_tensor(operation.Tensor) for operation in (aten.add, aten.sub, aten.mul, aten.div)},
    aten.div.Scalar_mode: _with_tensor(aten.div.Tensor_mode),
    **dict.fromkeys((aten.clamp_min.default, aten.clamp_max.default), _clamped),
    **dict.fromkeys((aten.masked_fill.Scalar, aten.masked_fill.Tensor), _masked_fill),
    **dict.fromkeys((aten._unsafe_masked_index.default, aten._unsafe_masked_index_put_accumulate.default), _unsafely_indexed),
    aten._prelu_kernel.default: _prelu,
    aten._prelu_kernel_backward.default: _prelu_backward,
}  # fmt: skip
