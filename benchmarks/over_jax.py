"""JAX as a peer: outputs as a pure function of parameters and inputs, compiled by XLA for the structure of one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .harness import Contestant
from .peers import import_jax

Array = Any  # jax.Array, where there is JAX
Parameters = Mapping[str, Array]


def contestant(
    name: str, model: nn.Module, x: Tensor, outputs: Callable[[Any, Parameters, Array], Array]
) -> Contestant:
    """`outputs(jax, parameters, x)` with JAX's own derivative; `parameters` by their names in `model`.

    Arrays of JAX are made once and lie in the memory of the tensors, so that a step copies none, and updates in place are
    seen. (XLA copies what is not aligned as it wants: then contestants do not agree after a step.)

    Raises:
        MissingError: there is no JAX, or the model is not on a CPU.
    """
    jax = import_jax(x)
    parameters = {key: jax.numpy.from_dlpack(value.detach()) for key, value in model.named_parameters()}
    rows = jax.numpy.from_dlpack(x)

    def loss(parameters: Parameters, rows: Array) -> tuple[Array, Array]:
        output = outputs(jax, parameters, rows)
        return (output**2).mean(), output

    run = jax.jit(lambda parameters, rows: outputs(jax, parameters, rows))
    differentiate = jax.jit(jax.grad(loss, has_aux=True))

    def forward() -> Tensor:
        return torch.from_dlpack(jax.block_until_ready(run(parameters, rows)))

    def train() -> Tensor:
        grads, output = jax.block_until_ready(differentiate(parameters, rows))
        for key, value in model.named_parameters():
            value.grad = torch.from_dlpack(grads[key])
        return torch.from_dlpack(output)

    return Contestant(name, forward, train, weighs=False)
