"""Vertices that are added to a run that grows, where all is native code: each pass is one call, prepared for a shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from ..bound import Bound
from ..memory import rehearsal
from ..order import Order
from ..prepared.calls import Unprepared
from ..prepared.passes import Backward
from ..prepared.structures import Prepared, prepare
from ..ranges import is_profiling

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Extension:
    """Both passes over new vertices."""

    prepared: Prepared
    states: list[str]
    pushes: list[str]
    num_inputs: int
    # The states whose gradients it reads or adds to, each with a value of their dtype.
    state_gradients: dict[str, fx.Node]

    def forward(
        self,
        flat: Sequence[Tensor],
        first: int,
        states: Mapping[str, Tensor],
        pushes: Mapping[str, Tensor],
        earlier: Tensor,
    ) -> Tensor:
        """Compute vertices from number `first` on into the buffers of a run; returns the memory that the backward pass reads.

        `flat` are parameters, then inputs; `earlier` are the rows of `states` that are read.
        """
        results = [_address_of_row(pushes[name], first) for name in self.pushes]
        results.append(earlier.data_ptr())
        for name in self.states:
            results += (states[name].data_ptr(), _address_of_row(states[name], 1 + first))
        results.append(0)  # weights are not packed
        return self.prepared.forward.run_into(flat, results)

    def backward_for(self, bound: Bound, order: Order, pushed: Sequence[Tensor | None]) -> Backward:
        """The backward pass for these gradients of a run's outputs, which may be missing."""
        have_rows = tuple([gradient is not None for gradient in pushed])
        return self.prepared.backward_for(bound, order, have_rows, overwrites=False)

    def backward(
        self,
        backward: Backward,
        kept: Tensor,
        read: Sequence[Tensor],
        first: int,
        pushed: Sequence[Tensor | None],
        states: Mapping[str, Tensor],
        earlier: Tensor,
        sums: Sequence[Tensor],
    ) -> list[Tensor]:
        """The gradients of inputs, from those of a run's outputs and states; adds to the gradients of earlier states, and to the
        `sums` of those of parameters."""
        grads = [
            zero.data_ptr() if gradient is None else _address_of_row(gradient, first)
            for gradient, zero in zip(pushed, self.prepared.zeros, strict=True)
        ]
        grads.append(earlier.data_ptr())
        for gradient in states.values():
            grads += (gradient.data_ptr(), _address_of_row(gradient, 1 + first))
        grads.append(0)  # weights are not packed
        return backward.run_adding(kept, read, grads, sums)


def extension_for(bound: Bound, order: Order) -> Extension | None:
    """The passes over vertices that are added in this order; None where some loop is not native code."""
    if bound.extends_natively is False or order.vertex.device != _CPU:
        return None
    extensions = bound.extensions_in_ranges if is_profiling() else bound.extensions
    extension = extensions.get(order)
    if extension is None:
        try:
            with rehearsal.interrupted():
                prepared = prepare(bound, order, grows=True)
                if bound.extends_natively is None and bound.wants_gradients:
                    prepared.backward_for(bound, order, (True,) * len(prepared.zeros), overwrites=False)
        except Unprepared:
            bound.extends_natively = False
            return None
        extension = Extension(prepared, list(bound.states), list(bound.pushes), len(bound.pulls), bound.state_gradients)
        bound.extends_natively, extensions[order] = True, extension
    return extension


def _address_of_row(tensor: Tensor, row: int) -> int:
    return tensor.data_ptr() + row * tensor.stride(0) * tensor.element_size()
