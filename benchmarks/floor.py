"""The floor: the matrix products that any implementation must do, as single calls that wait for nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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
    """All products of a training step, or of a forward pass, one after the other, each by the faster of PyTorch's libraries."""
    calls: list[Callable[[], object]] = []
    for product in products:
        x = torch.randn(product.rows, product.inputs, dtype=dtype, device=device)
        weight = torch.randn(product.outputs, product.inputs, dtype=dtype, device=device)
        y = torch.randn(product.rows, product.outputs, dtype=dtype, device=device)
        calls.append(fastest(x, weight.t()))
        if not forward:
            calls.append(fastest(y[: product.sends], weight))
            calls.append(fastest(y.t(), x))

    def run() -> None:
        for call in calls:
            call()

    return run


def fastest(a: Tensor, b: Tensor) -> Callable[[], object]:
    """`a @ b`: by `torch.mm` into memory that is there already, or by oneDNN, where that takes less time.

    On a CPU, `torch.mm` of float32 is MKL's, which leaves out half of what an AMD processor with AVX-512 can do.
    """
    by_mm = partial(torch.mm, a, b, out=a.new_empty(len(a), b.shape[1]))
    if a.device.type != "cpu" or a.dtype != torch.float32 or not torch.backends.mkldnn.is_available() or not len(a):
        return by_mm
    by_onednn = partial(torch.ops.mkldnn._linear_pointwise, a, b.t(), None, "none", [], "")
    return min((by_mm, by_onednn), key=_lowest_time)


def _lowest_time(call: Callable[[], object], repeat: int = 5) -> float:
    call()  # which may prepare something
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


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
