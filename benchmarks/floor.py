"""The floor: the matrix products that any implementation must do, as single calls that wait for nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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


def floor(products: Sequence[Product], dtype: torch.dtype, forward: bool) -> Callable[[], None]:
    """All products of a training step, or of a forward pass, one after the other, into memory that is there already."""
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    for product in products:
        x = torch.randn(product.rows, product.inputs, dtype=dtype)
        weight = torch.randn(product.outputs, product.inputs, dtype=dtype)
        y = torch.randn(product.rows, product.outputs, dtype=dtype)
        calls.append((x, weight.t(), torch.empty_like(y)))
        if not forward:
            calls.append((y[: product.sends], weight, torch.empty_like(x[: product.sends])))
            calls.append((y.t(), x, torch.empty_like(weight)))

    def run() -> None:
        for a, b, out in calls:
            torch.mm(a, b, out=out)

    return run
