"""What a run that grows has computed: states and outputs of all vertices, and their gradients in a backward pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, fx

from ...errors import VertexFunctionError
from ..bound import Bound
from ..order import Wide

if TYPE_CHECKING:
    from .strips import Strip, Sweep

# Terms of gradients, and the numbers of those whose sum is that of a parameter.
Sums = tuple[list[Tensor], list[list[int]]]

# What each method pulls, in extensions by vertices of several methods that were given inputs of these names.
Pulls = dict[tuple[tuple[str, ...], tuple[str, ...]], list[tuple[str, ...]]]


@dataclass(eq=False)
class Gradients:
    """The gradients of one run, of each call of backward that is under way: in several threads, or in a hook of another one."""

    _of_calls: WeakValueDictionary[int, GradientsOfCall] = field(default_factory=WeakValueDictionary)

    def of_this_call(self) -> GradientsOfCall:
        """Those of this call of backward; they go when it ends, or fails."""
        task = torch._C._current_graph_task_id()
        gradients = self._of_calls.get(task)
        if gradients is None:
            gradients = self._of_calls[task] = GradientsOfCall()
            # The call holds what is to be done at its end, also where it does not come to that.
            torch.autograd.Variable._execution_engine.queue_callback(gradients.clear)
        return gradients


@dataclass(eq=False)
class GradientsOfCall:
    """Gradients of states and outputs, by name, in rows as the run has them; and of parameters, by the `Entered` that has them.

    They are created when needed.
    """

    states: dict[str, Tensor] = field(default_factory=dict)
    pushes: dict[str, Tensor] = field(default_factory=dict)
    params: dict[object, Sums] = field(default_factory=dict)
    # Backward passes over strips that are under way, and the `Entered` whose gradients they will add to.
    sweeps: dict[Strip, tuple[object, Sweep]] = field(default_factory=dict)

    def clear(self) -> None:
        """Let go of all of them."""
        for gradients in (self.states, self.pushes, self.params, self.sweeps):
            gradients.clear()


@dataclass
class Usual:
    """What runs of a model have lately been like."""

    vertices: int = 0
    pulls: Pulls = field(default_factory=dict)
    groups: dict[tuple[Any, ...], Any] = field(default_factory=dict)  # of vertices, by their kinds


@dataclass
class Grown:
    """States and outputs of all vertices so far, in the order in which they were added; buffers double as they fill,
    and begin as large as earlier runs were, up to four times what is needed at first.

    Row 0 of a state is zeros, which missing children are; vertex v has row v + 1.
    """

    usual: Usual
    count: int = 0
    states: dict[str, Tensor] = field(default_factory=dict)  # [1 + capacity, *shape]
    pushes: dict[str, Tensor] = field(default_factory=dict)  # [capacity, ...]
    differentiable: set[str] = field(default_factory=set)  # names of pushes
    # Which vertices were computed without gradients: the first, the one behind the last, and so on.
    without_gradients: list[int] = field(default_factory=list)
    # Programs whose states and outputs were compared with the buffers, and the number of vertices that these have room for.
    _room: dict[int, tuple[Bound, int]] = field(default_factory=dict)
    gradients: Gradients = field(default_factory=Gradients)
    generation: int = 0  # of the buffers
    expected: int | None = None  # as many vertices as earlier runs had

    def has_room(self, bound: Bound, count: int) -> bool:
        """Whether there is room for so many further rows of these programs, and it is known."""
        known = self._room.get(id(bound))
        return known is not None and self.count + count <= known[1]

    def reserve(self, bound: Bound, count: int, device: torch.device) -> None:
        """Make room for `count` further rows of the states and outputs of these programs.

        Raises:
            VertexFunctionError: earlier rows are of another shape or dtype.
        """
        if self.has_room(bound, count):
            return
        if self.expected is None:
            self.expected = self.usual.vertices
            self.usual.vertices -= self.expected // 8  # larger runs are forgotten in time
        room, needed = 1 << 62, max(2 * self.count, self.count + count)
        room_from_before = min(self.expected, 4 * needed)  # a large run must not make small ones after it large
        for buffers, nodes, first in ((self.states, bound.states, 1), (self.pushes, bound.outputs, 0)):
            for name, node in nodes.items():
                value, buffer, used = node.meta["val"], buffers.get(name), self.count + first
                if buffer is not None and (buffer.dtype != value.dtype or buffer.shape[1:] != tuple(value.shape[1:])):
                    raise VertexFunctionError(
                        f"{'state' if first else 'output'} {name!r} of the new vertices is {_shown(value)}, that of earlier ones "
                        f"{_shown(buffer)}: the model has changed since; begin another run"
                    )
                if buffer is None or len(buffer) < used + count:
                    shape = (first + max(needed, room_from_before), *map(int, value.shape[1:]))
                    with torch.inference_mode(False):
                        larger = torch.zeros(shape, dtype=value.dtype, device=device)
                    if buffer is not None:  # it has no rows of later vertices that do not push it
                        filled = min(used, len(buffer))
                        larger[:filled] = buffer[:filled]
                    buffer = buffers[name] = larger
                    self.generation += 1
                room = min(room, len(buffer) - first)
        self._room[id(bound)] = bound, room

    def add(self, bound: Bound, count: int) -> None:
        """Count vertices whose rows these programs have written now."""
        if not bound.wants_gradients:
            if self.without_gradients and self.without_gradients[-1] == self.count:
                self.without_gradients[-1] += count
            else:
                self.without_gradients += (self.count, self.count + count)
        self.count += count
        self.usual.vertices = max(self.usual.vertices, self.count)
        self.differentiable |= bound.differentiable

    def are_without_gradients(self, rows: Wide | None) -> bool:
        """Whether all of these rows, [n], were computed without gradients, be it that nothing wanted any. Of rows that only a
        device knows (None), that is said where it is so of all rows: those without gradients pass none on."""
        if rows is None:
            return self.without_gradients == [0, self.count]
        if not self.without_gradients or not len(rows):
            return False
        number = np.searchsorted(self.without_gradients, rows, "right")  # of the bounds up to each
        return bool((number % 2).all())

    def state_gradient(self, name: str, like: fx.Node) -> Tensor:
        """The gradient buffer of a state, whose gradients are like the values of a node."""
        buffers = self.gradients.of_this_call().states
        if name not in buffers:
            value = like.meta["val"]
            shape = (1 + self.count, *self.states[name].shape[1:])
            buffers[name] = torch.zeros(shape, dtype=value.dtype, device=self.states[name].device)
        return buffers[name]

    def add_output_gradient(self, name: str, rows: Tensor, grad: Tensor) -> None:
        """Add `grad` to the gradients of these rows of an output; a row may be given more than once, and the order of the sum
        is fixed."""
        buffers = self.gradients.of_this_call().pushes
        if name not in buffers:
            buffers[name] = grad.new_zeros((self.count, *grad.shape[1:]))
        add_rows(buffers[name], rows, grad)


def add_rows(to: Tensor, rows: Tensor, values: Tensor) -> None:
    """Add `values` to these rows, which are there; a row may be given more than once, and the order of the sum is fixed.

    That they are there is not looked up again: for that, `index_put_` waits for a GPU.
    """
    torch._index_put_impl_(to, (rows,), values, accumulate=True, unsafe=True)


def _shown(value: Tensor) -> str:
    return f"{str(value.dtype)[6:]} {list(map(int, value.shape[1:]))}"
