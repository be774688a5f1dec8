"""Operations between vertices and the edges to their children: one symbolic size to the other and back.

`counts` int64 [rows] is how many children each vertex has; the edges of a vertex lie side by side. They are operators of
their own, so that a trace records them, and each other's derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def expand_rows(rows: Tensor, counts: Tensor, edges: int) -> Tensor:
    """[rows, ...] -> [edges, ...]: a vertex's row for each of its edges."""
    return rows.repeat_interleave(counts, 0, output_size=edges)


def sum_edges(values: Tensor, counts: Tensor) -> Tensor:
    """[edges, ...] -> [rows, ...]: the sum over each vertex's edges, in their order; zeros where there are none."""
    if not values.is_floating_point():  # integers, in any order
        into = values.new_zeros((counts.shape[0], *values.shape[1:]))
        return into.index_add_(0, _owners(counts, len(values)), values)
    return _segment_reduce(values, "sum", counts)


def max_edges(values: Tensor, counts: Tensor) -> Tensor:
    """[edges, ...] -> [rows, ...]: the maximum over each vertex's edges; zeros where there are none."""
    if not values.is_floating_point():
        small = values.to(torch.uint8) if values.dtype == torch.bool else values
        into = small.new_zeros((counts.shape[0], *values.shape[1:]))
        owner = _owners(counts, len(values)).view(-1, *[1] * (values.dim() - 1)).expand_as(values)
        return into.scatter_reduce_(0, owner, small, "amax", include_self=False).to(values.dtype)
    largest = _segment_reduce(values, "max", counts)
    return torch.where(_column_of(counts > 0, values), largest, 0)


def _owners(counts: Tensor, edges: int) -> Tensor:
    """int64 [edges]: the row of each edge."""
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=edges)


def _segment_reduce(values: Tensor, reduce: str, counts: Tensor) -> Tensor:
    """`torch.segment_reduce` over dimension 0, without its checks, which refuse empty tensors and wait for the device."""
    if not values.shape[0]:
        return values.new_zeros((counts.shape[0], *values.shape[1:]))
    initial = 0 if reduce == "sum" else None
    return torch.segment_reduce(values.contiguous(), reduce, lengths=counts, axis=0, initial=initial, unsafe=True)


Operator = Callable[..., Tensor]
expand: Operator = torch.library.custom_op("vertexflow::expand", expand_rows, mutates_args=())
segment_sum: Operator = torch.library.custom_op("vertexflow::segment_sum", sum_edges, mutates_args=())
segment_max: Operator = torch.library.custom_op("vertexflow::segment_max", max_edges, mutates_args=())


def _fake_edges(rows: Tensor, counts: Tensor, edges: int) -> Tensor:
    return rows.new_empty((edges, *rows.shape[1:]))


def _fake_rows(values: Tensor, counts: Tensor) -> Tensor:
    return values.new_empty((counts.shape[0], *values.shape[1:]))


def _save_counts(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.edges = inputs[0].shape[0]


def _expand_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return segment_sum(grad, ctx.saved_tensors[0]), None, None


def _sum_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return expand(grad, ctx.saved_tensors[0], ctx.edges), None


def _save_maximum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _max_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    """Those that are largest share the gradient equally; where the largest is NaN, all have NaN, as in `Tensor.amax`."""
    values, counts, largest = ctx.saved_tensors
    is_largest = (values == expand(largest, counts, values.shape[0])).to(grad.dtype)
    share = grad / segment_sum(is_largest, counts)
    return is_largest * expand(share, counts, values.shape[0]), None


torch.library.register_fake("vertexflow::expand", _fake_edges)
torch.library.register_fake("vertexflow::segment_sum", _fake_rows)
torch.library.register_fake("vertexflow::segment_max", _fake_rows)
torch.library.register_autograd("vertexflow::expand", _expand_backward, setup_context=_save_counts)
torch.library.register_autograd("vertexflow::segment_sum", _sum_backward, setup_context=_save_counts)
torch.library.register_autograd("vertexflow::segment_max", _max_backward, setup_context=_save_maximum)

EXPAND = torch.ops.vertexflow.expand.default
SEGMENT_SUM = torch.ops.vertexflow.segment_sum.default
SEGMENT_MAX = torch.ops.vertexflow.segment_max.default


def column(counts: Tensor, like: Tensor) -> Tensor:
    """One number a row, in the dtype of `like`, so that rows like those of `like` can be multiplied by it."""
    return _column_of(counts.to(like.dtype), like)


def segment_softmax(values: Tensor, counts: Tensor, edges: Any) -> Tensor:
    """[edges, ...] -> [edges, ...]: the softmax over each vertex's edges; `edges` is their number."""
    largest = segment_max(values.detach(), counts)
    powers = torch.exp(values - expand(largest, counts, edges))
    return powers / expand(segment_sum(powers, counts), counts, edges)


def segment_min(values: Tensor, counts: Tensor) -> Tensor:
    """[edges, ...] -> [rows, ...]: the minimum over each vertex's edges; zeros where there are none."""
    if not values.is_floating_point():  # ~ reverses the order of all integers, - all but that of the least one
        return torch.where(_column_of(counts > 0, values), ~segment_max(~values, counts), 0)
    return torch.where(_column_of(counts > 0, values), -segment_max(-values, counts), 0)


def segment_logsumexp(values: Tensor, counts: Tensor, edges: Any) -> Tensor:
    """[edges, ...] -> [rows, ...]: log of the sum of exponentials over each vertex's edges, whose number is `edges`.

    -inf where there are none, or where all are -inf; these have gradients of zero.
    """
    largest = segment_max(values.detach(), counts)
    largest = torch.where(largest.isfinite(), largest, 0)
    total = segment_sum(torch.exp(values - expand(largest, counts, edges)), counts)
    is_zero = total == 0
    return torch.where(is_zero, -torch.inf, largest + torch.log(torch.where(is_zero, 1, total)))


def _column_of(rows: Tensor, like: Tensor) -> Tensor:
    """One entry a row, with as many dimensions as `like`."""
    return rows.view(-1, *[1] * (like.dim() - 1))
