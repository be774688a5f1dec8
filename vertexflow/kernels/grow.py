"""A run that grows: states and outputs are kept as vertices are added, and backward goes through all extensions.

Every extension and every reading is one node of PyTorch's autograd graph. A token, a tensor without content, connects each
extension to the next one and to the readings in between, so that backward visits readings before the extension that they
read, and extensions in reverse. The gradients themselves lie in buffers of one row a vertex, so that backward takes a time
linear in what was computed, however often the run was extended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .autograd import gradients, keep_values, kept_values, outputs_and_values, set_differentiable
from .bound import Bound
from .order import Order
from .plain import check_plain


@dataclass
class Grown:
    """States and outputs of all vertices so far, in the order in which they were added; buffers double as they fill."""

    count: int = 0
    states: dict[str, Tensor] = field(default_factory=dict)  # [capacity, *shape]
    pushes: dict[str, Tensor] = field(default_factory=dict)  # [capacity, ...]
    differentiable: set[str] = field(default_factory=set)  # names of pushes
    _gradients: tuple[int, dict[str, Tensor], dict[str, Tensor]] | None = None

    def add(self, states: Mapping[str, Tensor], pushes: Mapping[str, Tensor], count: int) -> None:
        """Append `count` rows to every buffer."""
        for buffers, additions in ((self.states, states), (self.pushes, pushes)):
            for name, rows in additions.items():
                buffer = buffers.get(name)
                if buffer is None or len(buffer) < self.count + count:
                    larger = rows.new_empty((max(2 * self.count, self.count + count), *rows.shape[1:]))
                    if buffer is not None:
                        larger[: self.count] = buffer[: self.count]
                    buffers[name] = larger
                buffers[name][self.count : self.count + count] = rows
        self.count += count

    def gradients(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The gradient buffers of this call of backward, for states and for pushes by name; they are created when needed."""
        task = torch._C._current_graph_task_id()
        if self._gradients is None or self._gradients[0] != task:
            self._gradients = (task, {}, {})
        return self._gradients[1:]

    def add_gradient(self, buffers: dict[str, Tensor], name: str, rows: Tensor, grad: Tensor) -> None:
        """Add `grad` to the given rows; a row may be given more than once, and the order of the sum is fixed."""
        if name not in buffers:
            buffers[name] = grad.new_zeros((self.count, *grad.shape[1:]))
        buffers[name].index_put_((rows,), grad, accumulate=True)


def extend(
    grown: Grown,
    token: Tensor,
    bound: Bound,
    order: Order,
    external: Tensor,
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
) -> Tensor:
    """Compute `order.num_rows` new vertices and add them. Returns the new token.

    `external` int64 [num_external]: the earlier vertices that the new ones read; `inputs` are in vertex order.
    """
    flat = bound.flat(tensors, inputs)
    return _Extend.apply(grown, bound, order, external, token, *flat)  # type: ignore[no-any-return, no-untyped-call]


def read(grown: Grown, token: Tensor, names: Sequence[str], rows: Tensor) -> dict[str, Tensor]:
    """The pushed values of the given vertices, int64 [n]."""
    outputs = _Read.apply(grown, token, rows, *names)  # type: ignore[no-untyped-call]
    return dict(zip(names, outputs, strict=True))


class _Extend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, grown: Grown, bound: Bound, order: Order, external: Tensor, token: Tensor, *flat: Tensor
    ) -> Tensor:
        children = (
            {name: rows.index_select(0, external) for name, rows in grown.states.items()} if len(external) else {}
        )
        outputs, values = outputs_and_values(bound, order, flat, children)
        ctx.start = grown.count
        scatters = bound.compiled[0].program.trace.scatters
        states = {name: values[0][node].index_select(0, order.row) for name, node in scatters.items()}
        grown.add(states, dict(zip(bound.pushes, outputs, strict=True)), order.num_rows)
        grown.differentiable.update(bound.differentiable)
        ctx.grown, ctx.bound, ctx.order, ctx.external = grown, bound, order, external
        keep_values(ctx, bound, values)
        return token.new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        order, grown = ctx.order, ctx.grown
        state_gradients, push_gradients = grown.gradients()
        rows = slice(ctx.start, ctx.start + order.num_rows)
        pushed = {name: grads[rows] for name, grads in push_gradients.items()}
        flat, external = gradients(
            ctx.bound, order, kept_values(ctx), pushed, {name: grads[rows] for name, grads in state_gradients.items()}
        )
        for name, sums in external.items():
            grown.add_gradient(state_gradients, name, ctx.external, sums)
        return (None, None, None, None, grad, *flat)


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
        _, push_gradients = ctx.grown.gradients()
        for name, grad in gradients_by_name.items():
            ctx.grown.add_gradient(push_gradients, name, ctx.rows, grad)
        token = next((grad.new_zeros(()) for grad in gradients_by_name.values()), None)
        return (None, token, None, *(None for _ in ctx.names))
