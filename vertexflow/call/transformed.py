"""A call inside the transforms of `torch.func`: traced with plain tensors, computed with what the transforms wrap them in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from ..graph import transforms
from ..graph.symbolic.roles import shared_key
from ..kernels import autograd
from ..kernels.parts import replay_parts
from .arguments import Arguments
from .bind import bind_call
from .programs import Version

if TYPE_CHECKING:
    from ..function import VertexFunction


def run_transformed(
    model: VertexFunction,
    version: Version,
    tensors: Mapping[str, Tensor],
    call: Arguments,
) -> dict[str, Tensor]:
    """What a call pushes, by name, out of operations that the transforms know, with `tensors` as the model's parameters and
    buffers."""
    with transforms.suspended():
        plain_tensors, initial, inputs, shared = map(
            transforms.plain, (tensors, call.initial, call.inputs, call.shared)
        )
        plain_call = call._replace(initial=initial, inputs=inputs, shared=shared)
        bound, traces = bind_call(model, version, plain_tensors, plain_call, replay_parts, "torch")
    external = dict(bound.external)
    for name, value in (call.initial or {}).items():
        external[name] = value.to(bound.external[name].dtype)
    tensors = {**tensors, **{shared_key(name): value for name, value in (call.shared or {}).items()}}
    outputs = bound.run(tensors, call.inputs, external)
    autograd.add_missing(outputs, traces.values(), [], bound.device)
    return bound.as_given(outputs)
