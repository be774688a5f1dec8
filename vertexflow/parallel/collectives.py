"""Collectives inside a vertex function: operations of their own, so that a trace records them, and each other's derivatives.

Gradients of tensors that all ranks have whole are, inside, parts whose sum over ranks is the gradient; those of columns, which
one rank has, are the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from ..graph.symbolic.passes import leaves
from .columns import Columns, joined, own

_MOST_GATHERED = 1 << 22  # elements that are gathered at once for the gradient of a weight
_groups: dict[str, ProcessGroup] = {}
_is_alone: ContextVar[bool] = ContextVar("is_alone", default=False)


def name_of(group: ProcessGroup) -> str:
    """A name for a group, by which operations know it."""
    _groups[group.group_name] = group
    return str(group.group_name)


@contextmanager
def alone() -> Iterator[None]:
    """Let each rank take the place of all others, for a trace that is tried on numbers: nobody waits for anybody."""
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


def share_generators(group: str) -> None:
    """Let the ranks of a group draw the random numbers of the first of them from now on."""
    process_group = _groups[group]
    first = distributed.get_global_rank(process_group, 0)
    on_gpu = distributed.get_backend(process_group) == "nccl"
    states = [(torch.get_rng_state(), torch.set_rng_state)]
    if on_gpu:
        states.append((torch.cuda.get_rng_state(), torch.cuda.set_rng_state))
    for state, set_state in states:
        message = state.cuda() if on_gpu else state
        distributed.broadcast(message, first, group=process_group)
        set_state(message.cpu())


def _gathered(value: Tensor, columns: Columns, group: str, ranks: int) -> Tensor:
    if _is_alone.get():
        return joined([value] * ranks, columns)
    value = value.contiguous()
    pieces = [torch.empty_like(value) for _ in range(ranks)]
    if value.numel():
        distributed.all_gather(pieces, value, group=_groups[group])
    return joined(pieces, columns)


def gather_columns(value: Tensor, dim: int, outer: int, size: int, inner: int, group: str, ranks: int) -> Tensor:
    """The whole of a tensor of which each rank has its columns."""
    return _gathered(value, Columns(dim, outer, size, inner), group, ranks)


def scatter_columns(value: Tensor, dim: int, outer: int, size: int, inner: int, group: str, ranks: int) -> Tensor:
    """This rank's columns of the sum over ranks of a tensor."""
    columns = Columns(dim, outer, size, inner)
    if _is_alone.get():
        return sum(
            (own(value, columns, rank, ranks) for rank in range(1, ranks)), own(value, columns, 0, ranks)
        ).clone()
    process_group = _groups[group]
    if value.is_cuda:
        pieces = [own(value, columns, rank, ranks).contiguous() for rank in range(ranks)]
        result = torch.empty_like(pieces[0])
        if result.numel():
            distributed.reduce_scatter(result, pieces, group=process_group)
        return result
    total = value.contiguous().clone()  # gloo has no reduce-scatter
    if total.numel():
        distributed.all_reduce(total, group=process_group)
    return own(total, columns, distributed.get_rank(process_group), ranks).clone()


def product_of_columns(
    a: Tensor, b: Tensor, dim: int, outer: int, size: int, inner: int, group: str, ranks: int
) -> Tensor:
    """`a @ b`, where each rank has its columns of `a`; the whole of `a` is there while it is multiplied, and not kept."""
    return _gathered(a, Columns(dim, outer, size, inner), group, ranks) @ b


def weight_of_columns(
    a: Tensor, grad: Tensor, dim: int, outer: int, size: int, inner: int, group: str, ranks: int
) -> Tensor:
    """The gradient of `b` in `product_of_columns`: `a.T @ grad` of the whole of `a`, which is gathered some rows at a time."""
    columns = Columns(dim, outer, size, inner)
    total = grad.new_zeros(columns.extent, grad.shape[1])
    step = max(1, _MOST_GATHERED // columns.extent)
    for start in range(0, len(a), step):
        total.addmm_(_gathered(a[start : start + step], columns, group, ranks).t(), grad[start : start + step])
    return total


def dropout_of_columns(
    value: Tensor, probability: float, train: bool, dim: int, outer: int, size: int, inner: int, rank: int, ranks: int
) -> list[Tensor]:
    """This rank's columns of a dropout, and the factor of each of its elements. Each rank draws for all columns, so that all
    have drawn the same, and what one process draws."""
    columns = Columns(dim, outer, size, inner)
    ones = value.new_ones((*value.shape[:dim], columns.extent, *value.shape[dim + 1 :]))
    factor = own(torch.native_dropout(ones, probability, train)[0], columns, rank, ranks).clone()
    return [value * factor, factor]


def _resized(value: Tensor, dim: int, extent: int) -> Tensor:
    return value.new_empty((*value.shape[:dim], extent, *value.shape[dim + 1 :]))


def _gather_fake(value: Tensor, dim: int, outer: int, size: int, inner: int, group: str, ranks: int) -> Tensor:
    return _resized(value, dim, outer * size * inner)


def _scatter_fake(value: Tensor, dim: int, outer: int, size: int, inner: int, group: str, ranks: int) -> Tensor:
    return _resized(value, dim, outer * size * inner // ranks)


def _product_fake(a: Tensor, b: Tensor, *columns: Any) -> Tensor:
    return a.new_empty((a.shape[0], b.shape[1]))


def _weight_fake(
    a: Tensor, grad: Tensor, dim: int, outer: int, size: int, inner: int, group: str, ranks: int
) -> Tensor:
    return grad.new_empty((outer * size * inner, grad.shape[1]))


gather: Any = torch.library.custom_op("vertexflow::gather_columns", gather_columns, mutates_args=())
scatter: Any = torch.library.custom_op("vertexflow::scatter_columns", scatter_columns, mutates_args=())
product: Any = torch.library.custom_op("vertexflow::product_of_columns", product_of_columns, mutates_args=())
weight: Any = torch.library.custom_op("vertexflow::weight_of_columns", weight_of_columns, mutates_args=())
dropout: Any = torch.library.custom_op(
    "vertexflow::dropout_of_columns", dropout_of_columns, mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
for _operator, _fake in (
    (gather, _gather_fake),
    (scatter, _scatter_fake),
    (product, _product_fake),
    (weight, _weight_fake),
    (dropout, lambda value, *_: [torch.empty_like(value), torch.empty_like(value)]),
):
    _operator.register_fake(_fake)


leaves.KEEPS_ZERO |= {torch.ops.vertexflow.gather_columns.default, torch.ops.vertexflow.scatter_columns.default}
leaves.PRODUCTS |= {torch.ops.vertexflow.product_of_columns.default}


def _keep_columns(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.columns = inputs[1:]


def _keep_factors(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.columns = inputs[2:]


def _product_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    a, b = ctx.saved_tensors
    needs_a, needs_b, *_ = ctx.needs_input_grad
    grad_a = scatter(grad @ b.t(), *ctx.columns) if needs_a else None
    grad_b = weight(a, grad, *ctx.columns) if needs_b else None
    return grad_a, grad_b, *[None] * len(ctx.columns)


def _keep_factor(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.save_for_backward(output[1])


dropout.register_autograd(lambda ctx, grads: (grads[0] * ctx.saved_tensors[0], *[None] * 8), setup_context=_keep_factor)
gather.register_autograd(lambda ctx, grad: (scatter(grad, *ctx.columns), *[None] * 6), setup_context=_keep_columns)
scatter.register_autograd(lambda ctx, grad: (gather(grad, *ctx.columns), *[None] * 6), setup_context=_keep_columns)
product.register_autograd(_product_backward, setup_context=_keep_factors)


class Enter(torch.autograd.Function):
    """Tensors that all ranks have whole, as they are; their gradients are added up over ranks."""

    @staticmethod
    def forward(ctx: Any, group: ProcessGroup, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.group = group
        ctx.set_materialize_grads(False)
        return tuple(value.view_as(value) for value in values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *sums_over_ranks(grads, ctx.group)


class Leave(torch.autograd.Function):
    """What all ranks have whole, as it is, or the whole of what each has its columns of; the gradient, which all ranks have,
    goes where it belongs."""

    @staticmethod
    def forward(ctx: Any, group: ProcessGroup, columns: Columns | None, value: Tensor) -> Tensor:
        ctx.columns, ctx.rank, ctx.ranks = columns, distributed.get_rank(group), distributed.get_world_size(group)
        if columns is None:
            return value.view_as(value)
        return _gathered(value, columns, name_of(group), ctx.ranks)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        if ctx.columns is None:
            return None, None, grad if ctx.rank == 0 else torch.zeros_like(grad)
        return None, None, own(grad, ctx.columns, ctx.rank, ctx.ranks)


def sums_over_ranks(values: Sequence[Tensor | None], group: ProcessGroup) -> list[Tensor | None]:
    """The sums over ranks of tensors, those of a dtype in one message."""
    results: list[Tensor | None] = list(values)
    present = [(number, value) for number, value in enumerate(values) if value is not None]
    for dtype in dict.fromkeys(value.dtype for _, value in present):
        chosen = [(number, value) for number, value in present if value.dtype == dtype]
        flat = torch.cat([value.reshape(-1) for _, value in chosen])
        if flat.numel():
            distributed.all_reduce(flat, group=group)
        for (number, value), piece in zip(
            chosen, torch.split(flat, [value.numel() for _, value in chosen]), strict=True
        ):
            results[number] = piece.view(value.shape)
    return results
