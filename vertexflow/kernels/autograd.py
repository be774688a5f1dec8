"""Programs over a batch as one node of PyTorch's autograd graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import VertexFlowError
from ..graph.symbolic.isolation import without_autocast
from ..graph.symbolic.trace import Trace
from .bound import Bound
from .executor import run_backward, run_forward
from .memory import pool
from .memory.layout import Arena, Values
from .memory.overwriting import Readers
from .order import Order
from .plain import are_usual, check_plain, check_real, is_recorded
from .prepared.structures import Prepared, prepared_for
from .second_order import gradients as second
from .second_order import replay


def run(
    bound: Bound,
    order: Order,
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    external: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Run the vertex functions over a schedule; returns the pushed outputs.

    `tensors` are the parameters and buffers by qualified name, `external` the states of the external vertices. Inputs and
    outputs have a row for each vertex of the kinds that pull or push them, in the order of the batch; outputs of vertices only
    for those that the order selects. Gradients flow to the tensors for which the programs compute gradients, and to `external`.
    """
    return run_flat(bound, order, bound.flat(tensors, inputs), external)


def run_flat(bound: Bound, order: Order, flat: Sequence[Tensor], external: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`run` with parameters, then inputs, in one list."""
    if bound.is_differentiated_twice and torch.is_grad_enabled() and not second.are_saved_by_hooks():
        by_name = replayed(bound, order, flat, external, True)
        if all(by_name[name].requires_grad for name in bound.differentiable):
            return second.watched(bound, by_name)
        # Nothing leads to some output in this structure, which the programs say with gradients of zero.
    prepared = prepared_for(bound, order)
    if prepared is not None and bound.wants_gradients:
        outputs = _apply_prepared((bound, order, prepared), *flat)
    elif prepared is not None:
        outputs, _ = prepared.forward.run(flat)
    elif bound.wants_gradients:
        outputs = _Run.apply(bound, order, tuple(external), *external.values(), *flat)  # type: ignore[no-untyped-call]
    else:
        with torch.no_grad():
            outputs, _ = outputs_and_values(bound, order, flat, external)
    by_name = dict(zip(bound.pushes, outputs, strict=True))
    for name in () if prepared is not None else bound.pushes:
        index = None if bound.is_edge_output(name) else order.selected_index(name, bound.pushes[name])
        if index is not None:
            by_name[name] = by_name[name].index_select(0, index)
    return by_name


def run_empty(
    bound: Bound,
    device: torch.device,
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    external: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """`run` for a batch without graphs: outputs without rows, and gradients of zero for what gets any in other batches, so that
    processes that wait for each other's gradients find the same ones everywhere."""
    traces = {name: bound.compiled[groups[0]].program.trace for name, groups in bound.pushes.items()}
    outputs = {name: _no_rows(trace.pushes[name], device) for name, trace in traces.items()}
    if not bound.wants_gradients:
        return outputs
    names = [*filter(bound.has_param_gradient, bound.params)], [*filter(bound.has_input_gradient, bound.pulls)]
    leaves = [*(tensors[name] for name in names[0]), *(inputs[name] for name in names[1]), *external.values()]
    differentiable = {name: value for name, value in outputs.items() if name in bound.differentiable}
    return {**outputs, **with_zero_gradients(differentiable, leaves)}


def with_zero_gradients(outputs: Mapping[str, Tensor], leaves: Sequence[Tensor]) -> dict[str, Tensor]:
    """The same outputs, as results of `leaves` too, whose gradients are zero, not missing."""
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    real = {name: value for name, value in outputs.items() if value.is_floating_point() or value.is_complex()}
    if not (wanted and real and torch.is_grad_enabled()):
        return dict(outputs)
    results = _WithZeroGradients.apply(len(real), *real.values(), *wanted)  # type: ignore[no-untyped-call]
    return {**outputs, **dict(zip(real, results, strict=True))}


class _WithZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.likes = [leaf.new_empty(()).expand(leaf.shape) for leaf in tensors[count:]]
        ctx.set_materialize_grads(False)
        return tuple(value.detach() for value in tensors[:count])  # views could not be changed in place

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, *grads, *(like.new_zeros(like.shape) for like in ctx.likes))


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bound: Bound, order: Order, names: tuple[str, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        external = dict(zip(names, tensors, strict=False))
        outputs, values = outputs_and_values(bound, order, tensors[len(names) :], external)
        set_differentiable(ctx, dict(zip(bound.pushes, outputs, strict=True)), bound.differentiable)
        ctx.bound, ctx.order, ctx.names = bound, order, names
        second.remember(ctx, tensors)
        keep_values(ctx, bound, values)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        pushed = {name: grad for name, grad in zip(ctx.bound.pushes, grads, strict=True) if grad is not None}
        if torch.is_grad_enabled():
            values = kept_values(ctx)  # which notices a second backward pass, and other changes
            del values

            def outputs_of(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
                external = dict(zip(ctx.names, tensors, strict=False))
                return replayed(ctx.bound, ctx.order, tensors[len(ctx.names) :], external, False)

            results = second.gradients(ctx, pushed, outputs_of)
            ctx.bound.is_differentiated_twice = True  # unless that was refused
            return (None, None, None, *results)
        flat, external = gradients(ctx.bound, ctx.order, kept_values(ctx), pushed, {})
        return (None, None, None, *(external.get(name) for name in ctx.names), *flat)


class _PreparedRun(torch.autograd.Function):
    """The same where both passes are prepared."""

    @staticmethod
    def forward(ctx: Any, run: tuple[Bound, Order, Prepared], *flat: Tensor) -> tuple[Tensor, ...]:
        prepared = run[2]
        outputs, kept = prepared.forward.run(flat)
        if prepared.without_gradient:
            ctx.mark_non_differentiable(*(outputs[at] for at in prepared.without_gradient))
        ctx.set_materialize_grads(False)
        ctx.run = run
        second.remember(ctx, flat)
        save_tensors(ctx, [kept, *prepared.read_back(flat)])
        ctx.readers = Readers(kept)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        bound, order, prepared = ctx.run
        kept, *read = saved_tensors(ctx)
        if torch.is_grad_enabled():
            pushed = {name: grad for name, grad in zip(bound.pushes, grads, strict=True) if grad is not None}
            results = second.gradients(ctx, pushed, lambda flat: replayed(bound, order, flat, {}, True))
            bound.is_differentiated_twice = True  # unless that was refused
            return None, *results
        check_backward(bound.pushes, grads)
        overwrites = ctx.readers.begin(kept)
        try:
            return (None, *prepared.backward(bound, order, kept, read, grads, overwrites))
        finally:
            ctx.readers.end()


# As `_PreparedRun.apply` does, but for what that does under transforms of `torch.func`, where this does not run.
_apply_prepared: Callable[..., tuple[Tensor, ...]] = super(torch.autograd.Function, _PreparedRun).apply


def replayed(
    bound: Bound, order: Order, flat: Sequence[Tensor], external: Mapping[str, Tensor], selects: bool
) -> dict[str, Tensor]:
    """The outputs, out of operations that PyTorch differentiates; of all vertices, or of those that the order `selects`."""
    tensors = dict(zip(bound.params, flat, strict=False))
    inputs = dict(zip(bound.pulls, flat[len(tensors) :], strict=True))
    return replay.run(bound, order, tensors, inputs, external, selects)


def set_differentiable(ctx: Any, outputs: Mapping[str, Tensor], differentiable: Set[str]) -> None:
    """Declare which outputs have gradients; a missing gradient of an output stays None."""
    ctx.mark_non_differentiable(*(output for name, output in outputs.items() if name not in differentiable))
    ctx.set_materialize_grads(False)


class _NoRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, node: fx.Node, device: torch.device, *wanted: Tensor) -> Tensor:
        return _no_rows(node, device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        return (None,) * len(ctx.needs_input_grad)


def add_missing(
    outputs: dict[str, Tensor], traces: Iterable[Trace], leaves: Sequence[Tensor], device: torch.device
) -> bool:
    """Add the outputs of kinds that are not in a batch, without rows; returns whether there are any."""
    num_outputs = len(outputs)
    for trace in traces:
        for name, node in trace.pushes.items():
            if name not in outputs:
                wanted = [value for value in leaves if value.requires_grad] if name in trace.push_grads else []
                outputs[name] = no_rows(node, device, wanted)
    return len(outputs) > num_outputs


def no_rows(node: fx.Node, device: torch.device, wanted: Sequence[Tensor]) -> Tensor:
    """An output that has no row in this batch; the gradients that a backward pass finds through it, for `wanted`, are None."""
    if not (wanted and torch.is_grad_enabled()):
        return _no_rows(node, device)
    return _NoRows.apply(node, device, *wanted)  # type: ignore[no-any-return, no-untyped-call]


def _no_rows(node: fx.Node, device: torch.device) -> Tensor:
    value = node.meta["val"]
    return torch.empty((0, *value.shape[1:]), dtype=value.dtype, device=device)


def keep_values(ctx: Any, bound: Bound, values: Sequence[Values]) -> None:
    """Save the values that the backward pass reads: the memory of arenas, and tensors that do not lie in them."""
    ctx.layouts, ctx.read, saved = [], [], []
    for compiled, values_of_group in zip(bound.compiled, values, strict=True):
        arena, program = values_of_group.arenas[0], compiled.program
        nodes = [node for node in (*program.read_constants, *program.saved) if node not in arena.layout.places]
        ctx.layouts.append(arena.layout)
        ctx.read.append(nodes)
        saved += [*arena.flats.values(), *(values_of_group[node] for node in nodes)]
    save_tensors(ctx, saved)


def kept_values(ctx: Any) -> list[Values]:
    """The saved values of each group."""
    saved = iter(saved_tensors(ctx))
    values = []
    for layout, nodes in zip(ctx.layouts, ctx.read, strict=True):
        arena = Arena(layout, {dtype: next(saved) for dtype in layout.sizes})
        values.append(Values([(node, next(saved)) for node in nodes], arena))
    return values


def save_tensors(ctx: Any, tensors: Sequence[Tensor]) -> None:
    """Save tensors as they are now: changes in place are noticed, while a parameter that is given other data (`p.data = ...`)
    leaves them as they are. Inference tensors, in which no change would be noticed, are copied.
    """
    detached = [tensor.clone() if tensor.is_inference() else tensor.detach() for tensor in tensors]
    ctx.save_for_backward(*detached)
    ctx.forms = [(tensor.dtype, tensor.shape) for tensor in detached]


def saved_tensors(ctx: Any) -> list[Tensor]:
    """The saved tensors, checked: native code reads them as the dtype and shape that they were saved with."""
    saved = list(ctx.saved_tensors)
    if is_recorded() or not are_usual(saved):
        check_plain("saved tensor", {str(number): tensor for number, tensor in enumerate(saved)})
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
    """The gradients of parameters and inputs, None where the programs compute none, and of the states of external vertices.

    `values` are those that the forward pass saved; `pushed` and `state` are the gradients of outputs and of states, in the
    batch's order.
    """
    check_backward(pushed, pushed.values())
    for name, groups in bound.pushes.items():
        for group, rows in zip(groups, order.batch_rows(groups, bound.is_edge_output(name)), strict=True):
            node = bound.compiled[group].program.trace.push_grads.get(name)
            if node is not None:
                values[group][node] = _rows_of(pushed.get(name), rows, node)
    state_grads = {name: grad.index_select(0, order.vertex) for name, grad in state.items()}
    with without_autocast(order.vertex.device.type):
        external = run_backward(bound.compiled, order, values, state_grads)
    flat = [_sum_of_groups(bound, values, name) for name in bound.params]
    return [*flat, *(_input_gradient(bound, order, values, name) for name in bound.pulls)], external


def check_backward(names: Iterable[str], pushed: Iterable[Tensor | None]) -> None:
    """Refuse gradients that are no plain tensors, and to differentiate the backward pass itself (of a run that grows)."""
    if torch.is_grad_enabled():
        raise VertexFlowError(
            "gradients of gradients (create_graph=True) through a run that grows (model.start) are not supported by generated "
            'code; use backend="eager", or compute the whole structure by one call of the model'
        )
    given = [grad for grad in pushed if grad is not None]
    if is_recorded() or not are_usual(given):
        check_real()
        named = zip(names, pushed, strict=True)
        check_plain("the gradient of output", {name: grad for name, grad in named if grad is not None})


def outputs_and_values(
    bound: Bound, order: Order, flat: Sequence[Tensor], external: Mapping[str, Tensor] | None = None
) -> tuple[tuple[Tensor, ...], list[Values]]:
    """Run the forward pass: the pushed outputs, in the batch's order, and the values of each group.

    `flat` are parameters, then inputs; `external` are the states of external vertices.
    """
    tensors = dict(zip(bound.params, flat, strict=False))
    inputs = dict(zip(bound.pulls, flat[len(tensors) :], strict=True))  # apart: one may have the name of a parameter
    values: list[Values] = []
    for compiled in bound.compiled:
        trace = compiled.program.trace
        values.append(Values({**{node: tensors[name] for name, node in trace.params.items()}, **trace.constants}))
    for name, groups in bound.pulls.items():
        for group, rows in zip(groups, order.batch_rows(groups, bound.is_edge_input(name)), strict=True):
            values[group][bound.compiled[group].program.trace.pulls[name]] = _select(inputs[name], rows)
    with without_autocast(order.vertex.device.type):  # the graph has its casts in it
        run_forward(bound.compiled, order, values, external)
    outputs = []
    for name, groups in bound.pushes.items():
        pushed = {group: values[group][bound.compiled[group].program.trace.pushes[name]] for group in groups}
        outputs.append(_in_batch_order(order, groups, pushed, bound.is_edge_output(name)))
    return tuple(outputs), values


def _select(values: Tensor, rows: Tensor) -> Tensor:
    out = pool.empty((len(rows), *values.shape[1:]), values.dtype, values.device)
    return torch.index_select(values, 0, rows, out=out)


def _input_gradient(bound: Bound, order: Order, values: Sequence[Values], name: str) -> Tensor | None:
    groups = bound.pulls[name]
    nodes = {group: bound.compiled[group].program.pull_grads.get(name) for group in groups}
    grads = {group: values[group][node] for group, node in nodes.items() if node is not None}
    return _in_batch_order(order, groups, grads, bound.is_edge_input(name)) if grads else None


def _in_batch_order(order: Order, groups: Sequence[int], rows: Mapping[int, Tensor], of_edges: bool = False) -> Tensor:
    """One tensor in the order of the batch, with the rows of these groups; zeros for a group without `rows`."""
    if len(order.groups) == 1 and not of_edges:
        return _select(rows[0], order.row)
    batch_rows = order.batch_rows(groups, of_edges)
    like = next(iter(rows.values()))
    joined = like.new_empty((order.num_batch_rows(groups, of_edges), *like.shape[1:]))
    others = order.other_edges(groups) if of_edges else None
    if others is not None:
        joined.index_fill_(0, others.long(), 0)
    for group, index in zip(groups, batch_rows, strict=True):
        if group in rows:
            joined.index_copy_(0, index.long(), rows[group])
        else:
            joined.index_fill_(0, index.long(), 0)
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
