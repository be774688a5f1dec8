"""Calls of PyTorch between two loops of a step, for operations of a core that another backend does not have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from ...graph.symbolic.nodes import has_rows, on_edges
from ...graph.symbolic.program import Part, Program
from ..arguments import Scratch
from ..lower.loops import Over
from ..lower.views import vertex_shape
from ..memory.layout import first_row
from ..operations import VIEWS, WHOLE_STEPS
from ..order import Step
from ..run import Run
from .calls import Calls

Rows = Callable[[Step], Tensor]  # from a step to its rows of a value


@dataclass(frozen=True, eq=False)
class Between:
    """A part of a step that PyTorch computes, and where its inputs and outputs lie."""

    program: Program
    calls: Calls
    places: Mapping[
        fx.Node, fx.Node | Scratch
    ]  # a value of the joint graph, or scratch memory for the rows of one step

    @classmethod
    def of(cls, program: Program, part: Part, places: Mapping[fx.Node, fx.Node | Scratch]) -> Between:
        """Compile a part; `places` are those of its inputs and outputs."""
        in_place = {node: not has_rows(node) or node.meta["rows"].dim == 0 for node in part.outputs}
        return cls(program, Calls.of(part, in_place), places)

    @property
    def text(self) -> str:
        """The generated code."""
        return self.calls.text

    @property
    def operations(self) -> list[str]:
        """The names of the operations that are called."""
        targets: list[Any] = [node.target for node in self.calls.part.graph.nodes if node.op == "call_function"]
        return list(dict.fromkeys(str(target) for target in targets if hasattr(target, "overloadpacket")))

    @property
    def sees_whole_steps(self) -> bool:
        """Whether all that it calls is in `WHOLE_STEPS`."""
        nodes = [node for node in self.calls.part.graph.nodes if node.op == "call_function"]
        return all(node.target in WHOLE_STEPS or node.target in VIEWS for node in nodes)

    @property
    def scratch(self) -> list[Scratch]:
        """The scratch memory that it reads and writes."""
        return [place for place in self.places.values() if isinstance(place, Scratch)]

    def bind(self, run: Run) -> list[Rows]:
        """For each input and output, the function from a step to its rows in one run."""
        return [self._rows(node, run) for node in [*self.calls.part.inputs, *self.calls.part.outputs]]

    def run(self, bound: list[Rows], step: Step) -> None:
        """Compute the rows of a step."""
        values = [rows(step) for rows in bound]
        self.calls(self.program.trace, step.stop - step.start, step.edge_stop - step.edge_start, values)

    def _rows(self, node: fx.Node, run: Run) -> Rows:
        place = self.places[node]
        if isinstance(place, Scratch):
            return _rows_of_scratch(node, place, run.values.buffer(place))
        value, layout = run.values[place], node.meta.get("rows")
        if layout is None:
            return lambda step: value
        dim, count = layout.dim, layout.per_vertex
        if on_edges(node):
            return lambda step: value.narrow(dim, step.edge_start * count, (step.edge_stop - step.edge_start) * count)
        base = first_row(self.program, run.group, place)
        return lambda step: value.narrow(dim, (step.start - base) * count, (step.stop - step.start) * count)


def _rows_of_scratch(node: fx.Node, scratch: Scratch, buffer: Tensor) -> Rows:
    """The rows of a value in scratch memory, which has only those of one step."""
    flat = buffer.view(-1)
    if scratch.over is Over.ELEMENTS:
        shape = list(map(int, node.meta["val"].shape))
        elements = flat[: math.prod(shape)].view(shape)
        return lambda step: elements
    inner, dim, is_over_edges = vertex_shape(node), node.meta["rows"].dim, scratch.over is Over.EDGES
    width, count = math.prod(inner), node.meta["rows"].per_vertex

    def rows(step: Step) -> Tensor:
        number = step.edge_stop - step.edge_start if is_over_edges else step.stop - step.start
        value = flat[: number * width].view(number, *inner)
        return value.movedim(0, dim) if count == 1 else value.flatten(0, 1)

    return rows
