"""The values of one field of all samples, joined: concatenated if they are rows, else stacked."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, InputTypeError
from ..graph.inputs.build import InputGraph
from .fields import Path, is_number, is_rows, shown


def join_field(path: Path, items: list[Any], layout: str | None, graphs: Sequence[list[InputGraph]]) -> Any:
    """A field in the batch.

    Args:
        path: where the field is, for messages.
        items: its values.
        layout: `"rows"`, `"per_graph"`, or None, where it is to be told from the sizes.
        graphs: the graphs of all samples, of each field of graphs.
    """
    if isinstance(items[0], (Tensor, np.ndarray)) or is_rows(items[0]):
        lists = isinstance(items[0], list)
        shapes = [_shape(path, index, item) if lists else tuple(item.shape) for index, item in enumerate(items)]
        if layout is None:
            layout = _layout(path, shapes, graphs)
        if layout == "per_graph" and any(shape != shapes[0] for shape in shapes):
            raise InputError(f"{shown(path)} is named in `per_graph`, but has the shapes {_listed(shapes)}; "
                             "give every graph one value of one shape, or name it in `rows`")  # fmt: skip
        if lists:
            return _join_lists(path, items, shapes, layout)
        return _join_arrays(path, items, shapes, layout)
    return _numbers(path, items) if is_number(items[0]) else items


def join_index(path: Path, items: list[Any], per_graph: bool, graphs: list[InputGraph]) -> Tensor:
    """A field of vertex numbers in the batch, in which the vertices of each graph come after those of the graphs before."""
    moved = []
    offset = 0
    for index, (item, graph) in enumerate(zip(items, graphs, strict=True)):
        values = (
            item if isinstance(item, Tensor) else torch.tensor(_array(path, index, item))
        )  # a copy: it may be read-only
        if values.numel() == 0 and isinstance(item, list):
            values = values.long()
        if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
            raise InputTypeError(
                f"{shown(path)} is named in `index`, but sample {index} has {values.dtype} there; give integers"
            )
        values = values.long()
        wrong = values[(values < -1) | (values >= graph.num_vertices)]
        if len(wrong):
            raise InputError(
                f"{shown(path)}: sample {index} has the vertex number {int(wrong[0])}, which is out of range; its graph has "
                f"the vertices 0 to {graph.num_vertices - 1} (-1: none)"
            )
        moved.append(torch.where(values < 0, values, values + offset))
        offset += graph.num_vertices
    joined = join_field(path, moved, "per_graph" if per_graph else "rows", ())
    assert isinstance(joined, Tensor)
    return joined


def _layout(path: Path, shapes: list[tuple[int, ...]], graphs: Sequence[list[InputGraph]]) -> str:
    """Whether values of these shapes are rows, or one value for each graph."""
    lengths = [shape[0] if shape else -1 for shape in shapes]
    if not graphs or any(len(shape) != 1 for shape in shapes):
        return "rows"
    is_one_length = len(set(lengths)) == 1
    row_owner = next(
        (owner for field_graphs in graphs for owner, counts in _counts(field_graphs) if counts == lengths), None
    )
    if row_owner is not None and not (is_one_length and lengths[0]):
        return "rows"
    if row_owner is not None:
        # One number a graph is more often its label than the row of its only leaf.
        layout = "per_graph" if lengths[0] == 1 and row_owner not in ("vertices", "edges") else "rows"
        meaning = "rows" if layout == "rows" else "one vector for each graph"
        warnings.warn(
            f"vf.collate: {shown(path)} has one entry for each of the {row_owner} in every sample of this batch, but also "
            f"one length in all: it is taken as {meaning}. Say what it is for every batch, with "
            f"vf.collate(..., rows=({_name(path)},)) or vf.collate(..., per_graph=({_name(path)},))",
            RuntimeWarning,
            stacklevel=4,
        )
        return layout
    if is_one_length:
        return "per_graph" if lengths[0] else "rows"  # of length 0: rows, of which this batch happens to have none
    sizes = ", ".join(f"{n} for {graph.num_vertices} vertices and {graph.num_arcs} edges"
                      for n, graph in list(zip(lengths, graphs[0], strict=True))[:4])  # fmt: skip
    raise InputError(
        f"{shown(path)} has neither one length in all samples, nor an entry for each vertex or edge of its graph ({sizes}"
        f"{', ...' if len(lengths) > 4 else ''}); if it is rows of something else, say vf.collate(..., rows=({_name(path)},))"
    )


def _counts(graphs: list[InputGraph]) -> Iterator[tuple[str, list[int]]]:
    """What may have a row each (vertices, edges, leaves, ...), and how many of them each graph has."""
    yield "vertices", [graph.num_vertices for graph in graphs]
    yield "edges", [graph.num_arcs for graph in graphs]
    leaves = [int((graph.offset[1:] == graph.offset[:-1]).sum()) for graph in graphs]
    yield "leaves", leaves
    yield "inner vertices", [graph.num_vertices - count for graph, count in zip(graphs, leaves, strict=True)]
    kind_counts = [Counter(() if graph.kind is None else graph.kind.tolist()) for graph in graphs]
    for kind in dict.fromkeys(chain.from_iterable(kind_counts)):
        yield f"vertices of kind {kind!r}", [counts[kind] for counts in kind_counts]


def _join_arrays(path: Path, items: list[Any], shapes: list[tuple[int, ...]], layout: str) -> Any:
    stacked = layout == "per_graph" or not shapes[0]
    try:
        if isinstance(items[0], Tensor):
            joined = torch.stack(items) if stacked else torch.cat(items)
        else:
            array = np.stack(items) if stacked else np.concatenate(items)
            if array.dtype.kind not in "biufc":
                return array
            joined = torch.from_numpy(array)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{shown(path)}: the shapes {_listed(shapes)} cannot be joined: {error}") from error
    if joined.is_floating_point() and len({item.dtype for item in items}) > 1:
        _check_whole(path, (torch.as_tensor(item) for item in items), joined.dtype)
    return joined


def _join_lists(path: Path, items: list[Any], shapes: list[tuple[int, ...]], layout: str) -> Any:
    joined = items if layout == "per_graph" else list(chain.from_iterable(items))
    widths = {shape[1:] for shape in shapes if shape[0]}
    if len(widths) > 1:
        raise InputError(f"{shown(path)}: the shapes {_listed(shapes)} cannot be joined; give rows of one length")
    if not (set(map(type, joined)) <= {int, float, bool} or all(map(is_number, _atoms(joined)))):
        return joined
    if not joined and widths:
        return torch.empty((0, *widths.pop()))
    return _numbers(path, joined)


def _shape(path: Path, index: int, item: Any) -> tuple[int, ...]:
    """The shape of a list of lists, whose inner ones have one length."""
    inner = [part for part in item if isinstance(part, (tuple, list))]
    if not inner:
        return (len(item),)
    shapes = {_shape(path, index, part) for part in inner}
    if len(inner) < len(item) or len(shapes) > 1:
        raise InputError(f"{shown(path)}: in sample {index} the rows of the list have different lengths; "
                         "give all rows one length, or pad them")  # fmt: skip
    return (len(item), *shapes.pop())


def _atoms(item: Any) -> Iterator[Any]:
    if not isinstance(item, (tuple, list)):
        yield item
        return
    for part in item:
        yield from _atoms(part)


def _numbers(path: Path, items: Any) -> Tensor:
    try:
        joined, whole = torch.tensor(items), None
        if joined.is_floating_point() and set(map(type, items)) != {float}:
            whole = torch.tensor(
                [item for item in _atoms(items) if isinstance(item, (int, np.integer))], dtype=torch.int64
            )
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{shown(path)}: the numbers cannot be joined: {error}") from error
    if whole is not None:
        _check_whole(path, [whole], joined.dtype)
    return joined


def _check_whole(path: Path, items: Iterable[Tensor], dtype: torch.dtype) -> None:
    """Refuse integers that become other numbers among those of floating point."""
    for item in items:
        if not (item.is_floating_point() or item.is_complex()):
            rounded = item.to(dtype)
            changed = item[(rounded.double() != item.double()) | (rounded.to(item.dtype) != item)]
            if len(changed):
                raise InputError(
                    f"{shown(path)}: integers and {str(dtype)[6:]} are joined, in which {int(changed[0])} is another number; "
                    "give all samples one dtype"
                )


def _array(path: Path, index: int, item: Any) -> Any:
    """Vertex numbers as an array."""
    if isinstance(item, list):
        _shape(path, index, item)
    array = np.asarray(item)
    if array.dtype.kind not in "biufc":
        raise InputTypeError(
            f"{shown(path)} is named in `index`, but sample {index} has a {type(item).__name__} without numbers there; "
            "give integers"
        )
    return array


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes[:4])) + (", ..." if len(shapes) > 4 else "")


def _name(path: Path) -> str:
    return repr(path[0] if len(path) == 1 else path)
