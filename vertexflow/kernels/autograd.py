"""Programs over a batch as one node of PyTorch's autograd graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import VertexFlowError
from ..graph.symbolic.isolation import without_autocast
from . import pool
from .bound import Bound
from .executor import run_backward, run_forward
from .memory import Arena, Values
from .order import Order
from .plain import check_plain, check_real
from .prepared import Prepared, prepared_for


def run(
    bound: Bound,
    order: Order,
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    external: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Run the vertex functions over a schedule.

    `tensors` are the parameters and buffers by qualified name, `external` the states of the external vertices. Inputs and
    outputs have a row for each vertex of the kinds that pull or push them, in the order of the batch. Gradients flow to
    what the programs were made for, and to `external`.
    """
    flat = bound.flat(tensors, inputs)
    prepared = prepared_for(bound, order)
    if prepared is not None and bound.wants_gradients:
        outputs = _Prepared.apply(bound, order, prepared, *flat)  # type: ignore[no-untyped-call]
    elif prepared is not None:
        outputs, _ = prepared.forward.run(flat)
    elif bound.wants_gradients:
        outputs = _Run.apply(bound, order, tuple(external), *external.values(), *flat)  # type: ignore[no-untyped-call]
    else:
        with torch.no_grad():
            outputs, _ = outputs_and_values(bound, order, flat, external)
    return dict(zip(bound.pushes, outputs, strict=True))


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bound: Bound, order: Order, names: tuple[str, ...], *given: Tensor) -> tuple[Tensor, ...]:
        external = dict(zip(names, given, strict=False))
        outputs, values = outputs_and_values(bound, order, given[len(names) :], external)
        ctx.mark_non_differentiable(
            *(out for out, name in zip(outputs, bound.pushes, strict=True) if name not in bound.differentiable)
        )
        ctx.set_materialize_grads(False)
        ctx.bound, ctx.order, ctx.names = bound, order, names
        keep(ctx, bound, values)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        pushed = {name: grad for name, grad in zip(ctx.bound.pushes, grads, strict=True) if grad is not None}
        flat, external = gradients(ctx.bound, ctx.order, kept(ctx), pushed, {})
        return (None, None, None, *(external.get(name) for name in ctx.names), *flat)


class _Prepared(torch.autograd.Function):
    """The same, where it is native code altogether."""

    @staticmethod
    def forward(ctx: Any, bound: Bound, order: Order, prepared: Prepared, *flat: Tensor) -> tuple[Tensor, ...]:
        outputs, memory = prepared.forward.run(flat)
        if len(bound.differentiable) < len(outputs):
            ctx.mark_non_differentiable(
                *(out for out, name in zip(outputs, bound.pushes, strict=True) if name not in bound.differentiable)
            )
        ctx.set_materialize_grads(False)
        ctx.bound, ctx.order, ctx.prepared = bound, order, prepared
        save_tensors(ctx, [memory, *prepared.read_back(flat)])
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        check_backward({name: grad for name, grad in zip(ctx.bound.pushes, grads, strict=True) if grad is not None})
        memory, *read = saved_tensors(ctx)
        return (None, None, None, *ctx.prepared.backward(ctx.bound, ctx.order, memory, read, grads))


class _NoRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, node: fx.Node, device: torch.device, *wanted: Tensor) -> Tensor:
        return _no_rows(node, device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        return (None,) * len(ctx.needs_input_grad)


def no_rows(node: fx.Node, device: torch.device, wanted: Sequence[Tensor]) -> Tensor:
    """An output of which this batch has no row; backward may go through it and finds nothing that `wanted` depend on."""
    if not (wanted and torch.is_grad_enabled()):
        return _no_rows(node, device)
    return _NoRows.apply(node, device, *wanted)  # type: ignore[no-any-return, no-untyped-call]


def _no_rows(node: fx.Node, device: torch.device) -> Tensor:
    value = node.meta["val"]
    return torch.empty((0, *value.shape[1:]), dtype=value.dtype, device=device)


def keep(ctx: Any, bound: Bound, values: Sequence[Values]) -> None:
    """Save what the backward reads: an arena whole, other values each for itself."""
    ctx.layouts, ctx.read, saved = [], [], []
    for one, of in zip(bound.compiled, values, strict=True):
        arena = of.arenas[0]
        nodes = [node for node in (*one.program.read_constants, *one.program.saved) if node not in arena.layout.places]
        ctx.layouts.append(arena.layout)
        ctx.read.append(nodes)
        saved += [*arena.flats.values(), *(of[node] for node in nodes)]
    save_tensors(ctx, saved)


def kept(ctx: Any) -> list[Values]:
    """What was saved, for each group."""
    saved = iter(saved_tensors(ctx))
    values = []
    for layout, nodes in zip(ctx.layouts, ctx.read, strict=True):
        arena = Arena(layout, {dtype: next(saved) for dtype in layout.sizes})
        values.append(Values([(node, next(saved)) for node in nodes], arena))
    return values


def save_tensors(ctx: Any, tensors: Sequence[Tensor]) -> None:
    """Save tensors as they are now: what changes them in place is noticed, what gives a parameter other data is not theirs.

    Of inference tensors, in which nothing would be noticed, copies are saved.
    """
    detached = [tensor.clone() if tensor.is_inference() else tensor.detach() for tensor in tensors]
    ctx.save_for_backward(*detached)
    ctx.forms = [(tensor.dtype, tensor.shape) for tensor in detached]


def saved_tensors(ctx: Any) -> list[Tensor]:
    """What was saved; native code will read it as what it was."""
    saved = list(ctx.saved_tensors)
    check_plain("saved tensor", {str(at): tensor for at, tensor in enumerate(saved)})
    if [(tensor.dtype, tensor.shape) for tensor in saved] != ctx.forms:
        raise VertexFlowError(
            "a tensor that a vertex function saved for its backward pass came back of another dtype or shape; let "
            "torch.autograd.graph.saved_tensors_hooks unpack what they packed"
        )
    return saved


def gradients(
    bound: Bound,
    order: Order,
    values: Sequence[Values],
    pushed: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
) -> tuple[list[Tensor | None], dict[str, Tensor]]:
    """The gradients of parameters and inputs, as many as the programs have, and of the states of external vertices.

    `values` are what the forward saved; `pushed` and `state` the gradients of outputs and states, in the batch's order.
    """
    check_backward(pushed)
    for name, groups in bound.pushes.items():
        for group, rows in zip(groups, order.vertices_among(groups), strict=True):
            node = bound.compiled[group].program.trace.push_grads.get(name)
            if node is not None:
                values[group][node] = _rows_of(pushed.get(name), rows, node)
    state_grads = {name: grad.index_select(0, order.vertex) for name, grad in state.items()}
    with without_autocast(order.vertex.device.type):
        external = run_backward(bound.compiled, order, values, state_grads)
    flat = [_sum_of_groups(bound, values, name) for name in bound.params]
    return [*flat, *(_input_gradient(bound, order, values, name) for name in bound.pulls)], external


def check_backward(pushed: Mapping[str, Tensor]) -> None:
    """Refuse what cannot be gone back through."""
    if torch.is_grad_enabled():
        raise VertexFlowError(
            "gradients of gradients (create_graph=True) through a vertex function are not supported; call backward "
            "or torch.autograd.grad without create_graph"
        )
    check_real()
    check_plain("the gradient of output", pushed)


def outputs_and_values(
    bound: Bound, order: Order, flat: Sequence[Tensor], external: Mapping[str, Tensor] | None = None
) -> tuple[tuple[Tensor, ...], list[Values]]:
    """The pushed outputs, in the batch's order, and all values of the forward parts of each group.

    `flat` are parameters, then inputs; `external` are the states of external vertices.
    """
    tensors = dict(zip([*bound.params, *bound.pulls], flat, strict=True))
    values: list[Values] = []
    for one in bound.compiled:
        trace = one.program.trace
        values.append(Values({**{node: tensors[name] for name, node in trace.params.items()}, **trace.constants}))
    for name, groups in bound.pulls.items():
        among = order.edges_among(groups) if bound.is_edge_input(name) else order.vertices_among(groups)
        for group, rows in zip(groups, among, strict=True):
            values[group][bound.compiled[group].program.trace.pulls[name]] = _select(tensors[name], rows)
    with without_autocast(order.vertex.device.type):  # the graph has its casts in it
        run_forward(bound.compiled, order, values, external)
    outputs = []
    for name, groups in bound.pushes.items():
        nodes = {group: bound.compiled[group].program.trace.pushes[name] for group in groups}
        outputs.append(_in_batch_order(order, {group: values[group][node] for group, node in nodes.items()}))
    return tuple(outputs), values


def _select(values: Tensor, rows: Tensor) -> Tensor:
    out = pool.empty((len(rows), *values.shape[1:]), values.dtype, values.device)
    return torch.index_select(values, 0, rows, out=out)


def _in_batch_order(order: Order, rows: Mapping[int, Tensor]) -> Tensor:
    """What groups have for each of their rows, as one tensor in the order of the batch."""
    if len(order.groups) == 1:
        return _select(rows[0], order.row)
    first = next(iter(rows.values()))
    joined = first.new_empty((sum(map(len, rows.values())), *first.shape[1:]))
    for part, places in zip(rows.values(), order.vertices_among(list(rows)), strict=True):
        joined.index_copy_(0, places.long(), part)
    return joined


def _input_gradient(bound: Bound, order: Order, values: Sequence[Values], name: str) -> Tensor | None:
    groups = bound.pulls[name]
    nodes = {group: bound.compiled[group].program.pull_grads.get(name) for group in groups}
    found = {group: values[group][node] for group, node in nodes.items() if node is not None}
    if not found:
        return None
    if len(order.groups) == 1 and not bound.is_edge_input(name):
        return _select(found[0], order.row)
    among = order.edges_among(groups) if bound.is_edge_input(name) else order.vertices_among(groups)
    first = next(iter(found.values()))
    joined = first.new_empty((sum(map(len, among)), *first.shape[1:]))
    for group, places in zip(groups, among, strict=True):
        if group in found:
            joined.index_copy_(0, places.long(), found[group])
        else:
            joined.index_fill_(0, places.long(), 0)
    return joined


def _sum_of_groups(bound: Bound, values: Sequence[Values], name: str) -> Tensor | None:
    total: Tensor | None = None
    for group in bound.params[name]:
        node = bound.compiled[group].program.param_grads.get(name)
        if node is not None:
            total = values[group][node] if total is None else total + values[group][node]
    return total


def _rows_of(grad: Tensor | None, rows: Tensor, node: fx.Node) -> Tensor:
    if grad is None:  # the caller did not use this output
        like = node.meta["val"]
        return torch.zeros(like.shape[1:], dtype=like.dtype, device=rows.device).expand(len(rows), *like.shape[1:])
    return _select(grad, rows)
