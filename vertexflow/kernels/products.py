"""Products of the rows of each step with one matrix under autograd, where the matrix gets its gradient once for all steps.

Autograd alone computes a gradient of the size of the matrix in each step, and adds them, and does so where nobody wants it. Here
what a backward pass meets in each step is noted with the matrix, and multiplied in one product when all steps are done; that is
differentiated in turn, to any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Pairs = list[tuple[Tensor, Tensor]]  # rows of operands, and the gradients of their products


@dataclass(frozen=True)
class Matrix:
    """A matrix that rows of many steps are multiplied with."""

    value: Tensor


def matrix(value: Tensor) -> Matrix | Tensor:
    """`value`, to be multiplied with by `product`."""
    return Matrix(_Collect.apply(value)) if value.requires_grad and torch.is_grad_enabled() else value  # type: ignore[no-untyped-call]


def product(rows: Tensor, by: Matrix | Tensor) -> Tensor:
    """`rows @ by`."""
    if isinstance(by, Tensor):
        return torch.mm(rows, by)
    return _Product.apply(rows, by.value, False)  # type: ignore[no-untyped-call, no-any-return]


class _Product(torch.autograd.Function):
    """`rows @ by`, or `rows @ by.t()`; the gradient of `by` is left to `_Collect`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, by: Tensor, transposed: bool) -> Tensor:
        ctx.transposed = transposed
        ctx.save_for_backward(rows, by)
        return torch.mm(rows, by.t() if transposed else by)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        rows, by = ctx.saved_tensors
        collect = by.grad_fn
        if torch._C._will_engine_execute_node(collect):
            pairs: Pairs = collect.pairs.setdefault(torch._C._current_graph_task_id(), [])
            pairs.append((grad, rows) if ctx.transposed else (rows, grad))
        of_rows = None
        if ctx.needs_input_grad[0]:
            of_rows = _Product.apply(grad, by, not ctx.transposed)  # type: ignore[no-untyped-call]
        return of_rows, None, None


class _Collect(torch.autograd.Function):
    """The matrix itself; its gradient is that of all products that were noted in this call of backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.pairs = {}  # by call of backward
        ctx.set_materialize_grads(False)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Tensor | None:
        pairs: Pairs = ctx.pairs.pop(torch._C._current_graph_task_id(), [])
        if not pairs:
            return grad
        if len(pairs) == 1:
            ((rows, grads),) = pairs
        else:
            rows, grads = (torch.cat(each) for each in zip(*pairs, strict=True))
        return torch.mm(rows.t(), grads)
