"""The norm of all gradients of a model, of which each rank has some."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ..errors import InputError
from ..function import VertexFunction
from .pipeline import Pipeline


def clip_grad_norm_(model: nn.Module, max_norm: float) -> Tensor:
    """Scale all gradients so that their norm, that of one process, is at most `max_norm`; returns the norm before.

    `torch.nn.utils.clip_grad_norm_`, on each rank, takes the norm of what it has: where ranks share columns or stages, they
    would scale their gradients differently. All ranks call this one, after the backward pass.

    Args:
        model: what `plan.apply` gave, of any strategy; or any other module.
        max_norm: of the gradients of all parameters as one vector (the Euclidean norm), above 0.

    Returns:
        A tensor without dimensions, the same on all ranks.

    Raises:
        InputError: `max_norm` is not a positive number.

    Example:
        >>> vf.parallel.mean(losses, group=mesh["data"]).backward()
        >>> norm = vf.parallel.clip_grad_norm_(model, 1.0)
        >>> optimizer.step()
    """
    if not (isinstance(max_norm, (int, float)) and 0 < max_norm < math.inf):
        raise InputError(f"max_norm is {max_norm!r}; give a positive number")
    parameters = list(model.parameters())
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if any(hasattr(grad, "full_tensor") for grad in grads):  # `fully_shard`, whose tensors know where their parts are
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    modules = list(model.modules())
    pipeline = next((module for module in modules if isinstance(module, Pipeline)), None)
    functions = [module for module in modules if isinstance(module, VertexFunction)]
    pairs: list[tuple[VertexFunction, Any]] = [
        (function, getattr(function, "_divided", None)) for function in functions
    ]
    divided = [(function, of_ranks) for function, of_ranks in pairs if of_ranks is not None]
    cut = {id(function.get_parameter(name)) for function, of_ranks in divided for name in of_ranks.params}
    ranks = divided[0][1].ranks.count if divided else 1
    device = pipeline.device if pipeline is not None else parameters[0].device if parameters else torch.device("cpu")
    total = torch.zeros((), dtype=torch.float64, device=device)
    for parameter in parameters:
        if parameter.grad is not None:
            square = torch.linalg.vector_norm(parameter.grad, dtype=_dtype(parameter.grad)).double().square()
            total += (square if id(parameter) in cut else square / ranks).to(device)  # all ranks have what is whole
    if divided:
        distributed.all_reduce(total, group=divided[0][1].group)
    if pipeline is not None:
        distributed.all_reduce(total, group=pipeline.group)
    norm = total.sqrt()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1)
    for grad in grads:
        grad.mul_(scale.to(grad.device, grad.dtype))
    return norm


def _dtype(grad: Tensor) -> torch.dtype:
    return torch.float64 if grad.dtype == torch.float64 else torch.float32
