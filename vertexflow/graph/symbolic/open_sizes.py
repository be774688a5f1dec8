"""Functions of PyTorch that cannot be traced with a symbolic number of rows, in terms of others that can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .vertex import same_size


def take_along_dim(x: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`torch.take_along_dim`: a `torch.gather` whose operands are broadcast along all dimensions but `dim`."""
    if dim is None or x.dim() != indices.dim() or not -x.dim() <= dim < x.dim():
        return torch.take_along_dim(x, indices, dim)
    dim %= x.dim()
    pairs = zip(x.shape, indices.shape, strict=True)
    shape = [index_size if same_size(size, 1) else size for size, index_size in pairs]
    x = x.expand([*shape[:dim], x.shape[dim], *shape[dim + 1 :]])
    indices = indices.expand([*shape[:dim], indices.shape[dim], *shape[dim + 1 :]])
    return torch.gather(x, dim, indices % x.shape[dim])


def _drawn(function: Callable[..., Tensor], fill: str) -> Callable[..., Tensor]:
    """`torch.randn(..., generator=g)` and its like as PyTorch computes them: `fill` fills new memory with random numbers."""

    def draw(*args: Any, generator: torch.Generator | None = None, **options: Any) -> Tensor:
        if generator is None:
            return function(*args, **options)
        size = options.pop("size", args[0] if len(args) == 1 else args)
        return getattr(torch.empty(size, **options), fill)(generator=generator)  # type: ignore[no-any-return]

    return draw


def randint(*args: Any, generator: torch.Generator | None = None, **options: Any) -> Tensor:
    """`torch.randint`; with a generator it draws from 0 to `high - low` and adds `low`."""
    if generator is None:
        return torch.randint(*args, **options)
    bounds, size = (args, options.pop("size")) if "size" in options else (args[:-1], args[-1])
    bounds = (*bounds, *(options.pop(name) for name in ("low", "high") if name in options))
    low, high = bounds if len(bounds) == 2 else (0, *bounds)
    drawn: Tensor = torch.empty(size, **{"dtype": torch.int64, **options}).random_(high - low, generator=generator)
    return drawn.add_(low)


def random_(x: Tensor, *bounds: Any, generator: torch.Generator | None = None, **named: Any) -> Tensor:
    """`Tensor.random_` with one bound: the argument `from` of that with two is a keyword of Python, which no graph can write."""
    bounds = (*bounds, *(named[name] for name in ("from", "to") if name in named))
    if len(bounds) < 2 or None in bounds:
        return x.random_(*bounds, generator=generator)
    return x.random_(bounds[1] - bounds[0], generator=generator).add_(bounds[0])


def _sign(function: Callable[..., Tensor], real_function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.sgn` and its like, for real numbers by `torch.sign`, whose derivative does not ask for sizes."""

    def sign(input: Tensor, **options: Any) -> Tensor:
        return (function if input.is_complex() else real_function)(input, **options)

    return sign


OPEN_SIZES: dict[str, Callable[..., Tensor]] = {
    "sgn": _sign(torch.sgn, torch.sign),
    "sgn_": _sign(Tensor.sgn_, Tensor.sign_),
    "take_along_dim": take_along_dim,
    "rand": _drawn(torch.rand, "uniform_"),
    "randn": _drawn(torch.randn, "normal_"),
    "randint": randint,
    "random_": random_,
}
