"""The compiled vertex functions of a batch, and which of them use which tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import Tensor, fx

from .arguments import Whole
from .binding import AddressedLoop
from .compiled import Compiled

if TYPE_CHECKING:
    from .growing.extension import Extension
    from .order import Order
    from .prepared.structures import Prepared


@dataclass(eq=False)
class Bound:
    """The compiled vertex function of each group of rows, and the groups that use each parameter, input and output, by name."""

    compiled: tuple[Compiled, ...]
    params: dict[str, list[int]]
    pulls: dict[str, list[int]]
    pushes: dict[str, list[int]]
    prepared: WeakKeyDictionary[Order, Prepared]
    # Whether gradients of the last call had a graph: the next call will probably be like it, and is replayed from the start.
    is_differentiated_twice: bool = False
    is_native: bool | None = None  # whether runs can be prepared; None: not known yet
    # The same of vertices that are added to runs that grow.
    extensions: WeakKeyDictionary[Order, Extension] = field(default_factory=WeakKeyDictionary)
    extends_natively: bool | None = None
    extends_in_strips: bool | None = None
    rows_of_runs: int = 0  # in strips; about as many as runs had lately
    # Both, made while a profiler ran.
    prepared_in_ranges: WeakKeyDictionary[Order, Prepared] = field(default_factory=WeakKeyDictionary)
    extensions_in_ranges: WeakKeyDictionary[Order, Extension] = field(default_factory=WeakKeyDictionary)

    @cached_property
    def wants_gradients(self) -> bool:
        return any(function.program.wants_gradients for function in self.compiled)

    @cached_property
    def differentiable(self) -> set[str]:
        """The names of pushed outputs that have gradients."""
        return {name for function in self.compiled for name in function.program.trace.push_grads}

    @cached_property
    def constants(self) -> dict[fx.Node, Tensor]:
        """The constants of the vertex functions that native code reads."""
        loops = (loop for function in self.compiled for loop in function.loops.values())
        native = (loop for loop in loops if isinstance(loop, AddressedLoop))
        read = {argument.node for loop in native for argument in loop.arguments if isinstance(argument, Whole)}
        constants = (item for function in self.compiled for item in function.program.trace.constants.items())
        return {node: value for node, value in constants if node in read}

    @cached_property
    def outputs(self) -> dict[str, fx.Node]:
        """For each output a value like it."""
        return {name: self.compiled[groups[0]].program.trace.pushes[name] for name, groups in self.pushes.items()}

    @cached_property
    def states(self) -> dict[str, fx.Node]:
        """For each state a value like it."""
        return dict(self.compiled[0].program.trace.scatters)

    @cached_property
    def state_gradients(self) -> dict[str, fx.Node]:
        """The states whose gradients are received from parents, or sent to children; for each a value of their dtype."""
        programs = [function.program for function in self.compiled]
        sent = {state: node for program in programs for (state, _), node in program.gather_grads.items()}
        return sent | {state: node for program in programs for state, node in program.state_grads.items()}

    def has_param_gradient(self, name: str) -> bool:
        """Whether a backward pass computes a gradient of this parameter or buffer."""
        return any(name in self.compiled[group].program.param_grads for group in self.params[name])

    def has_input_gradient(self, name: str) -> bool:
        """Whether a backward pass computes a gradient of this input."""
        return any(name in self.compiled[group].program.pull_grads for group in self.pulls[name])

    def is_edge_input(self, name: str) -> bool:
        return self.compiled[self.pulls[name][0]].program.trace.is_edge_input(name)

    def is_edge_output(self, name: str) -> bool:
        return self.compiled[self.pushes[name][0]].program.trace.is_edge_output(name)

    def flat(self, tensors: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Parameters, then inputs."""
        return [*(tensors[name] for name in self.params), *(inputs[name] for name in self.pulls)]


def bind(compiled: Iterable[Compiled]) -> Bound:
    """Join the compiled vertex functions of each group of rows."""
    bound = Bound(tuple(compiled), {}, {}, {}, WeakKeyDictionary())
    for group, function in enumerate(bound.compiled):
        trace = function.program.trace
        for table, names in ((bound.params, trace.params), (bound.pulls, trace.pulls), (bound.pushes, trace.pushes)):
            for name in names:
                table.setdefault(name, []).append(group)
    return bound
