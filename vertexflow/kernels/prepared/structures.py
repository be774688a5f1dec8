"""Runs over a structure whose loops are all native code: written down once, as lists of calls; then a pass is one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..bound import Bound
from ..memory import rehearsal
from ..order import Order
from ..ranges import is_profiling
from .calls import Unprepared
from .passes import Backward, Forward, rows_or_one
from .windows import one_window_each, windows_of
from .written import backward, forward, inputs_read_as_states, nodes_read_back

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Prepared:
    """Both passes; the backward pass is written once it is known to which outputs gradients come."""

    forward: Forward
    read: list[int]  # the positions of what the backward pass reads, among parameters, inputs and constants
    zeros: list[Tensor]  # a row for each output
    without_gradient: list[int]  # the positions of outputs that have none
    grows: bool = False  # whether it reads earlier vertices of a run that grows
    backwards: dict[tuple[bool, tuple[bool, ...]], Backward] = field(default_factory=dict)

    @property
    def bytes_of_calls(self) -> int:
        """What native code keeps of the calls of all passes."""
        return self.forward.bytes_of_calls + sum(each.bytes_of_calls for each in self.backwards.values())

    def read_back(self, flat: Sequence[Tensor]) -> list[Tensor]:
        """The parameters, inputs and constants that the backward pass reads."""
        tensors = [*flat, *self.forward.constants]
        return [tensors[at] for at in self.read]

    def backward(
        self,
        bound: Bound,
        order: Order,
        kept: Tensor,
        read: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        overwrites: bool,
    ) -> list[Tensor | None]:
        """The gradients of parameters, then inputs; `overwrites` tells whether what is kept may be overwritten."""
        plain = [zero if grad is None else rows_or_one(grad) for grad, zero in zip(grads, self.zeros, strict=True)]
        have_rows = tuple([grad.dim() > zero.dim() for grad, zero in zip(plain, self.zeros, strict=True)])
        return self.backward_for(bound, order, have_rows, overwrites).run(kept, read, plain)

    def backward_for(self, bound: Bound, order: Order, have_rows: tuple[bool, ...], overwrites: bool) -> Backward:
        """The pass where gradients have rows for some outputs, and only one row for others."""
        key = overwrites and self.forward.sending is not None, have_rows
        if key not in self.backwards:
            with rehearsal.interrupted():
                self.backwards[key] = backward(self.forward, self.read, bound, order, have_rows, key[0], self.grows)
        return self.backwards[key]


def prepared_for(bound: Bound, order: Order) -> Prepared | None:
    """The passes over a structure; None where some loop is not native code."""
    kept = bound.prepared_in_ranges if is_profiling() else bound.prepared
    prepared, is_native = kept.get(order), bound.is_native  # which other threads may set meanwhile
    if prepared is None and is_native is not False and not order.num_external and order.vertex.device == _CPU:
        try:
            with rehearsal.interrupted():
                prepared = prepare(bound, order)
                # What can be prepared for one structure, can be for others.
                if is_native is None and bound.wants_gradients:
                    prepared.backward_for(bound, order, (True,) * len(prepared.zeros), overwrites=True)
            bound.is_native, kept[order] = True, prepared
        except Unprepared:
            bound.is_native, prepared = False, None
    return prepared


def prepare(bound: Bound, order: Order, grows: bool = False) -> Prepared:
    """Write down the passes over a structure, or over vertices that are added to a run; a backward pass when it is needed.

    Raises:
        Unprepared: some loop is not native code.
    """
    windows = one_window_each(order) if grows else windows_of(bound.compiled, order)
    read_back = {node for compiled in bound.compiled for node in nodes_read_back(compiled)}
    traces = [compiled.program.trace for compiled in bound.compiled]
    nodes = [[traces[group].params[name] for group in groups] for name, groups in bound.params.items()]
    for name, groups in bound.pulls.items():  # where there are several windows, inputs are taken again
        nodes.append([traces[group].pulls[name] for group in groups if windows[group].are_several])
    nodes += [[node] for node in bound.constants]
    written = forward(bound, order, windows, grows)
    read_back |= inputs_read_as_states(bound.compiled, written.state_rows)
    read = [at for at, nodes_of_tensor in enumerate(nodes) if read_back.intersection(nodes_of_tensor)]
    likes = (traces[groups[0]].output(name) for name, groups in bound.pushes.items())
    zeros = [torch.zeros(tuple(map(int, like.shape[1:])), dtype=like.dtype) for like in likes]
    without_gradient = [at for at, name in enumerate(bound.pushes) if name not in bound.differentiable]
    return Prepared(written, read, zeros, without_gradient, grows)
