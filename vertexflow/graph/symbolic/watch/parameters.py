"""Attributes of parameters and buffers, which fake tensors carry while tracing, and attributes that hooks compute from them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ....errors import VertexFunctionError
from ..fakes import fake_mode


def attributes_of(tensor: Tensor) -> dict[str, Any]:
    """The attributes that were set on a tensor, or, of a fake one, on the tensor that it stands for."""
    fake_names = names_of_fakes()
    return {name: value for name, value in vars(tensor).items() if name not in fake_names}


def dress(fake: Tensor, tensor: Tensor, attributes: Mapping[str, Any]) -> None:
    """Make a fake tensor look like the tensor that it stands for: with its attributes, and a parameter for `isinstance`."""
    for name, value in attributes.items():
        if name in names_of_fakes():
            raise VertexFunctionError(
                f"a parameter or buffer has an attribute {name!r}, which PyTorch's tracing has one of its own for; give it "
                "another name"
            )
        setattr(fake, name, value)
    if isinstance(tensor, nn.Parameter):
        fake._is_param = True


@cache
def names_of_fakes() -> frozenset[str]:
    """The attributes of every fake tensor, and the one that makes it a parameter."""
    return frozenset({*vars(fake_mode().from_tensor(torch.empty(0))), "_is_param"})


def set_by_hooks(module: nn.Module) -> set[str]:
    """The attributes that PyTorch's own hooks compute from parameters each time before the module runs."""
    names = (
        hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, (BasePruningMethod, SpectralNorm, WeightNorm))
    )
    return {name for name in names if name is not None}
