"""A part as a Python function of calls of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from ...graph.symbolic.nodes import on_edges
from ...graph.symbolic.program import Part
from ...graph.symbolic.trace import Trace
from ..failures import raise_with_line
from .empty import run_without
from .source import compile_part


@dataclass(frozen=True)
class Calls:
    """A part as a function of the numbers of rows and edges, its inputs, and memory for the outputs in `written`; it returns the
    other outputs."""

    part: Part
    function: Callable[..., tuple[Tensor, ...]]
    text: str
    written: list[fx.Node]
    knows_edges: bool

    @classmethod
    def of(cls, part: Part, written: Mapping[fx.Node, bool], differentiable: bool = False) -> Calls:
        """Compile a part that writes the outputs in `written` into given memory, contiguous where the mapping says so."""
        function, text = compile_part(part, written, differentiable)
        return cls(part, function, text, list(written), any(map(on_edges, part.graph.nodes)))

    def __call__(self, trace: Trace, rows: int, edges: int, values: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """Compute the outputs; an error names the line of the vertex function."""
        try:
            if rows and (edges or not self.knows_edges):
                return self.function(rows, edges, *values)
            return self._without(rows, edges, values)
        except Exception as error:
            raise_with_line(error, self.function, trace)

    def _without(self, rows: int, edges: int, values: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        count = len(self.part.inputs)
        results = dict(zip(self.part.outputs, run_without(self.part, rows, edges, values[:count]), strict=True))
        for node, out in zip(self.written, values[count:], strict=True):
            if out is not None:
                out.copy_(results[node])
        return tuple(results[node] for node in self.part.outputs if node not in self.written)
