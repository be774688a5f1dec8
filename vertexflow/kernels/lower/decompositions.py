"""Decompositions of operations into those that have loops, as functions of tensors.

Most are PyTorch's own. Here are those of operations that PyTorch does not decompose, or not into operations that have loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch._prims_common import reduction_dims

from ...graph.symbolic.passes.canonical import RULES
from ...graph.symbolic.passes.verify import STAY
from . import positions
from .elements import known_targets
from .exponents import EXPONENTS
from .special import SPECIAL

aten, prims = torch.ops.aten, torch.ops.prims


def _mean(x: Tensor, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    dims = reduction_dims(x.shape, dim)
    return torch.sum(x, dims, keepdim, dtype=dtype) / math.prod(x.shape[d] for d in dims)


def _var_mean(
    x: Tensor, dim: Sequence[int] | None, *, correction: float | None = 1, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    dims = reduction_dims(x.shape, dim)
    mean = _mean(x, dims, True)
    count = math.prod(x.shape[d] for d in dims) - (1 if correction is None else correction)
    squares = torch.sum((x - mean) * (x - mean), dims, keepdim)
    return squares / max(count, 0), mean if keepdim else torch.squeeze(mean, tuple(dims))


def _var(x: Tensor, dim: Sequence[int] | None, *, correction: float | None = 1, keepdim: bool = False) -> Tensor:
    return _var_mean(x, dim, correction=correction, keepdim=keepdim)[0]


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    dims = list(range(x.dim() - len(shape), x.dim()))
    var, mean = _var_mean(x, dims, correction=0, keepdim=True)
    scale = torch.rsqrt(var + eps)
    out = (x - mean) * scale
    out = out if weight is None else out * weight
    return out if bias is None else out + bias, mean, scale


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, rows: int, channels: int, inner: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    shape = [channels // groups, *x.shape[2:]]
    grouped = x.reshape(x.shape[0], groups, math.prod(shape))
    var, mean = _var_mean(grouped, [2], correction=0, keepdim=True)
    scale = torch.rsqrt(var + eps)
    out = ((grouped - mean) * scale).reshape(x.shape)
    ones = [1] * (x.dim() - 2)
    out = out if weight is None else out * weight.view(channels, *ones)
    out = out if bias is None else out + bias.view(channels, *ones)
    return out, mean.squeeze(2), scale.squeeze(2)


def _unfold_backward(grad: Tensor, shape: Sequence[int], dim: int, size: int, step: int) -> Tensor:
    end = (grad.shape[dim] - 1) * step + 1
    placed = [
        aten.slice_backward(grad.select(-1, index), shape, dim, index, index + end, step) for index in range(size)
    ]
    return cast(Tensor, sum(placed[1:], placed[0]))


def _diagonal_backward(grad: Tensor, shape: Sequence[int], offset: int, dim1: int, dim2: int) -> Tensor:
    is_on, placed = _on_diagonal(grad, shape, offset, dim1, dim2)
    return _where(is_on, placed, 0)


def _diagonal_scatter(x: Tensor, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    is_on, placed = _on_diagonal(source, x.shape, offset, dim1, dim2)
    return _where(is_on, placed, x)


def _on_diagonal(x: Tensor, shape: Sequence[int], offset: int, dim1: int, dim2: int) -> tuple[Tensor, Tensor]:
    """Which elements of a value of this shape lie on a diagonal, and a value with `x` on that diagonal."""
    down, across = shape[dim1], shape[dim2]
    rows_above = max(-offset, 0)
    by_row = _padded(x, [rows_above, down - rows_above - x.shape[-1]]).unsqueeze(-1).expand(*x.shape[:-1], down, across)
    numbers = [torch.arange(count, device=x.device) for count in (down, across)]
    is_on = numbers[1].unsqueeze(0) - numbers[0].unsqueeze(1) == offset
    order = [dim for dim in range(len(shape)) if dim not in (dim1, dim2)] + [dim1, dim2]
    places = [order.index(dim) for dim in range(len(shape))]
    return is_on.expand(by_row.shape).permute(places), by_row.permute(places)


def _diag_embed(x: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    rank = x.dim() + 1
    dims, extent = [dim1 % rank, dim2 % rank], x.shape[-1] + abs(offset)
    remaining = iter(x.shape[:-1])
    shape = [extent if dim in dims else next(remaining) for dim in range(rank)]
    return _diagonal_backward(x, shape, offset, *dims)


def _cross(a: Tensor, b: Tensor, *, dim: int = -1) -> Tensor:
    shape = (a * b).shape
    once, twice = ([_rolled(x.expand(shape), (-by,), (dim % len(shape),)) for x in (a, b)] for by in (1, 2))
    return once[0] * twice[1] - twice[0] * once[1]


def _cumulative(reduce: Callable[..., Tensor], neutral: int) -> Callable[..., Tensor]:
    def cumulated(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
        x = x if dtype is None else x.to(dtype)
        if x.dim() == 0:
            return x
        dim, extent = dim % x.dim(), x.shape[dim]
        numbers = torch.arange(extent, device=x.device)
        is_before = (numbers.unsqueeze(0) <= numbers.unsqueeze(1)).view(extent, extent, *[1] * (x.dim() - dim - 1))
        return reduce(_where(is_before, x.unsqueeze(dim), neutral), dim + 1)

    return cumulated


def _broadcast_in_dim(x: Tensor, shape: Sequence[int], dims: Sequence[int]) -> Tensor:
    for dim in range(len(shape)):
        if dim not in dims:
            x = x.unsqueeze(dim)
    return x.expand(*shape)


def _collapse(x: Tensor, start: int, end: int) -> Tensor:
    return x.reshape(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]) if x.dim() else x


def _split_dim(x: Tensor, dim: int, outer: int) -> Tensor:
    return x.reshape(*x.shape[:dim], outer, x.shape[dim] // outer, *x.shape[dim + 1 :])


def _padded(x: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """A value padded with a number, one dimension after the other, the last dimension first."""
    for number in range(len(pad) // 2):
        dim, (num_before, num_behind) = x.dim() - 1 - number, pad[2 * number : 2 * number + 2]
        cut = x.narrow(dim, max(-num_before, 0), x.shape[dim] - max(-num_before, 0) - max(-num_behind, 0))

        def filling(extent: int, dim: int = dim, like: Tensor = cut) -> list[Tensor]:
            shape = [*like.shape[:dim], max(extent, 0), *like.shape[dim + 1 :]]
            return [torch.full(shape, value, dtype=like.dtype, device=like.device)] if extent > 0 else []

        x = torch.cat([*filling(num_before), cut, *filling(num_behind)], dim)
    return x


def _rolled(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    if not dims:
        return _rolled(x.flatten(), shifts, (0,)).view(x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        extent = x.shape[dim]
        cut = extent - shift % extent
        x = torch.cat([x.narrow(dim, cut, extent - cut), x.narrow(dim, 0, cut)], dim)
    return x


def _repeated(x: Tensor, repeats: Sequence[int]) -> Tensor:
    x = x.view(*[1] * (len(repeats) - x.dim()), *x.shape)
    for dim, times in enumerate(repeats):
        x = torch.cat([x] * times, dim) if times > 1 else x.narrow(dim, 0, x.shape[dim] * times)
    return x


def _where(condition: Tensor, a: Any, b: Any) -> Tensor:
    like = next((x for x in (a, b) if isinstance(x, Tensor)), None)
    dtype = torch.result_type(a, b) if like is not None else None
    a, b = (x if isinstance(x, Tensor) else torch.full((), x, dtype=dtype, device=condition.device) for x in (a, b))
    return cast(Tensor, aten.where.self(condition, a.to(dtype or a.dtype), b.to(dtype or b.dtype)))


def _fmax(sign: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: torch.where(torch.isnan(a), b, torch.where(torch.isnan(b) | sign(a, b), a, b))


def _angle(x: Tensor) -> Tensor:
    half_turn = torch.full((), math.pi, dtype=torch.result_type(x, 1.0), device=x.device)
    angle = _where(x < 0, half_turn, 0)
    return _where(torch.isnan(x), x, angle) if x.is_floating_point() else angle


def _rounded_to(x: Tensor, *, decimals: int) -> Tensor:
    if not x.is_floating_point():
        raise NotImplementedError("digits of integers")
    power = 10.0 ** abs(decimals)
    return torch.round(x / power) * power if decimals < 0 else torch.round(x * power) / power


def _iota(
    length: int, *, start: int, step: int, dtype: torch.dtype, device: torch.device, requires_grad: bool
) -> Tensor:
    return torch.arange(start, start + length * step, step, dtype=dtype, device=device)


def _dropout(x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    if train is False or p == 0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    if p == 1:
        return torch.zeros_like(x), torch.zeros_like(x, dtype=torch.bool)
    is_kept = torch.rand_like(x) >= p
    return is_kept * x * (1 / (1 - p)), is_kept


def _bernoulli(x: Tensor, p: float, *, generator: object = None) -> Tensor:
    if not 0 <= p <= 1:
        raise ValueError(f"{p} is no probability")
    return (torch.rand_like(x) < p).to(x.dtype)


def _uniform(x: Tensor, low: float = 0.0, high: float = 1.0, *, generator: object = None) -> Tensor:
    if not 0 <= high - low <= torch.finfo(x.dtype).max:
        raise ValueError(f"there is nothing from {low} to {high}")
    return low + (high - low) * torch.rand_like(x)


def _exponential(x: Tensor, rate: float = 1.0, *, generator: object = None) -> Tensor:
    """Exponentially distributed numbers, positive and finite: the argument of the logarithm is clamped below 1."""
    if not rate > 0:
        raise ValueError(f"{rate} is no rate")
    least = torch.finfo(torch.float32).eps / 2
    return -torch.log((1 - torch.rand_like(x)).clamp(max=1 - least)) / rate


def _rrelu(
    x: Tensor,
    noise: Tensor,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: object = None,
) -> tuple[Tensor, Tensor]:
    if generator is not None:
        raise NotImplementedError("numbers of a generator")
    if not training:
        return torch.where(x > 0, x, x * ((lower + upper) / 2)), noise
    noise = _where(x <= 0, _uniform(x, lower, upper), 1)
    return torch.where(x <= 0, x * noise, x), noise


def _normal(x: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: object = None) -> Tensor:
    if std < 0:
        raise ValueError(f"{std} is no standard deviation")
    return mean + std * torch.randn_like(x)


def _normal_around(mean: Tensor, std: float = 1.0, *, generator: object = None) -> Tensor:
    return mean + _normal(mean, 0.0, std)


def _normal_like(x: Tensor, **options: Any) -> Tensor:
    """Normally distributed numbers (Box and Muller, 1958)."""
    radius = torch.sqrt(-2 * torch.log(1 - torch.rand_like(x)))
    return radius * torch.cos(2 * math.pi * torch.rand_like(x))


def _hardsigmoid_backward(grad: Tensor, x: Tensor) -> Tensor:
    """With PyTorch's value of a sixth, which is rounded to float32 even for float64."""
    return _where((x > -3) & (x < 3), grad * 0.1666666716337204, 0)


_OWN: dict[Any, Callable[..., Any]] = {
    **positions.FINDING,
    **SPECIAL,
    **EXPONENTS,
    aten.mean.dim: _mean, aten.var.correction: _var, aten.var_mean.correction: _var_mean,
    aten.native_layer_norm.default: _layer_norm, aten.constant_pad_nd.default: _padded, aten.roll.default: _rolled,
    aten.repeat.default: _repeated, aten.where.ScalarOther: _where, aten.where.ScalarSelf: _where, aten.where.Scalar: _where,
    aten.native_group_norm.default: _group_norm, aten.diagonal_backward.default: _diagonal_backward,
    aten.diagonal_scatter.default: _diagonal_scatter, aten.unfold_backward.default: _unfold_backward,
    aten.angle.default: _angle, aten.round.decimals: _rounded_to,
    aten.diag_embed.default: _diag_embed, aten.cumsum.default: _cumulative(torch.sum, 0),
    aten.cumprod.default: _cumulative(torch.prod, 1),
    aten.native_dropout.default: _dropout, aten.bernoulli.p: _bernoulli,
    aten.uniform.default: _uniform, aten.exponential.default: _exponential, aten.rrelu_with_noise_functional.default: _rrelu,
    aten.normal_functional.default: _normal, aten.normal.Tensor_float: _normal_around,
    aten.randn_like.default: _normal_like, aten.linalg_cross.default: _cross,
    aten.hardsigmoid_backward.default: _hardsigmoid_backward,
    aten.addcmul.default: lambda x, a, b, *, value=1: x + value * a * b,
    aten.addcdiv.default: lambda x, a, b, *, value=1: x + value * a / b,
    prims.broadcast_in_dim.default: _broadcast_in_dim, prims.collapse_view.default: _collapse,
    prims.split_dim.default: _split_dim, prims.view_of.default: lambda x: x, prims.iota.default: _iota,
    prims.convert_element_type.default: lambda x, dtype: x.to(dtype),
    prims.sum.default: lambda x, dims, output_dtype=None: torch.sum(x, dims, dtype=output_dtype) if dims else x,
    prims.amax.default: lambda x, dims: torch.amax(x, dims), prims.amin.default: lambda x, dims: torch.amin(x, dims),
    prims.var.default: lambda x, dims, correction=1.0: _var(x, dims, correction=correction),
    prims.where.default: _where, prims.add.default: torch.add, prims.sub.default: torch.sub, prims.mul.default: torch.mul,
    prims.div.default: torch.div, prims.fmax.default: _fmax(torch.ge), prims.fmin.default: _fmax(torch.le),
    aten.fmax.default: _fmax(torch.ge), aten.fmin.default: _fmax(torch.le),
}  # fmt: skip


def _addmm(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = a @ b
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (x if beta == 1 else x * beta)


ON_DEMAND: dict[Any, Callable[..., Any]] = {  # only for a node for which `decompose` asks
    aten.addmm.default: _addmm,
    **positions.LOOKING_UP,
}

OF_SIZES: dict[Any, Callable[..., Any]] = {  # operations that read only sizes; `like` is a tensor of these sizes
    aten.randn.default: lambda like, size: torch.randn_like(like),
    aten.normal.float_float: lambda like, mean, std, size: _normal(like, mean, std),
}  # fmt: skip

CUMULATIVE = {aten.cumsum.default, aten.cumprod.default, aten.cummax.default, aten.cummin.default}

NOT_OF_HALVES = {  # not decomposed in half precision: the first rounds each step to it, the second counts in its own steps
    aten.round.decimals,
    aten.nextafter.default,
}

_LOOK_AT_VALUES = {  # these raise errors for some values, which neither loops nor their decompositions do
    aten.bernoulli.default, aten.binary_cross_entropy.default, aten.normal.float_Tensor, aten.normal.Tensor_Tensor,
}  # fmt: skip


@cache
def table(target: Any = None) -> dict[Any, Callable[..., Any]]:
    """The decompositions of operations that have no loops themselves; of those on demand, only that of `target`."""
    from torch._decomp import decomposition_table

    not_decomposed = known_targets() | _LOOK_AT_VALUES | (RULES.keys() - STAY)  # the canonical pass replaces aliases
    table = {target: rule for target, rule in decomposition_table.items() if target not in not_decomposed}
    return {**table, **_OWN, **({target: ON_DEMAND[target]} if target is not None else {})}
