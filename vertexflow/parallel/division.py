"""What each operation of a vertex function becomes where its columns are divided over ranks.

`divided` says how the columns of a result are made of columns of operands; where it has no rule, the whole is made and cut. So
any vertex function has a right answer, and the rules decide how much of it is divided.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from ..graph import segments
from ..graph.symbolic.passes.stops import STOP
from . import collectives
from .columns import Columns

aten = torch.ops.aten


@dataclass(frozen=True)
class Ranks:
    """The ranks that share columns: this one, how many there are, and their group by name."""

    rank: int
    count: int
    group: str


@dataclass(frozen=True)
class Use:
    """A value of the whole vertex function, whole (`columns` is None) or the columns of this rank."""

    node: fx.Node
    columns: Columns | None = None


@dataclass(frozen=True)
class Step:
    """An operation of a rank: a function, and arguments in which a `Use` stands for its value."""

    target: Callable[..., Any]
    args: Sequence[Any] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def uses(self) -> list[Use]:
        """The values that it reads."""
        return [leaf for leaf in _leaves((self.args, self.kwargs)) if isinstance(leaf, Use)]


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, (list, tuple)):
        return [leaf for item in tree for leaf in _leaves(item)]
    return [leaf for item in tree.values() for leaf in _leaves(item)] if isinstance(tree, dict) else [tree]


def _used(arguments: Any) -> Any:
    """Arguments of an operation, all of them whole."""
    return map_arg(arguments, Use)  # type: ignore[arg-type]


def whole(node: Any) -> Step:
    """The operation on whole operands."""
    return Step(node.target, *_used((node.args, dict(node.kwargs))))


def divided(node: Any, columns: Columns, ranks: Ranks) -> Step | None:
    """The operation that makes the columns of a rank out of columns of its operands; None if there is no rule for it."""
    rule = _RULES.get(node.target) or (_pointwise if _is_pointwise(node) else None)
    return rule(node, columns, ranks) if rule is not None else None


def _is_pointwise(node: fx.Node) -> bool:
    tags = getattr(node.target, "tags", ())
    is_random = torch.Tag.nondeterministic_seeded in tags
    return torch.Tag.pointwise in tags and not is_random and isinstance(node.meta.get("val"), Tensor)


def extent_of(node: fx.Node, dim: int) -> int | None:
    """The entries of a dimension; None if there are different ones in each step."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or not 0 <= dim < value.dim():
        return None
    extent = value.shape[dim]
    return extent if isinstance(extent, int) else None


def _operand(argument: Any, like: fx.Node, columns: Columns) -> Any:
    """An operand of an operation on elements: its columns, or itself where it is repeated along them."""
    if not isinstance(argument, fx.Node) or not isinstance(argument.meta.get("val"), Tensor):
        return _used(argument)
    dim = columns.dim - like.meta["val"].dim() + argument.meta["val"].dim()
    return Use(argument, columns.along(dim) if dim >= 0 and extent_of(argument, dim) == columns.extent else None)


def _pointwise(node: Any, columns: Columns, ranks: Ranks) -> Step:
    args = [_operand(argument, node, columns) for argument in node.args]
    return Step(node.target, args, _used(dict(node.kwargs)))


def _product(node: Any, columns: Columns, ranks: Ranks) -> Step | None:
    *others, a, b = node.args
    rank = node.meta["val"].dim()
    if node.kwargs:
        return None
    first = Use(a, None if columns.dim == rank - 1 else columns)
    second = Use(b, None if columns.dim == rank - 2 else columns)
    bias = [_operand(other, node, columns) for other in others]
    return Step(node.target, [*bias, first, second])


def _item(node: Any, columns: Columns, ranks: Ranks) -> Step | None:
    """A piece of what is split into gates."""
    source, number = node.args
    if source.target is aten.native_dropout.default and number == 0:
        return Step(operator.getitem, [Use(source, columns), 0])
    if source.target is not aten.split_with_sizes.default:
        return None
    _, sizes, dim = source.args
    if dim == columns.dim:
        if any(size % columns.block for size in sizes):
            return None
        columns = columns.along(dim, sum(sizes) // columns.block)
    return Step(operator.getitem, [Use(source, columns), number])


def _dropout(node: Any, columns: Columns, ranks: Ranks) -> Step:
    source, probability, train = node.args
    args = [Use(source, columns), probability, train is None or bool(train)]
    return Step(
        collectives.dropout, [*args, columns.dim, columns.outer, columns.size, columns.inner, ranks.rank, ranks.count]
    )


def _split(node: Any, columns: Columns, ranks: Ranks) -> Step:
    source, sizes, dim = node.args
    sizes = [size // ranks.count for size in sizes] if dim == columns.dim else sizes
    return Step(node.target, [Use(source, columns), sizes, dim])


def _slice(node: Any, columns: Columns, ranks: Ranks) -> Step | None:
    source, dim, start, end, step = node.args
    if dim != columns.dim:
        return Step(node.target, [Use(source, columns), *_used((dim, start, end, step))])
    extent = extent_of(source, dim)
    if extent is None or step != 1 or any(bound % columns.block for bound in (extent, start, end)):
        return None
    within = columns.along(dim, extent // columns.block)
    return Step(node.target, [Use(source, within), dim, start // ranks.count, end // ranks.count, 1])


def _select(node: Any, columns: Columns, ranks: Ranks) -> Step:
    source, dim, index = node.args
    return Step(node.target, [Use(source, columns.along(columns.dim + (columns.dim >= dim))), dim, index])


def _unsqueeze(node: Any, columns: Columns, ranks: Ranks) -> Step | None:
    source, dim = node.args
    if dim == columns.dim:
        return None
    return Step(node.target, [Use(source, columns.along(columns.dim - (columns.dim > dim))), dim])


def _cat(node: Any, columns: Columns, ranks: Ranks) -> Step | None:
    sources, dim = node.args
    extents = [extent_of(source, columns.dim) or 0 for source in sources]
    if dim != columns.dim:
        return Step(node.target, [[Use(source, columns) for source in sources], dim])
    if any(not extent or extent % columns.block for extent in extents):
        return None
    pieces = [
        Use(source, columns.along(dim, extent // columns.block))
        for source, extent in zip(sources, extents, strict=True)
    ]
    return Step(node.target, [pieces, dim])


def _stack(node: Any, columns: Columns, ranks: Ranks) -> Step | None:
    sources, dim = node.args
    if dim == columns.dim:
        return None
    within = columns.along(columns.dim - (columns.dim > dim))
    return Step(node.target, [[Use(source, within) for source in sources], dim])


def _permute(node: Any, columns: Columns, ranks: Ranks) -> Step:
    source, dims = node.args
    return Step(node.target, [Use(source, columns.along(dims[columns.dim])), dims])


def _local(shape: Sequence[Any], columns: Columns, ranks: Ranks) -> list[Any]:
    """A shape with this rank's part of the divided dimension."""
    sizes = list(_used(tuple(shape)))
    sizes[columns.dim] = columns.extent // ranks.count
    return sizes


def _reshape(node: Any, columns: Columns, ranks: Ranks) -> Step | None:
    source, shape = node.args
    if not isinstance(shape[columns.dim], int):
        return None
    sizes, inside = source.meta["val"].shape, node.meta["val"].shape[columns.dim + 1 :]
    if not all(isinstance(size, int) for size in inside):
        return None
    after = math.prod(inside) * columns.inner  # how many entries each of the divided ones stands for
    behind = 1
    for dim in range(len(sizes) - 1, -1, -1):
        size = sizes[dim]
        if not isinstance(size, int):
            return None
        if after % behind == 0 and after // behind < size and size % (columns.size * (after // behind)) == 0:
            inner = after // behind
            source_columns = Columns(dim, size // (columns.size * inner), columns.size, inner)
            return Step(node.target, [Use(source, source_columns), _local(shape, columns, ranks)])
        behind *= size
    return None


def _expand(node: Any, columns: Columns, ranks: Ranks) -> Step:
    source, shape, *more = node.args
    return Step(node.target, [_operand(source, node, columns), _local(shape, columns, ranks), *more])


def _full(node: Any, columns: Columns, ranks: Ranks) -> Step:
    shape, *more = node.args
    return Step(node.target, [_local(shape, columns, ranks), *more], dict(node.kwargs))


def _reduced(node: Any, columns: Columns, ranks: Ranks) -> Step | None:
    source, dims, *more = node.args
    keeps = bool(more[0]) if more else False
    kept = [dim for dim in range(source.meta["val"].dim()) if keeps or dim not in dims]
    dim = kept[columns.dim]
    if dim in dims:
        return None
    return Step(node.target, [Use(source, columns.along(dim)), dims, *more], dict(node.kwargs))


def _softmax(node: Any, columns: Columns, ranks: Ranks) -> Step | None:
    source, dim, *more = node.args
    return None if dim == columns.dim else Step(node.target, [Use(source, columns), dim, *more])


def _embedding(node: Any, columns: Columns, ranks: Ranks) -> Step | None:
    table, index, *more = node.args
    if columns.dim != node.meta["val"].dim() - 1:
        return None
    return Step(node.target, [Use(table, columns.along(1)), Use(index), *more])


def _of_edges(node: Any, columns: Columns, ranks: Ranks) -> Step:
    source, *more = node.args
    return Step(node.target, [Use(source, columns), *_used(tuple(more))])


def _same(node: Any, columns: Columns, ranks: Ranks) -> Step:
    return Step(node.target, [Use(node.args[0], columns), *node.args[1:]], dict(node.kwargs))


_RULES: dict[Any, Callable[[Any, Columns, Ranks], Step | None]] = {
    **dict.fromkeys((aten.mm.default, aten.addmm.default, aten.bmm.default), _product),
    operator.getitem: _item, aten.native_dropout.default: _dropout, aten.split_with_sizes.default: _split,
    aten.slice.Tensor: _slice, aten.select.int: _select, aten.unsqueeze.default: _unsqueeze, aten.cat.default: _cat,
    aten.stack.default: _stack, aten.permute.default: _permute, aten.reshape.default: _reshape, aten.expand.default: _expand,
    aten.full.default: _full, aten._softmax.default: _softmax, aten.embedding.default: _embedding,
    **dict.fromkeys((aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default), _reduced),
    **dict.fromkeys((segments.EXPAND, segments.SEGMENT_SUM, segments.SEGMENT_MAX), _of_edges),
    **dict.fromkeys((aten.clone.default, aten._to_copy.default, STOP), _same),
}  # fmt: skip
