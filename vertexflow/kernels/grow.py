"""A run that grows: states and outputs are kept as vertices are added, and backward goes through all extensions.

Every extension and every reading is one node of PyTorch's autograd graph. A token, a tensor without content, connects each
extension to the next one and to the readings in between, so that backward visits readings before the extension that they
read, and extensions in reverse. The gradients themselves lie in buffers of one row a vertex, so that backward takes a time
linear in what was computed, however often the run was extended.

Where all is native code, one call computes an extension, its reading of earlier states and its writing of new ones, and one
call its backward pass (`extension`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import VertexFunctionError
from .autograd import (
    check_backward,
    gradients,
    keep_values,
    kept_values,
    outputs_and_values,
    save_tensors,
    saved_tensors,
    set_differentiable,
)  # fmt: skip
from .bound import Bound
from .extension import Extension, extension_for
from .memory import Values
from .order import Order
from .plain import check_plain


@dataclass
class Grown:
    """States and outputs of all vertices so far, in the order in which they were added; buffers double as they fill.

    Row 0 of a state is zeros, which missing children are; vertex v has row v + 1.
    """

    count: int = 0
    states: dict[str, Tensor] = field(default_factory=dict)  # [1 + capacity, *shape]
    pushes: dict[str, Tensor] = field(default_factory=dict)  # [capacity, ...]
    differentiable: set[str] = field(default_factory=set)  # names of pushes
    # Programs whose states and outputs were compared with the buffers, and the number of vertices that these have room for.
    _room: dict[int, tuple[Bound, int]] = field(default_factory=dict)
    # Of each call of backward that is under way: in several threads, or in a hook of another one.
    _gradients: dict[int, tuple[dict[str, Tensor], dict[str, Tensor]]] = field(default_factory=dict)

    def reserve(self, bound: Bound, count: int, device: torch.device) -> None:
        """Make room for `count` further rows of the states and outputs of these programs.

        Raises:
            VertexFunctionError: earlier rows are of another shape or dtype.
        """
        known = self._room.get(id(bound))
        if known is not None and self.count + count <= known[1]:
            return
        room = 1 << 62
        for buffers, nodes, first in ((self.states, bound.states, 1), (self.pushes, bound.outputs, 0)):
            for name, node in nodes.items():
                value, buffer, used = node.meta["val"], buffers.get(name), self.count + first
                if buffer is not None and (buffer.dtype != value.dtype or buffer.shape[1:] != tuple(value.shape[1:])):
                    raise VertexFunctionError(
                        f"{'state' if first else 'output'} {name!r} of the new vertices is {_shown(value)}, that of earlier ones "
                        f"{_shown(buffer)}: the model has changed since; begin another run"
                    )
                if buffer is None or len(buffer) < used + count:
                    shape = (first + max(2 * self.count, self.count + count), *map(int, value.shape[1:]))
                    with torch.inference_mode(False):
                        larger = torch.zeros(shape, dtype=value.dtype, device=device)
                    if buffer is not None:  # it has no rows of later vertices that do not push it
                        filled = min(used, len(buffer))
                        larger[:filled] = buffer[:filled]
                    buffer = buffers[name] = larger
                room = min(room, len(buffer) - first)
        self._room[id(bound)] = bound, room

    def add(self, count: int, differentiable: Set[str]) -> None:
        """Count vertices whose rows are written now, and whose outputs of these names have gradients."""
        self.count += count
        self.differentiable |= differentiable

    def gradients(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The gradient buffers of this call of backward, for states and for pushes by name; they are created when needed, have
        the rows of the buffers of states and pushes, and go when the call ends."""
        task = torch._C._current_graph_task_id()
        buffers = self._gradients.get(task)
        if buffers is None:
            buffers = self._gradients[task] = {}, {}
            torch.autograd.Variable._execution_engine.queue_callback(
                functools.partial(self._gradients.__delitem__, task)
            )
        return buffers

    def state_gradient(self, name: str, like: fx.Node) -> Tensor:
        """The gradient buffer of a state, whose gradients are like the values of a node."""
        buffers, _ = self.gradients()
        if name not in buffers:
            value = like.meta["val"]
            shape = (1 + self.count, *self.states[name].shape[1:])
            buffers[name] = torch.zeros(shape, dtype=value.dtype, device=self.states[name].device)
        return buffers[name]

    def add_output_gradient(self, name: str, rows: Tensor, grad: Tensor) -> None:
        """Add `grad` to the gradients of these rows of an output; a row may be given more than once, and the order of the sum
        is fixed."""
        _, buffers = self.gradients()
        if name not in buffers:
            buffers[name] = grad.new_zeros((self.count, *grad.shape[1:]))
        buffers[name].index_put_((rows,), grad, accumulate=True)


def extend(
    grown: Grown,
    token: Tensor,
    bound: Bound,
    order: Order,
    earlier: Tensor,
    flat: Sequence[Tensor],
) -> Tensor:
    """Compute `order.num_rows` new vertices and add them. Returns the new token.

    `earlier` int32 [num_external]: the rows, in buffers of states, of the vertices that the new ones read; `flat` are parameters,
    then inputs, in vertex order.
    """
    extension = extension_for(bound, order)
    if bound.wants_gradients and extension is not None:
        token = _apply(_PreparedExtend, grown, bound, order, extension, earlier, token, *flat)
        return token
    if bound.wants_gradients:
        token = _apply(_Extend, grown, bound, order, earlier, token, *flat)
        return token
    if extension is not None:
        _run_prepared(grown, bound, order, extension, earlier, token, flat)
    else:
        with torch.no_grad():
            _run(grown, bound, order, earlier, token, flat)
    return token  # through which gradients go to what was computed before, if any do


def _apply(function: Any, *arguments: Any) -> Any:
    """`function.apply`, without its search for tensors of torch.func, which were refused before."""
    return super(torch.autograd.Function, function).apply(*arguments)


def read(grown: Grown, token: Tensor, names: Sequence[str], rows: Tensor) -> dict[str, Tensor]:
    """The pushed values of the given vertices, int64 [n]."""
    outputs = _apply(_Read, grown, token, rows, *names)
    return dict(zip(names, outputs, strict=True))


class _Extend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, grown: Grown, bound: Bound, order: Order, earlier: Tensor, token: Tensor, *flat: Tensor
    ) -> Tensor:
        ctx.start, ctx.grown, ctx.bound, ctx.order, ctx.earlier = grown.count, grown, bound, order, earlier
        keep_values(ctx, bound, _run(grown, bound, order, earlier, token, flat))
        return token.new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        order, grown = ctx.order, ctx.grown
        state_gradients, push_gradients = grown.gradients()
        first, end = ctx.start, ctx.start + order.num_rows
        pushed = {
            name: _of_vertices(push_gradients[name][first:end], order.vertices_of(groups))
            for name, groups in ctx.bound.pushes.items()
            if name in push_gradients
        }
        received = {name: grads[1 + first : 1 + end] for name, grads in state_gradients.items()}
        flat, external = gradients(ctx.bound, order, kept_values(ctx), pushed, received)
        for name, sums in external.items():
            gradient = grown.state_gradient(name, ctx.bound.state_gradients[name])
            gradient.index_put_((ctx.earlier,), sums, accumulate=True)
        return (None, None, None, None, grad, *flat)


class _PreparedExtend(torch.autograd.Function):
    """The same where both passes are prepared."""

    @staticmethod
    def forward(
        ctx: Any,
        grown: Grown,
        bound: Bound,
        order: Order,
        extension: Extension,
        earlier: Tensor,
        token: Tensor,
        *flat: Tensor,
    ) -> Tensor:
        ctx.start, ctx.grown, ctx.bound, ctx.order, ctx.earlier = grown.count, grown, bound, order, earlier
        ctx.extension = extension
        kept = _run_prepared(grown, bound, order, extension, earlier, token, flat)
        save_tensors(ctx, [kept, *extension.prepared.read_back(flat)])
        return token.new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        check_backward((), ())
        kept, *read = saved_tensors(ctx)
        grown, bound, extension = ctx.grown, ctx.bound, ctx.extension
        _, push_gradients = grown.gradients()
        pushed = [push_gradients.get(name) for name in bound.pushes]
        states = {name: grown.state_gradient(name, node) for name, node in extension.state_gradients.items()}
        flat = extension.backward(bound, ctx.order, kept, read, ctx.start, pushed, states, ctx.earlier)
        return (None, None, None, None, None, grad, *flat)


def _run(
    grown: Grown, bound: Bound, order: Order, earlier: Tensor, token: Tensor, flat: Sequence[Tensor]
) -> list[Values]:
    """Compute an extension; returns its values."""
    first, count, groups = grown.count, order.num_rows, order.groups
    grown.reserve(bound, count, token.device)
    children = {name: rows.index_select(0, earlier) for name, rows in grown.states.items()} if len(earlier) else {}
    outputs, values = outputs_and_values(bound, order, flat, children)
    for name, rows in grown.states.items():
        new_rows = rows[1 + first : 1 + first + count]
        for group, compiled, values_of_group in zip(groups, bound.compiled, values, strict=True):
            new_rows.index_copy_(
                0, group.of(order.vertex).long(), values_of_group[compiled.program.trace.scatters[name]]
            )
    for (name, pushing), rows in zip(bound.pushes.items(), outputs, strict=True):
        new_rows, vertices_pushing = grown.pushes[name][first : first + count], order.vertices_of(pushing)
        if vertices_pushing is None:
            new_rows.copy_(rows)
        else:
            new_rows.zero_().index_copy_(0, vertices_pushing.long(), rows)
    grown.add(count, bound.differentiable)
    return values


def _run_prepared(
    grown: Grown,
    bound: Bound,
    order: Order,
    extension: Extension,
    earlier: Tensor,
    token: Tensor,
    flat: Sequence[Tensor],
) -> Tensor:
    """The same where it is prepared; returns the memory that the backward pass reads."""
    grown.reserve(bound, order.num_rows, token.device)
    kept = extension.forward(flat, grown.count, grown.states, grown.pushes, earlier)
    grown.add(order.num_rows, bound.differentiable)
    return kept


def _of_vertices(rows: Tensor, vertices: Tensor | None) -> Tensor:
    return rows if vertices is None else rows.index_select(0, vertices)


def _shown(value: Tensor) -> str:
    return f"{str(value.dtype)[6:]} {list(map(int, value.shape[1:]))}"


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grown: Grown, token: Tensor, rows: Tensor, *names: str) -> tuple[Tensor, ...]:
        outputs = tuple(grown.pushes[name].index_select(0, rows) for name in names)
        set_differentiable(ctx, dict(zip(names, outputs, strict=True)), grown.differentiable)
        ctx.grown, ctx.rows, ctx.names = grown, rows, names
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        gradients_by_name = {name: grad for name, grad in zip(ctx.names, grads, strict=True) if grad is not None}
        check_plain("the gradient of output", gradients_by_name)
        for name, grad in gradients_by_name.items():
            ctx.grown.add_output_gradient(name, ctx.rows, grad)
        token = next((grad.new_zeros(()) for grad in gradients_by_name.values()), None)
        return (None, token, None, *(None for _ in ctx.names))
