"""The arguments of a call of a vertex function, as they travel to whatever computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch, pack
from .selection import Wanted


class Arguments(NamedTuple):
    """What a vertex function is called with.

    Attributes:
        tensors: what takes the place of the module's own parameters and buffers, by name; None: nothing does.
        wanted: `outputs=`.
        graphs, reverse, initial, inputs, shared: as of `VertexFunction.forward`.
    """

    tensors: Mapping[str, Tensor] | None
    graphs: GraphBatch | Sequence[InputGraph]
    reverse: bool
    initial: Mapping[str, Tensor] | None
    inputs: Mapping[str, Tensor]
    shared: Mapping[str, Tensor] | None = None
    wanted: Wanted | None = None

    def batch(self) -> GraphBatch:
        """The graphs, packed."""
        return self.graphs if isinstance(self.graphs, GraphBatch) else pack(self.graphs)
