"""Shapes of samples of gamma and Dirichlet distributions, which some versions of PyTorch do not compute for fake tensors."""

from __future__ import annotations

import torch
from torch import Tensor

_library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]


def _like_first(value: Tensor, *operands: object, generator: object = None) -> Tensor:
    return torch.empty_like(value)


for _name in ("_standard_gamma_grad", "_sample_dirichlet", "_dirichlet_grad"):
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{_name}", "Meta"):
        _library.impl(_name, _like_first, "Meta")  # type: ignore[no-untyped-call]
