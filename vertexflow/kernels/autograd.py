"""A program as one node of PyTorch's autograd graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import VertexFlowError
from ..graph.trace import Trace
from .edges import Order
from .executor import Compiled, Values, run_backward, run_forward


def run(compiled: Compiled, order: Order, tensors: dict[str, Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run the vertex function over a schedule. `inputs` and the result have their rows in vertex order.

    `tensors` are the parameters and buffers by qualified name. Gradients flow to those that the program was made for.
    """
    found = compiled.program.trace
    flat = [*(tensors[name] for name in found.params), *(inputs[name] for name in found.pulls)]
    if compiled.program.wants_gradients:
        outputs = _Run.apply(compiled, order, *flat)  # type: ignore[no-untyped-call]
    else:
        with torch.no_grad():
            outputs, _ = outputs_and_values(compiled, order, flat)
    return dict(zip(found.pushes, outputs, strict=True))


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compiled: Compiled, order: Order, *flat: Tensor) -> tuple[Tensor, ...]:
        program, found = compiled.program, compiled.program.trace
        outputs, values = outputs_and_values(compiled, order, flat)
        ctx.mark_non_differentiable(
            *(out for out, name in zip(outputs, found.pushes, strict=True) if name not in found.push_grads)
        )
        ctx.set_materialize_grads(False)
        ctx.compiled, ctx.order = compiled, order
        ctx.read = [*program.read_constants, *program.saved]
        ctx.save_for_backward(*(values[node] for node in ctx.read))
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        compiled, order = ctx.compiled, ctx.order
        pushes = compiled.program.trace.pushes
        given = {name: grad for name, grad in zip(pushes, grads, strict=True) if grad is not None}
        flat, _ = gradients(compiled, order, dict(zip(ctx.read, ctx.saved_tensors, strict=True)), given, {})
        return (None, None, *flat)


def gradients(
    compiled: Compiled, order: Order, values: Values, pushed: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[list[Tensor | None], dict[str, Tensor]]:
    """The gradients of parameters and inputs, as many as the program has, and of the states of external vertices.

    `values` are what the forward saved; `pushed` and `state` the gradients of outputs and states, in vertex order.
    """
    if torch.is_grad_enabled():
        raise VertexFlowError(
            "gradients of gradients (create_graph=True) through a vertex function are not supported; call backward "
            "or torch.autograd.grad without create_graph"
        )
    program, found = compiled.program, compiled.program.trace
    push_grads = {
        name: _in_row_order(pushed.get(name), order, node.meta["val"])
        for name, node in found.pushes.items()
        if name in found.push_grads
    }
    state_grads = {name: grad.index_select(0, order.vertex) for name, grad in state.items()}
    with torch.amp.autocast(order.vertex.device.type, enabled=False):
        values = {**values, **found.constants}
        external = run_backward(compiled, order, values, push_grads, state_grads)
    flat = [values[program.param_grads[name]] if name in program.param_grads else None for name in found.params]
    for name in found.pulls:
        grad_node = program.pull_grads.get(name)
        place = order.edges.place if order.edges is not None and found.is_edge_input(name) else order.row
        flat.append(values[grad_node].index_select(0, place) if grad_node is not None else None)
    return flat, external


def outputs_and_values(
    compiled: Compiled, order: Order, flat: Sequence[Tensor], external: Mapping[str, Tensor] | None = None
) -> tuple[tuple[Tensor, ...], Values]:
    """The pushed outputs, in vertex order, and all values of the forward parts.

    `flat` are parameters, then inputs; `external` are the states of external vertices.
    """
    found = compiled.program.trace
    constants: Values = dict(zip(found.params.values(), flat, strict=False))
    given = zip(found.pulls, flat[len(found.params) :], strict=True)
    rows = {name: tensor.index_select(0, _in_order(found, name, order)) for name, tensor in given}
    with torch.amp.autocast(order.vertex.device.type, enabled=False):  # the graph has its casts in it
        values = run_forward(compiled, order, {**constants, **found.constants}, rows, external)
    return tuple(values[node].index_select(0, order.row) for node in found.pushes.values()), values


def _in_order(found: Trace, name: str, order: Order) -> Tensor:
    """The vertex, or the edge, of each row of an input."""
    return order.edges.edge if order.edges is not None and found.is_edge_input(name) else order.vertex


def _in_row_order(grad: Tensor | None, order: Order, like: Tensor) -> Tensor:
    if grad is None:  # the caller did not use this output
        return torch.zeros((), dtype=like.dtype, device=order.vertex.device).expand(order.num_rows, *like.shape[1:])
    return grad.index_select(0, order.vertex)
