"""A call inside the transforms of `torch.func`: traced with plain tensors, computed with what the transforms wrap them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..graph import transforms
from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch
from ..graph.symbolic.roles import shared_key
from ..kernels import autograd
from ..kernels.parts import replay_parts
from .programs import Version
from .selection import Wanted

if TYPE_CHECKING:
    from ..function import VertexFunction


def run_transformed(
    model: VertexFunction,
    version: Version,
    tensors: Mapping[str, Tensor],
    graphs: GraphBatch | Sequence[InputGraph],
    reverse: bool,
    initial: Mapping[str, Tensor] | None,
    inputs: Mapping[str, Tensor],
    shared: Mapping[str, Tensor] | None,
    wanted: Wanted | None,
) -> dict[str, Tensor]:
    """What `model(graphs, ...)` pushes, by name, out of operations that the transforms know, with `tensors` as the model's
    parameters and buffers."""
    with transforms.suspended():
        plain_tensors, plain_initial, plain_inputs, plain_shared = map(
            transforms.plain, (tensors, initial, inputs, shared)
        )
        call, traces = model._bind_call(
            version, plain_tensors, graphs, reverse, plain_initial, plain_inputs, plain_shared, wanted, replay_parts, "torch"
        )  # fmt: skip
    external = dict(call.external)
    for name, value in (initial or {}).items():
        external[name] = value.to(call.external[name].dtype)
    tensors = {**tensors, **{shared_key(name): value for name, value in (shared or {}).items()}}
    outputs = call.run(tensors, inputs, external)
    autograd.add_missing(outputs, traces.values(), [], call.device)
    return call.as_given(outputs)
