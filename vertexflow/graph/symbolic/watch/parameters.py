"""What is set on parameters and buffers, and what is made of them; while tracing, fake tensors look like what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ....errors import VertexFunctionError


def attributes_of(tensor: Tensor) -> dict[str, Any]:
    """What was set on a tensor, or on the one that it stands for."""
    of_fakes = names_of_fakes()
    return {name: value for name, value in vars(tensor).items() if name not in of_fakes}


def dress(fake: Tensor, tensor: Tensor, attributes: Mapping[str, Any]) -> None:
    """Give a fake tensor the attributes of the one that it stands for; `isinstance` says of it what it says of that one."""
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
    return frozenset({*vars(FakeTensorMode().from_tensor(torch.empty(0))), "_is_param"})


def set_by_hooks(module: nn.Module) -> set[str]:
    """Attributes that PyTorch's own hooks compute anew of parameters, each time before the module runs."""
    names = (
        hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, (BasePruningMethod, SpectralNorm, WeightNorm))
    )
    return {name for name in names if name is not None}
