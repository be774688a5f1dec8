"""`vf.view`: a run of a model over a batch as one HTML page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .call import kinds
from .call.selection import pushing
from .errors import InputError, InputTypeError
from .function import VertexFunction
from .graph.inputs.build import InputGraph
from .graph.inputs.drawn import bounds_of, labels_of
from .graph.inputs.pack import GraphBatch, pack
from .kernels.compile import named_backend
from .pictures.page import Values, page
from .scheduler import schedule

MOST = 400  # vertices on a page
ENTRIES = 12  # of a vertex's value


def view(
    model: VertexFunction,
    graphs: GraphBatch | Sequence[InputGraph],
    path: str | os.PathLike[str],
    **call: Any,
) -> Path:
    """Run a model once over a batch, without gradients, and write an HTML page that shows the run: hover over a vertex to see its
    step, its row, its children and what it pushed; move through the steps. The page is one file, works offline, and has at most
    400 vertices: the first graphs of a larger batch, the vertices nearest to the roots of a larger graph.

    Args:
        model: a `VertexFunction`.
        graphs: a `GraphBatch`, or a list of input graphs. Tokens and labels that a reader read are written on the vertices.
        path: where to write the page, such as `"run.html"`.
        call: what a call of the model takes: its inputs, `reverse`, `initial`, `shared`.

    Returns:
        The path of the page.

    Raises:
        InputTypeError: the model is no vertex function.
        InputError: `outputs` is among the arguments: a page shows all of them. Also as a call of the model.

    Example:
        >>> vf.view(model, batch, "run.html", x=torch.randn(batch.num_vertices, 8))
    """
    if not isinstance(model, VertexFunction):
        raise InputTypeError(
            f"vf.view shows a run of one vertex function, not of a {type(model).__name__}; give a vf.VertexFunction "
            "(models of several layers are made of them)"
        )
    if "outputs" in call:
        raise InputError("vf.view shows the outputs of all vertices; leave out outputs=")
    batch = graphs if isinstance(graphs, GraphBatch) else pack(graphs)
    if not batch.num_graphs:
        raise InputError("the batch is empty: there is nothing to view")
    with torch.no_grad():
        outputs: Mapping[str, Tensor] = model(batch, **call)
    run = batch.reversed() if call.get("reverse") else batch
    run = run.with_initial() if call.get("initial") is not None else run
    structure, _ = kinds.group_by_method(run, kinds.methods_in(run, model._methods))
    steps = run.schedule or schedule(structure, model.policy)
    pushed, notes = _pushed(model, batch, outputs)
    heading = (
        f"{type(model).__name__}: {batch.num_graphs} graphs, {batch.num_vertices} vertices, {steps.num_steps} steps"
    )
    written = page(heading, run, bounds_of(batch), steps, labels_of(batch, None), pushed, notes, MOST)
    path = Path(path)
    path.write_text(written, encoding="utf-8")
    return path


def _pushed(
    model: VertexFunction, batch: GraphBatch, outputs: Mapping[str, Tensor]
) -> tuple[dict[str, Values], list[str]]:
    """What vertices pushed, and what is said of outputs that are not theirs alone."""
    notes = []
    is_eager = named_backend(model.backend) == "eager"  # else the call left its programs
    traced = {} if is_eager else model._programs.latest or {}
    used = {name: compiled.program.trace for name, compiled in traced.items()}
    methods = kinds.methods_in(batch, model._methods)
    masks = pushing(batch, methods, used) if set(methods) <= used.keys() else {}
    pushed = {}
    for name, value in outputs.items():
        mask = masks.get(name)
        if name not in masks and (used or len(value) != batch.num_vertices or batch.num_edges == batch.num_vertices):
            notes.append(f"{name} has a row for each edge, or for some vertices only, and is not shown")
            continue
        pushed[name] = _values(value, mask)
    return pushed, notes


def _values(value: Tensor, mask: np.ndarray[Any, np.dtype[np.bool_]] | None) -> Values:
    """Values with a row for each vertex of the mask."""
    rows = value.detach().flatten(1) if value.dim() > 1 else value.detach()[:, None]
    first = rows[:, :ENTRIES].cpu()
    shape = f"{str(value.dtype)[6:]} {list(value.shape[1:])}"
    more = rows.shape[1] - ENTRIES
    about = shape + (f", the first {ENTRIES} of {rows.shape[1]} entries" if more > 0 else "")
    row_of_vertex = None if mask is None else np.cumsum(mask) - 1

    def entries_of(vertex: int) -> Sequence[str] | None:
        if mask is not None and not mask[vertex]:
            return None
        return [_short(entry) for entry in first[vertex if row_of_vertex is None else row_of_vertex[vertex]].tolist()]

    return Values(about, entries_of)


def _short(entry: Any) -> str:
    return f"{entry:.4g}" if isinstance(entry, (float, complex)) else str(entry)
