"""The rules of the canonical pass: a rule takes a node and returns the node that replaces it.

That may be the node itself, with another operation or other arguments. The nodes in front of it are canonical already; its
arguments are complete, and its dimensions are counted from the front.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx

from ..sizes import is_size
from .rewrite import insert

aten = torch.ops.aten
Rule = Callable[[fx.Node], fx.Node]

END = sys.maxsize  # the end of a slice that reaches to the end of a symbolic extent
DIMS_OF_RESULT = {  # operations whose argument `dim` counts dimensions of the result, not of the operand
    aten.unsqueeze.default, aten.cat.default, aten.stack.default, aten.diag_embed.default, aten.slice_backward.default,
    aten.select_backward.default, aten.diagonal_backward.default, aten.unfold_backward.default,
}  # fmt: skip


def rank_of(node: fx.Node) -> int:
    """How many dimensions the node's argument `dim` chooses from."""
    values = (
        [node.meta.get("val")] if node.target in DIMS_OF_RESULT else [n.meta.get("val") for n in node.all_input_nodes]
    )
    return next((value.dim() for value in values if isinstance(value, Tensor)), 0)


def _shape(node: fx.Node) -> Sequence[Any]:
    return cast(Tensor, node.meta["val"]).shape


def source_of(node: fx.Node) -> fx.Node:
    return cast(fx.Node, node.args[0])


def has_symbols(node: fx.Node) -> bool:
    """Whether a number of rows is in the shape."""
    return any(isinstance(size, torch.SymInt) for size in _shape(node))


def _is_same(first: Any, second: Any) -> bool:
    """Whether two sizes, or shapes, are equal for every number of rows."""
    if isinstance(first, Sequence):
        return len(first) == len(second) and all(map(_is_same, first, second))
    if isinstance(first, torch.SymInt) and isinstance(second, torch.SymInt):
        return bool(first.node.expr == second.node.expr)
    return isinstance(first, int) and isinstance(second, int) and first == second


def source_itself(node: fx.Node) -> fx.Node:
    return source_of(node)


def source_if_the_same(node: fx.Node) -> fx.Node:
    value, source = node.meta["val"], source_of(node).meta["val"]
    return source_of(node) if (value.dtype, value.device) == (source.dtype, source.device) else node


def with_tensor(target: Any) -> Rule:
    """`add.Scalar` becomes `add.Tensor`, with its third argument by name, and the like; comparisons keep their `.Scalar`."""

    def rule(node: fx.Node) -> fx.Node:
        if len(node.args) > 2 and node.args[2] != 1:
            node.kwargs = {**node.kwargs, "alpha": node.args[2]}
        node.target, node.args = target, node.args[:2]
        return node

    return rule


def resized(target: Any) -> Rule:
    """Sizes of -1 become numbers, except the number of rows; an operand that has the shape already is the result."""

    def rule(node: fx.Node) -> fx.Node:
        if _is_same(_shape(node), _shape(source_of(node))):
            return source_of(node)
        node.target = target
        sizes: Any = node.args[1]
        node.update_arg(1, [size if isinstance(size, int) else size_argument
                            for size, size_argument in zip(_shape(node), sizes, strict=True)])  # fmt: skip
        return node

    return rule


def permuted(node: fx.Node) -> fx.Node:
    source, rank = source_of(node), len(_shape(node))
    dims = list(range(rank))
    if node.target is aten.t.default:
        dims.reverse()
    elif node.target is aten.transpose.int:
        first, second = cast("tuple[int, int]", node.args[1:])
        dims[first], dims[second] = second, first
    else:
        dims = cast("list[int]", node.args[1])
    if source.target is aten.permute.default:  # nodes before this one are canonical
        earlier_dims = cast("list[int]", source.args[1])
        source, dims = source_of(source), [earlier_dims[dim] for dim in dims]
    if dims == list(range(rank)):
        return source
    node.target, node.args = aten.permute.default, (source, dims)
    return node


def squeezed(node: fx.Node) -> fx.Node:
    """Only dimensions that are 1 in every step are dropped: a step may have a single row."""
    dims_named: Any = node.args[1] if len(node.args) > 1 else range(rank_of(node))
    shape = _shape(source_of(node))
    dims = [
        dim
        for dim in ([dims_named] if isinstance(dims_named, int) else sorted(dims_named))
        if shape and _is_same(shape[dim], 1)
    ]
    if not dims:
        return source_of(node)
    node.target, node.args = aten.squeeze.dims, (source_of(node), dims)
    return node


def split(node: fx.Node) -> fx.Node:
    dim = cast(int, node.args[2])
    sizes = [piece.shape[dim] for piece in node.meta["val"]]
    if all(isinstance(size, int) for size in sizes):
        node.target, node.args = aten.split_with_sizes.default, (source_of(node), sizes, dim)
    return node


def unbound(node: fx.Node) -> fx.Node:
    """Each piece becomes a selection."""
    for item in list(node.users):
        index = item.args[1]
        item.target, item.args = aten.select.int, (source_of(node), node.args[1], index)
    return node


def joined(node: fx.Node) -> fx.Node:
    """Operands without elements are dropped, and a single operand is the result, unless that would change the dtype."""
    (operands, dim), value = cast("tuple[list[fx.Node], int]", node.args), node.meta["val"]
    if any(operand.meta["val"].dtype != value.dtype for operand in operands):
        return node
    operands = [operand for operand in operands if len(_shape(operand)) == value.dim()]  # not empty ones of any shape
    with_elements = [operand for operand in operands if not _is_same(_shape(operand)[dim], 0)] or operands[:1]
    node.update_arg(0, with_elements)
    return with_elements[0] if len(with_elements) == 1 else node


def sliced(shape_of: Callable[[fx.Node], fx.Node], first: int) -> Rule:
    """The bounds of a slice, arguments `first` and `first + 1`, come to lie in the extent of the node `shape_of(node)`."""

    def rule(node: fx.Node) -> fx.Node:
        dim, start, end, step = cast("tuple[int, Any, Any, int]", node.args[first - 1 : first + 3])
        extent = _shape(shape_of(node))[dim]
        if isinstance(extent, int):
            start = _within(start, 0, extent)
            end = max(_within(end, extent, extent), start)
        else:
            start, end = start or 0, END if end is None or _is_extent(end, extent) else end
        if step == 1 and _is_same(start, 0) and _is_same(end, extent if isinstance(extent, int) else END):
            return source_of(node)
        node.args = (*node.args[: first - 1], dim, start, end, step)
        return node

    return rule


def _within(bound: int | None, default: int, extent: int) -> int:
    bound = default if bound is None else bound
    return min(max(bound + extent if bound < 0 else bound, 0), extent)


def _is_extent(end: Any, extent: torch.SymInt) -> bool:
    value = end.meta["val"] if isinstance(end, fx.Node) else end
    return _is_same(value, extent) or (isinstance(value, int) and value >= 2**31)


def selected(shape_of: Callable[[fx.Node], fx.Node], position: int) -> Rule:
    """The index, which is argument number `position`, is counted from the front."""

    def rule(node: fx.Node) -> fx.Node:
        extent = _shape(shape_of(node))[cast(int, node.args[position - 1])]
        if isinstance(extent, int):
            node.update_arg(position, cast(int, node.args[position]) % extent)
        return node

    return rule


def slice_replaced(node: fx.Node) -> fx.Node:
    """The part before the slice, the new piece, and the part behind it, concatenated."""
    original, replacement, dim, start, _, step = cast("tuple[fx.Node, fx.Node, int, Any, Any, int]", node.args)
    extent, width = _shape(node)[dim], _shape(replacement)[dim]
    if isinstance(extent, int) and step == 1:
        start = _within(start, 0, extent)
        return _around(node, original, replacement, dim, start, start + width)
    if step == 1 and _is_same(width, extent):  # all rows are replaced
        return _in_dtype_of(node, replacement)
    return sliced(lambda node: node, 3)(node)


def row_replaced(node: fx.Node) -> fx.Node:
    original, replacement, dim, index = cast("tuple[fx.Node, fx.Node, int, int]", node.args)
    extent = _shape(node)[dim]
    if not isinstance(extent, int):
        return node
    index %= extent
    return _around(node, original, insert(node, aten.unsqueeze.default, replacement, dim), dim, index, index + 1)


def _around(node: fx.Node, original: fx.Node, replacement: fx.Node, dim: int, start: int, end: int) -> fx.Node:
    value, extent = node.meta["val"], cast(int, _shape(node)[dim])
    if start == end:
        return original
    pieces = [_in_dtype_of(node, replacement)]
    if start:
        pieces.insert(0, insert(node, aten.slice.Tensor, original, dim, 0, start, 1))
    if end < extent:
        pieces.append(insert(node, aten.slice.Tensor, original, dim, end, extent, 1))
    return insert(node, aten.cat.default, pieces, dim, val=value) if len(pieces) > 1 else pieces[0]


def _in_dtype_of(node: fx.Node, value: fx.Node) -> fx.Node:
    """A value, converted in front of `node` if its dtype or device is not that of `node`."""
    fake, wanted = value.meta["val"], node.meta["val"]
    if (fake.dtype, fake.device) == (wanted.dtype, wanted.device):
        return value
    return insert(node, aten._to_copy.default, value, dtype=wanted.dtype, device=wanted.device)


def summed(target: Any) -> Rule:
    """A reduction over everything lists all dimensions."""

    def rule(node: fx.Node) -> fx.Node:
        node.target, node.args = target, (source_of(node), list(range(rank_of(node))), False)
        return in_its_dtype(node)

    return rule


def in_its_dtype(node: fx.Node) -> fx.Node:
    """A dtype is given only where it is not the operand's."""
    if node.kwargs.get("dtype") == source_of(node).meta["val"].dtype:
        node.kwargs = {name: value for name, value in node.kwargs.items() if name != "dtype"}
    return node


def clamped(node: fx.Node) -> fx.Node:
    source, bound = node.args
    node.args = (source, bound, None) if node.target is aten.clamp_min.default else (source, None, bound)
    node.target = aten.clamp.default
    return node


def _sizes(node: fx.Node, value: fx.Node) -> list[Any]:
    """The shape of a value as an argument of operations in front of `node`."""
    return [size if isinstance(size, int) else insert(node, aten.sym_size.int, value, dim)
            for dim, size in enumerate(_shape(value))]  # fmt: skip


def copied(node: fx.Node) -> fx.Node:
    """The tensor that is overwritten gives only its shape and its dtype."""
    over, value = cast("tuple[fx.Node, fx.Node]", node.args[:2])
    value = _in_dtype_of(node, value)
    if not _is_same(_shape(value), _shape(over)):
        value = insert(node, aten.expand.default, value, _sizes(node, over))
    return value


def filled(node: fx.Node) -> fx.Node:
    """A constant becomes `full`, which does not read the tensor that it takes its shape from."""
    name, value = str(node.target).split(".")[1], node.meta["val"]
    number = next((number for word, number in (("zeros", 0), ("ones", 1)) if word in name), node.args[-1])
    if name.endswith("_like") or name == "fill":
        sizes: Any = _sizes(node, source_of(node))
    else:
        sizes = [] if name == "scalar_tensor" else node.args[int(name.startswith("new_"))]
    node.target, node.args = aten.full.default, (sizes, bool(number) if value.dtype == torch.bool else number)
    node.kwargs = {"dtype": value.dtype, "device": value.device}
    return node


def _constant(node: fx.Node, number: Any, like: Tensor) -> fx.Node:
    """A number as a tensor of this dtype."""
    return insert(node, aten.full.default, [], number, dtype=like.dtype, device=like.device)


def masked_fill(node: fx.Node) -> fx.Node:
    """`where`, in the dtype of the tensor that is filled."""
    (source, mask, value), result = node.args, node.meta["val"]
    if is_size(value):
        return node  # refused later, with the line
    filling = _in_dtype_of(node, value) if isinstance(value, fx.Node) else _constant(node, value, result)
    node.target, node.args = aten.where.self, (mask, filling, source)
    return node


def prelu(node: fx.Node) -> fx.Node:
    x, weight = node.args
    positive = insert(node, aten.gt.Scalar, x, 0)
    return insert(node, aten.where.self, positive, x, insert(node, aten.mul.Tensor, weight, x), val=node.meta["val"])


def prelu_backward(node: fx.Node) -> fx.Node:
    """Each of the two results becomes an operation of its own."""
    grad, x, weight = node.args
    positive = insert(node, aten.gt.Scalar, x, 0)
    for item in list(node.users):
        if item.args[1] == 0:
            chosen = (grad, insert(node, aten.mul.Tensor, weight, grad))
        else:
            chosen = (_constant(node, 0.0, item.meta["val"]), insert(node, aten.mul.Tensor, x, grad))
        item.target, item.args = aten.where.self, (positive, *chosen)
    return node


def solved(node: fx.Node) -> fx.Node:
    """Solving for rows with a matrix without rows factorises the matrix in an operation of its own, which reads no rows."""
    matrix, right_side = cast("tuple[fx.Node, fx.Node]", node.args)
    if has_symbols(matrix) or not has_symbols(right_side):
        return node
    factors = insert(node, aten.linalg_lu_factor_ex.default, matrix)
    factor_and_pivots = [insert(node, operator.getitem, factors, number) for number in range(2)]
    for item in list(node.users):
        if item.args[1] == 0:
            item.target, item.args, item.kwargs = (
                aten.linalg_lu_solve.default,
                (*factor_and_pivots, right_side),
                node.kwargs,
            )
        else:
            item.args = (factors, cast(int, item.args[1]) - 1)
    return factors


def determinant(lu: int) -> Rule:
    """Make the matrix contiguous, so that result number `lu` holds the factors of its transpose.

    PyTorch factorizes the transpose of a contiguous matrix, and a matrix of other strides itself. Strides can differ between the
    trace and a run, and with the number of rows, while the derivative solves with the factors in the way that the trace recorded.
    """

    def rule(node: fx.Node) -> fx.Node:
        matrix = cast(fx.Node, node.args[0])
        if matrix.meta["val"].is_complex():  # PyTorch always factorizes it itself
            return node
        readers = [item for item in node.users if item.args[1] == lu]
        while readers:
            user = readers.pop()
            if user.target is aten.linalg_lu_solve.default:
                user.kwargs = {name: value for name, value in user.kwargs.items() if name != "adjoint"}
            else:  # the derivative perturbs the factors of a singular matrix first
                readers += user.users
        return dense(0, unchecked=(0,))(node)

    return rule


def dense(*operands: int, unchecked: tuple[int, ...] = ()) -> Rule:
    """Make these operands contiguous, for operators whose kernels need that; PyTorch's own copies were removed as aliases.

    The operands in `unchecked` are always copied, because at run time they may have strides that the trace does not show: the
    gradient of an output that nobody used is one row of zeros, expanded, and a child's state lies between those of others.
    """

    def rule(node: fx.Node) -> fx.Node:
        for number in operands:
            source: Any = node.args[number]
            if source is not None and (number in unchecked or not source.meta["val"].is_contiguous()):
                copied = insert(node, aten.clone.default, source, memory_format=torch.contiguous_format)
                node.update_arg(number, copied)
        return node

    return rule
