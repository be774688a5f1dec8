"""`outputs=`: the vertices whose outputs a call returns, checked, and sorted for the runs of the parts of a batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, InputTypeError
from ..graph.inputs.pack import GraphBatch
from ..kernels.order import OfOutputs, Selected, Wide
from ..kernels.plain import check_plain
from .kinds import Used

Mask = np.ndarray[Any, np.dtype[np.bool_]]  # of vertices
Wanted = Tensor | Mapping[str, Tensor]  # `outputs=`: vertices of all outputs, or of each that has an entry


@dataclass(frozen=True, eq=False)
class Vertices:
    """Some vertices of a batch.

    Attributes:
        given: as they were given: in any order, also several times.
        ascending: the same in ascending order, each once.
    """

    given: Wide
    ascending: Wide

    @property
    def is_ascending(self) -> bool:
        """Whether they were given in ascending order."""
        return self.given is self.ascending

    def within(self, start: int, stop: int) -> Wide:
        """Those of the vertices [start, stop), counted from `start`."""
        first, end = np.searchsorted(self.ascending, (start, stop))
        return self.ascending[first:end] - start

    def pushing(self, is_pushed: Mask | None) -> Wide:
        """Those that push an output, as they were given; None: all do."""
        return self.given if is_pushed is None else self.given[is_pushed[self.given]]


@dataclass(frozen=True, eq=False)
class Selection(OfOutputs[Vertices]):
    """The vertices whose outputs are returned."""

    @property
    def is_ascending(self) -> bool:
        """Whether all were given in ascending order."""
        return all(each is None or each.is_ascending for each in (*self.by_output.values(), self.others))

    def shared_by(self, outputs: Collection[str]) -> Vertices | None:
        """The vertices of all of these outputs, if they are the same."""
        first, *others = (self.vertices_of(name) for name in outputs)
        if first is None or not all(each is not None and np.array_equal(each.given, first.given) for each in others):
            return None
        return first

    def with_outputs(self, outputs: Collection[str], vertices: Vertices) -> Selection:
        """The same, with further outputs, of these vertices."""
        return replace(self, by_output={**self.by_output, **dict.fromkeys(outputs, vertices)})

    def within(self, start: int, stop: int) -> Selected:
        """Those of the vertices [start, stop), counted from `start`."""
        by_output = {name: vertices.within(start, stop) for name, vertices in self.by_output.items()}
        return Selected(by_output, None if self.others is None else self.others.within(start, stop))

    def check_names(self, of_edges: Mapping[str, bool]) -> None:
        """Refuse vertices for what is not pushed, or pushed for edges, as these say of outputs by their names."""
        for name in self.by_output:
            if of_edges.get(name, True):
                why = "which has a row for each edge" if name in of_edges else "which the vertex function does not push"
                # What begins with "_" may be our own.
                others = [repr(each) for each, is_of_edges in of_edges.items() if not is_of_edges and each[:1] != "_"]
                raise InputError(
                    f"outputs has vertices for {name!r}, {why}; it may have them for {', '.join(others) or 'nothing'}"
                )

    def numbers(self) -> Wanted:
        """`outputs=` that asks for the same, by the numbers of vertices."""
        if self.others is not None:
            return torch.from_numpy(self.others.given)
        return {name: torch.from_numpy(vertices.given) for name, vertices in self.by_output.items()}

    def as_given(self, outputs: Mapping[str, Tensor], is_pushed: Mapping[str, Mask | None]) -> dict[str, Tensor]:
        """Outputs of the vertices in ascending order, in the order in which they were given.

        `is_pushed` tells, for each output of vertices, which push it; None: all. Those of edges stay as they are.
        """
        ordered = dict(outputs)
        for name in outputs.keys() & is_pushed.keys():
            vertices = self.vertices_of(name)
            if vertices is not None and not vertices.is_ascending:
                places = np.unique(vertices.pushing(is_pushed[name]), return_inverse=True)[1]
                ordered[name] = _rows(outputs[name], places)
        return ordered

    def of_all(self, outputs: Mapping[str, Tensor], is_pushed: Mapping[str, Mask | None]) -> dict[str, Tensor]:
        """The same from outputs of all vertices."""
        selected = dict(outputs)
        for name, mask in is_pushed.items():
            vertices = self.vertices_of(name)
            if vertices is not None:
                given = vertices.pushing(mask)
                selected[name] = _rows(outputs[name], given if mask is None else (np.cumsum(mask) - 1)[given])
        return selected


def each_wanted(wanted: Wanted, function: Callable[[Tensor], Tensor]) -> Wanted:
    """`outputs=` with another tensor in the place of each."""
    if isinstance(wanted, Mapping):
        return {name: function(vertices) for name, vertices in wanted.items()}
    return function(wanted)


def selection_of(batch: GraphBatch, outputs: object) -> Selection:
    """The vertices that a call was asked for: an index tensor, or a mask of all vertices, or a mapping from outputs to these.

    Raises:
        InputError, InputTypeError: it is none of these, or names a vertex that is not in the batch.
    """
    if isinstance(outputs, Mapping):
        return Selection({name: _vertices(batch, f"outputs[{name!r}]", each) for name, each in outputs.items()}, None)
    return Selection({}, _vertices(batch, "outputs", outputs))


def _vertices(batch: GraphBatch, what: str, outputs: object) -> Vertices:
    if not isinstance(outputs, Tensor):
        or_mapping = ", or a mapping from names of outputs to such (no input can have this name)"
        raise InputTypeError(
            f"{what} is a {type(outputs).__name__}; give a tensor of vertices, such as batch.roots"
            f"{or_mapping if what == 'outputs' else ''}"
        )
    if outputs.dim() != 1 or outputs.dtype not in (torch.int64, torch.int32, torch.bool):
        raise InputError(
            f"{what} is {str(outputs.dtype)[6:]} {list(outputs.shape)}; give int64 [count], the vertices whose outputs are "
            "wanted, or booleans [num_vertices]"
        )
    check_plain("the tensor of vertices", {what: outputs}, closely=True)
    vertices = _on_host(batch, outputs)
    if outputs.dtype is torch.bool:
        if len(vertices) != batch.num_vertices:
            raise InputError(
                f"{what} has {len(vertices)} booleans for {batch.num_vertices} vertices; give one a vertex"
            )
        vertices = np.flatnonzero(vertices)
    vertices = vertices.astype(np.int64)  # a copy: the caller may change the tensor before the backward pass
    wrong = np.flatnonzero((vertices < 0) | (vertices >= batch.num_vertices))
    if len(wrong):
        raise InputError(
            f"{what}[{wrong[0]}] is {vertices[wrong[0]]}, but the batch has the vertices 0 to {batch.num_vertices - 1}; number "
            "them over all graphs, as batch.roots does"
        )
    ascending = vertices if (np.diff(vertices) > 0).all() else np.unique(vertices)
    return Vertices(vertices, ascending)


def are_of_edges(used: Iterable[Used]) -> dict[str, bool]:
    """Of each output, by its name, whether it has a row for each edge."""
    return {name: use.is_edge_output(name) for use in used for name in use.pushes}


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
