"""`outputs=`: the vertices whose outputs a call returns, checked, and sorted for the runs of the parts of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, InputTypeError
from ..graph.inputs.pack import GraphBatch
from ..kernels.order import Wide
from ..kernels.plain import check_plain
from .kinds import Used

Mask = np.ndarray[Any, np.dtype[np.bool_]]  # of vertices


@dataclass(frozen=True)
class Selection:
    """The vertices whose outputs are returned.

    Attributes:
        vertices: as they were given: in any order, also several times.
        ascending: the same in ascending order, each once.
    """

    vertices: Wide
    ascending: Wide

    def within(self, start: int, stop: int) -> Wide:
        """Those of the vertices [start, stop), counted from `start`."""
        first, end = np.searchsorted(self.ascending, (start, stop))
        return self.ascending[first:end] - start

    def as_given(self, outputs: Mapping[str, Tensor], is_pushed: Mapping[str, Mask | None]) -> dict[str, Tensor]:
        """Outputs of the vertices in ascending order, in the order in which they were given.

        `is_pushed` tells, for each output of vertices, which push it; None: all. Those of edges stay as they are.
        """
        if self.vertices is self.ascending:
            return dict(outputs)
        places = {name: np.unique(self._pushing(mask), return_inverse=True)[1] for name, mask in is_pushed.items()}
        return {name: _rows(value, places[name]) if name in places else value for name, value in outputs.items()}

    def of_all(self, outputs: Mapping[str, Tensor], is_pushed: Mapping[str, Mask | None]) -> dict[str, Tensor]:
        """The same from outputs of all vertices."""
        selected = dict(outputs)
        for name, mask in is_pushed.items():
            given = self._pushing(mask)
            selected[name] = _rows(outputs[name], given if mask is None else (np.cumsum(mask) - 1)[given])
        return selected

    def _pushing(self, is_pushed: Mask | None) -> Wide:
        return self.vertices if is_pushed is None else self.vertices[is_pushed[self.vertices]]


def selection_of(batch: GraphBatch, outputs: object) -> Selection:
    """The vertices that a call was asked for: an index tensor, or a mask of all vertices.

    Raises:
        InputError, InputTypeError: it is neither, or names a vertex that is not in the batch.
    """
    if not isinstance(outputs, Tensor):
        raise InputTypeError(
            f"outputs is a {type(outputs).__name__}; give a tensor of vertices, such as batch.roots (no input "
            "can have this name)"
        )
    if outputs.dim() != 1 or outputs.dtype not in (torch.int64, torch.int32, torch.bool):
        raise InputError(
            f"outputs is {str(outputs.dtype)[6:]} {list(outputs.shape)}; give int64 [count], the vertices whose outputs are "
            "wanted, or booleans [num_vertices]"
        )
    check_plain("the tensor of vertices", {"outputs": outputs}, closely=True)
    vertices = _on_host(batch, outputs)
    if outputs.dtype is torch.bool:
        if len(vertices) != batch.num_vertices:
            raise InputError(
                f"outputs has {len(vertices)} booleans for {batch.num_vertices} vertices; give one a vertex"
            )
        vertices = np.flatnonzero(vertices)
    vertices = vertices.astype(np.int64)  # a copy: the caller may change the tensor before the backward pass
    wrong = np.flatnonzero((vertices < 0) | (vertices >= batch.num_vertices))
    if len(wrong):
        raise InputError(
            f"outputs[{wrong[0]}] is {vertices[wrong[0]]}, but the batch has the vertices 0 to {batch.num_vertices - 1}; number "
            "them over all graphs, as batch.roots does"
        )
    ascending = vertices if (np.diff(vertices) > 0).all() else np.unique(vertices)
    return Selection(vertices, ascending)


def pushing(batch: GraphBatch, methods: Sequence[str], used: Mapping[str, Used]) -> dict[str, Mask | None]:
    """Which vertices push each output of vertices, by its name; None: all. `methods` has the method of each kind."""
    is_pushed: dict[str, Mask | None] = {}
    for name in {name for use in used.values() for name in use.pushes if not use.is_edge_output(name)}:
        of_kinds = np.array([name in used[method].pushes for method in methods])
        is_everywhere = batch.kind_index is None or of_kinds.all()
        is_pushed[name] = None if is_everywhere else of_kinds[batch.kind_index]
    return is_pushed


def _rows(values: Tensor, rows: Wide) -> Tensor:
    return values.index_select(0, torch.from_numpy(rows).to(values.device, non_blocking=True))


def _on_host(batch: GraphBatch, vertices: Tensor) -> np.ndarray[Any, Any]:
    """The numbers, without waiting for a device where they are known here."""
    if vertices.device.type != "cpu" and isinstance(batch, GraphBatch):  # not a part of graphs over ranks
        roots, leaves = batch._host_parts[:2]
        for attribute, known in (("roots", roots), ("leaves", leaves)):
            if batch.__dict__.get(attribute) is vertices:
                return known
    array: np.ndarray[Any, Any] = vertices.detach().cpu().numpy()
    return array
