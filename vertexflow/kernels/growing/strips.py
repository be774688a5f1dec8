"""Extensions of a run whose rows lie one behind the other, in strips of memory: of one kind, with children that came earlier.

Both passes are written once for all rows of a strip, and run for those of one extension. Weights are packed once for a strip,
and their gradients are one sum over all of its rows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ... import _core
from ..bound import Bound
from ..memory.pool import empty
from ..order import Ints, Order
from ..prepared.passes import Backward, is_plain, plain
from .extension import Extension, extension_for

if TYPE_CHECKING:
    from .grown import Grown

FEWEST, MOST = 64, 2048  # rows of a strip

OrderOfRows = Callable[[int], Order]  # of so many vertices, each slot of which reads an earlier vertex
_CPU = torch.device("cpu")


def _moving(at: int, tensor: Tensor, row: int = 0) -> tuple[int, int, int]:
    """An address that moves with the rows: its number, where row `row` of the tensor lies, and the bytes of a row."""
    size = _size_of_row(tensor)
    return at, tensor.data_ptr() + row * size, size


@dataclass(eq=False)
class Strip:
    """Memory for the values of so many rows, and what is known of the forward pass."""

    order: Order
    extension: Extension
    params: Sequence[Tensor]
    kept: Tensor
    temporary: Tensor
    children: Ints  # [num_rows, num_slots]: the rows that the children have in the buffers of a run, from 1 on
    count: int = 0  # rows that are filled
    calls: _core.CallsOfRows | None = None
    generation: int = -1  # of the buffers whose addresses these calls have

    @classmethod
    def of(cls, bound: Bound, params: Sequence[Tensor], num_rows: int, order_of_rows: OrderOfRows) -> Strip | None:
        """A strip of so many rows; None where extensions need memory of their own."""
        order = order_of_rows(num_rows)
        extension = extension_for(bound, order)
        bound.extends_in_strips = extension is not None and _has_rows_apart(extension, bound, order)
        if extension is None or not bound.extends_in_strips:
            return None
        forward = extension.prepared.forward
        if not all(map(is_plain, (*params, *forward.constants))):
            return None
        children = np.zeros((num_rows, order.groups[0].num_slots), np.int32)
        kept, temporary = _memory(forward.kept.size), _memory(forward.temporary_size)
        return cls(order, extension, params, kept, temporary, children)

    @property
    def num_free(self) -> int:
        """How many rows are left."""
        return len(self.children) - self.count

    def run(self, grown: Grown, table: Any, inputs: Sequence[Tensor], is_kept: bool) -> int:
        """Compute vertices with these children, which all came earlier, for whose states and outputs a run has room; returns
        their first row. If it is not kept for a backward pass, that row is 0."""
        first = self.count if is_kept else 0
        _core.write_rows(table, self.children, first)
        self.run_rows(grown, first, len(table), inputs)
        return first

    def run_rows(self, grown: Grown, first: int, count: int, inputs: Sequence[Tensor]) -> None:
        """Compute the vertices of so many rows, whose children are written there; a run has room for them."""
        if self.calls is None or self.generation != grown.generation:
            self.calls = self._calls(grown)
        stop, forward = first + count, self.extension.prepared.forward
        inputs = plain(inputs)
        of_inputs = [value.data_ptr() - first * _size_of_row(value) for value in inputs]
        seeds = [int(torch.randint(2**62, ())) for _ in range(forward.num_seeds)]
        self.calls.run(first, stop, grown.count - first, 3 + len(self.params), of_inputs, seeds)
        self.count = stop

    def read_anew(self, params: Sequence[Tensor]) -> None:
        """Read these parameters, which may have changed, and pack weights again, at the next extension."""
        self.params, self.calls = params, None

    def _calls(self, grown: Grown) -> _core.CallsOfRows:
        """The forward pass at the addresses that it has now, in its order; see `Forward.run_into`."""
        forward = self.extension.prepared.forward
        num_inputs = self.extension.num_inputs  # whose addresses are found when they are there
        known = [*self.params, *[self.kept] * num_inputs, *forward.constants]
        addresses = [0, self.temporary.data_ptr(), self.kept.data_ptr(), *(each.data_ptr() for each in known)]
        moving = []
        for name in self.extension.pushes:
            moving.append(_moving(len(addresses), grown.pushes[name]))
            addresses.append(0)
        addresses.append(self.children.ctypes.data)
        for name in self.extension.states:
            moving.append(_moving(len(addresses) + 1, grown.states[name], 1))
            addresses += (grown.states[name].data_ptr(), 0)
        addresses.append(0)  # weights are not packed
        self.generation = grown.generation
        # Inputs and constants are as many and as large in each run: what is packed are parameters and constants.
        first_constant = 3 + len(self.params) + num_inputs
        packed = [*enumerate(self.params, 3), *enumerate(forward.constants, first_constant)]
        weights = [(at, tensor.nbytes) for at, tensor in packed]
        assert forward.by_rows is not None
        num_rows, num_slots = self.children.shape
        return _core.CallsOfRows(forward.by_rows, num_rows, num_slots, addresses, moving, len(addresses) - 1, weights)


@dataclass(eq=False)
class Sweep:
    """A backward pass over the rows of a strip, from the last extension to the first: sums over rows wait until its end."""

    strip: Strip
    backward: Backward
    read: Sequence[Tensor]  # alive as long as their addresses are used
    kept: Tensor
    terms: list[Tensor]
    temporary: Tensor
    calls: tuple[_core.CallsOfRows, _core.CallsOfRows]  # without and with sums over rows alone
    pushed: Sequence[Tensor | None]
    first: int
    stop: int

    @classmethod
    def of(
        cls,
        strip: Strip,
        backward: Backward,
        kept: Tensor,
        read: Sequence[Tensor],
        pushed: Sequence[Tensor | None],
        states: Mapping[str, Tensor],
        stop: int,
    ) -> Sweep:
        """One that begins with the rows before `stop`; arguments as of `Extension.backward`."""
        read, moving = plain(read), []
        terms, temporary = [each.make() for each in backward.terms], _memory(backward.temporary_size)
        addresses = [0, temporary.data_ptr(), kept.data_ptr(), *(each.data_ptr() for each in read)]
        for gradient, zero in zip(pushed, strip.extension.prepared.zeros, strict=True):
            if gradient is not None:
                moving.append(_moving(len(addresses), gradient))
            addresses.append(zero.data_ptr())
        addresses.append(strip.children.ctypes.data)
        for gradient in states.values():
            moving.append(_moving(len(addresses) + 1, gradient, 1))
            addresses += (gradient.data_ptr(), 0)
        at, (num_rows, num_slots) = len(addresses), strip.children.shape
        addresses += [0, *(each.data_ptr() for each in terms)]  # weights are not packed
        assert backward.by_rows is not None
        one, other = (
            _core.CallsOfRows(calls, num_rows, num_slots, addresses, moving, at, []) for calls in backward.by_rows
        )
        return cls(strip, backward, read, kept, terms, temporary, (one, other), pushed, stop, stop)

    def goes_on(self, pushed: Sequence[Tensor | None], stop: int) -> bool:
        """Whether the rows before `stop` are next, and the same outputs have gradients."""
        return stop == self.first and all(map(operator.is_, pushed, self.pushed))

    def run(self, first: int, vertex: int) -> None:
        """Go on to row `first`, which is this vertex, from the one that was first before."""
        self.calls[0].run(first, self.first, vertex - first, 0, [], [])
        self.first = first

    def end(self) -> list[Tensor]:
        """The sums over all rows."""
        self.calls[1].run(self.first, self.stop, 0, 0, [], [])
        return self.terms


def _has_rows_apart(extension: Extension, bound: Bound, order: Order) -> bool:
    """Whether both passes can be run for some of the rows."""
    prepared = extension.prepared
    if prepared.forward.by_rows is None or not bound.wants_gradients:
        return prepared.forward.by_rows is not None
    every = (True,) * len(prepared.zeros)
    return prepared.backward_for(bound, order, every, overwrites=False).by_rows is not None


def is_small(count: int) -> bool:
    """Whether an extension by so many vertices gains from a strip: larger ones have weights and sums enough of their own."""
    return count <= MOST


def size_of_first(bound: Bound, count: int) -> int:
    """How many rows the first strip of a run has, for an extension by `count`: as many as earlier runs had, since each further
    strip packs weights again. Larger ones are forgotten in time."""
    size = size_of_next(count, bound.rows_of_runs)
    bound.rows_of_runs //= 2
    return size


def size_of_next(count: int, before: int) -> int:
    """How many rows the next strip has, for an extension by `count`, where strips have had so many `before`: a power of two, so
    that few are written."""
    return 1 << (max(FEWEST, count, min(before, MOST)) - 1).bit_length()


def _size_of_row(tensor: Tensor) -> int:
    """The bytes from one row to the next; where there is one row, its stride may be any."""
    return tensor.numel() // len(tensor) * tensor.element_size()


def _memory(size: int) -> Tensor:
    return empty((size,), torch.uint8, _CPU)
