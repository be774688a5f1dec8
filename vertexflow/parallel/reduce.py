"""Sums and means over the rows of all ranks, of which each rank has some, with the gradients of the whole batch.

DDP and `fully_shard` take the mean of the ranks' gradients. The gradient that a rank gets here is therefore the number of ranks
times its own part of the whole, and the mean of these parts is the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from ..errors import InputError, InputTypeError
from ..graph.uncompiled import uncompiled

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

_names_groups = False  # whether some ranks share the graphs of others, so that "all ranks" is no group to average over
_HALF = (torch.float16, torch.bfloat16)


@uncompiled
def mean(values: Tensor, weight: Tensor | None = None, *, group: ProcessGroup | DeviceMesh | None = None) -> Tensor:
    """The mean of all values of all ranks: the loss of the whole batch, whose gradients DDP and `fully_shard` make exact.

    Ranks have different numbers of graphs and of vertices, so that the mean of their means is not the mean over all rows, and
    neither are the gradients. With `loss = vf.parallel.mean(losses)` in the place of `losses.mean()` they are: the denominator is
    that of all ranks. Every rank gets the same number, the loss of the whole batch, to be logged as it is; a rank without rows
    takes part with gradients of zero. Where `torch.distributed` is not initialised, this is the plain mean.

    All ranks call it the same number of times in the same order, as it waits for all of them. What is made of several such means
    (a weighted sum, a square root) has exact gradients as well. With gradients that are accumulated over several calls, use
    `vf.parallel.sum`, as shown there.

    Args:
        values: floating point, `[rows, ...]`: a loss for each row (`reduction="none"`), of this rank; there may be no rows.
        weight: of each value, or of each row: `[rows]`, or as many leading dimensions of `values` as it has; the result is
            sum(weight * values) / sum(weight) over all ranks. Booleans are a mask: what is left out may be NaN. It may require
            grad.
        group: the ranks that share the batch; by default all. A `DeviceMesh` of one dimension stands for its group. After
            `plan.apply` with "hidden" or "stages" it is given: `mesh["data"]`; beside ranks of vertices, `mesh["vertices"]`.

    Returns:
        A tensor without dimensions, in the dtype of `values`; 0 if no rank has a row (or all weights are zero).

    Raises:
        InputError: a value without rows to average, such as a loss that is a mean already; a weight of another shape.
        InputTypeError: values that are not of floating point.

    Example:
        >>> losses = F.cross_entropy(logits, labels, reduction="none")
        >>> loss = vf.parallel.mean(losses, weight=labels != UNLABELLED)
        >>> loss.backward()                                    # through DDP: the gradients of one process
    """
    _check(values, "mean")
    if not values.is_floating_point():
        raise InputTypeError(
            f"vf.parallel.mean takes values of floating point, not {str(values.dtype)[6:]}: values.float()"
        )
    dtype = torch.float32 if values.dtype in _HALF else values.dtype
    if weight is None:
        total, count = values.sum(dtype=dtype), values.new_tensor(values.numel(), dtype=dtype)
    else:
        _check_weight(values, weight)
        weight = weight.reshape(*weight.shape, *[1] * (values.dim() - weight.dim())).expand_as(values)
        if weight.dtype == torch.bool:
            total = torch.where(weight, values, 0).sum(dtype=dtype)
        else:
            total = (values.to(dtype) * weight).sum(dtype=dtype)  # in half precision, products would overflow
        count = weight.sum(dtype=dtype)
    total, count = _over_ranks(torch.stack([total, count]), group).unbind()
    is_none = (total == 0) & (count == 0)
    return (total / count.where(~is_none, 1)).to(values.dtype)


@uncompiled
def sum(values: Tensor, *, group: ProcessGroup | DeviceMesh | None = None) -> Tensor:
    """The sum of all values of all ranks, with gradients that DDP and `fully_shard` make those of the whole; see `mean`.

    For metrics (`vf.parallel.sum(hits)`), and for means over batches that are trained on in parts, whose denominator must be
    known before the first part's backward pass:

        >>> rows = vf.parallel.sum(torch.tensor(num_rows_of_all_parts))       # of this rank; now of all
        >>> for number, part in enumerate(parts):
        ...     with nullcontext() if number == len(parts) - 1 else ddp.no_sync():    # gradients are averaged once
        ...         losses = ...
        ...         (vf.parallel.sum(losses) / rows).backward()

    (with `fully_shard`: `model.set_requires_gradient_sync(number == len(parts) - 1)`.) All ranks have the same number of parts,
    some perhaps without graphs.

    Args:
        values: a tensor of any shape and number of values, of this rank.
        group: as in `mean`.

    Returns:
        A tensor without dimensions; int64 for integers and booleans, else in the dtype of `values`.

    Raises:
        InputTypeError: `values` is no tensor.
    """
    if not isinstance(values, Tensor):
        raise InputTypeError(f"vf.parallel.sum takes a tensor, not {type(values).__name__}: torch.tensor(...)")
    is_half = values.dtype in _HALF
    total = _over_ranks(values.sum(dtype=torch.float32) if is_half else values.sum(), group)
    return total.to(values.dtype) if is_half else total


def _check(values: Any, call: str) -> None:
    if not isinstance(values, Tensor):
        raise InputTypeError(f"vf.parallel.{call} takes a tensor, not {type(values).__name__}")
    if values.dim() == 0:
        raise InputError(
            f"vf.parallel.{call} got a single number; give one value for each row, such as losses with "
            'reduction="none": of numbers that are means already, the mean is not that of all rows'
        )


def _check_weight(values: Tensor, weight: Any) -> None:
    if not isinstance(weight, Tensor):
        raise InputTypeError(f"weight is a {type(weight).__name__}; give a tensor, or None")
    if weight.is_complex():
        raise InputTypeError(f"weight is {str(weight.dtype)[6:]}; give real numbers, or booleans")
    if weight.dim() == 0 or weight.shape != values.shape[: weight.dim()]:
        raise InputError(
            f"weight has the shape {list(weight.shape)}, values {list(values.shape)}; give a weight for each value, or for "
            "each row"
        )


def group_of(group: Any) -> Any:
    """The process group that is meant; None where there is one process, which has none."""
    if not (distributed.is_available() and distributed.is_initialized()):
        if group is not None:
            raise InputError("a group was given, but torch.distributed is not initialised: init_process_group()")
        return None
    if hasattr(group, "get_group"):
        if group.ndim != 1:
            raise InputError(f"group is a DeviceMesh of {group.ndim} dimensions; name one of them: mesh['data']")
        group = group.get_group()
    if group is None:
        return distributed.group.WORLD
    if distributed.get_world_size(group) < 1:
        raise InputError("this rank is not in the group that was given")
    return group


def name_groups() -> None:
    """From now on, `mean` and `sum` are told which ranks share the batch: not all of them do."""
    global _names_groups
    _names_groups = True


def _over_ranks(value: Tensor, group: Any) -> Tensor:
    """The sum over ranks; its gradient is the number of ranks times that of each."""
    chosen = group_of(group)
    if chosen is not None and group is None and _names_groups:
        raise InputError(
            "a model was spread over ranks that share columns or stages, and have the same rows: say which ranks have others, "
            'group=mesh["data"], or mesh["vertices"]; where there is no such dimension, each rank has the whole batch: '
            "losses.mean()"
        )
    return value if chosen is None else _OverRanks.apply(value, chosen)  # type: ignore[no-untyped-call]


class _OverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        ctx.num_ranks = distributed.get_world_size(group)
        total = value.clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.num_ranks, None
