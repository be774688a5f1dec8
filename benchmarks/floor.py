"""The floor: the matrix products that any implementation must do, as single calls that wait for nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .device import seconds_of


@dataclass(frozen=True)
class Product:
    """One weight, [outputs, inputs], times `rows` rows in the forward pass.

    In the backward pass there is its own gradient, from all rows, and the gradient of those `sends` rows that came from
    somewhere: not of inputs that need none.
    """

    rows: int
    inputs: int
    outputs: int
    sends: int

    @property
    def operations(self) -> int:
        """Multiplications and additions of a training step."""
        return 2 * self.inputs * self.outputs * (2 * self.rows + self.sends)


def floor(products: Sequence[Product], dtype: torch.dtype, forward: bool, device: str = "cpu") -> Callable[[], None]:
    """All products of a training step, or of a forward pass, one after the other, into memory that is there already."""
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    for product in products:
        x = torch.randn(product.rows, product.inputs, dtype=dtype, device=device)
        weight = torch.randn(product.outputs, product.inputs, dtype=dtype, device=device)
        y = torch.randn(product.rows, product.outputs, dtype=dtype, device=device)
        calls.append((x, weight.t(), torch.empty_like(y)))
        if not forward:
            calls.append((y[: product.sends], weight, torch.empty_like(x[: product.sends])))
            calls.append((y.t(), x, torch.empty_like(weight)))

    def run() -> None:
        for a, b, out in calls:
            torch.mm(a, b, out=out)

    return run


def ceilings(dtype: torch.dtype, size: int = 8192) -> dict[str, float]:
    """What the GPU can do at best: operations a second in a large product, bytes a second, read and written, in a large copy."""
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    product = min(seconds_of(lambda: torch.mm(a, b, out=out), "cuda") for _ in range(10))
    source = torch.randn(2**28, device="cuda")  # 1 GiB, which no cache holds
    target = torch.empty_like(source)
    copy = min(seconds_of(lambda: target.copy_(source), "cuda") for _ in range(10))
    return {"operations_per_second": 2 * size**3 / product, "bytes_per_second": 2 * source.nbytes / copy}


def bound_ms(limits: Mapping[str, float], operations: int, kept: int) -> float:
    """What no version is much faster than: the products at the best rate, or writing and reading what is kept."""
    return 1e3 * max(operations / limits["operations_per_second"], 2 * kept / limits["bytes_per_second"])
