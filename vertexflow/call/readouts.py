"""A call with `outputs=` in two: the trunk for all vertices, and what only outputs need for the vertices that were asked for."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from .. import log
from ..graph.inputs.pack import GraphBatch
from ..graph.inputs.split import split
from ..graph.symbolic import readout
from ..graph.symbolic.isolation import without_autocast
from ..graph.symbolic.readout import Divided, Readout
from ..graph.symbolic.trace import Trace
from ..kernels import autograd
from ..kernels.order import MOST_SELECTIONS
from ..kernels.parts import BoundPart, run_parts
from . import kinds, programs
from .orders import Reads, order_of
from .programs import Programs, Request, Version
from .selection import Selection, Vertices

Tensors = Mapping[str, Tensor]
# What a run of its own takes, and each number that one run reads of the other, in floating point operations.
_RUN, _MOVED = 50_000_000, 60


class Model(Protocol):
    """What of a vertex function decides how a readout is bound."""

    @property
    def _programs(self) -> Programs: ...

    max_vertices: int | None


@dataclass(frozen=True, eq=False)
class Cut:
    """The methods of a call, cut in two.

    Attributes:
        divided: the methods.
        vertices: those that readouts compute.
        of_trunk: the vertices whose outputs are returned, or read by the readout.
    """

    divided: Divided
    vertices: Vertices
    of_trunk: Selection

    @classmethod
    def of(cls, divided: Divided, vertices: Vertices, selection: Selection) -> Cut:
        """The cut of a call with this selection."""
        return cls(divided, vertices, selection.with_outputs(_read_of_trunk(divided), vertices))


@dataclass(frozen=True, eq=False)
class InTwo:
    """A trunk, and the readout of the vertices that were asked for.

    Attributes:
        trunk: its parts.
        readout: the parts of the vertices that were asked for, in ascending order.
        read: the outputs of the trunk that the readout reads.
        absent: the readouts of methods of the batch that compute none of these vertices.
    """

    trunk: Sequence[BoundPart]
    readout: Sequence[BoundPart]
    read: frozenset[str]
    absent: Sequence[Trace]

    def run(self, tensors: Tensors, inputs: Tensors, external: Tensors) -> dict[str, Tensor]:
        """The outputs, as of `run_parts`."""
        pushed = run_parts(self.trunk, tensors, inputs, external)
        read = {name: pushed[name] for part in self.readout for name in part.bound.pulls}
        outputs = {name: value for name, value in pushed.items() if name not in self.read}
        if self.readout:
            outputs |= run_parts(self.readout, tensors, read, {})
        if self.absent:
            device = next(iter(pushed.values())).device
            autograd.add_missing(outputs, self.absent, [], device)
            names = dict.fromkeys(name for trace in self.absent for name in trace.param_grads)
            outputs = autograd.with_zero_gradients(outputs, [*(tensors[name] for name in names), *inputs.values()])
        return outputs


def cut(
    version: Version,
    traces: Mapping[str, Trace],
    batch: GraphBatch,
    methods: Sequence[str],
    selection: Selection,
    inputs: Tensors,
    tensors: Tensors,
    device: torch.device,
) -> Cut | None:
    """The methods cut in two; None where that saves little for these vertices, or cannot be done. `methods` has the method of
    each kind of the batch."""
    of_methods = programs.kept_with(version.readouts, traces, lambda: readout.readouts(traces))
    vertices = (
        selection.shared_by({name for each in of_methods.values() for name in each.outputs}) if of_methods else None
    )
    if vertices is None or not _saves_much(of_methods, batch, methods, vertices):
        return None

    def make() -> Divided | None:
        try:
            with without_autocast(device.type):  # the traces have their casts in them
                pieces = readout.divide(of_methods, inputs, tensors, device)
        except Exception as error:
            # Of PyTorch, or of the numbers that it was checked with: all rows are computed, as ever.
            log.show("trace", f"outputs of some vertices are computed with those of all: {error}")
            return None
        is_alike = all(Reads.of(pieces.trunk[name]) == Reads.of(trace) for name, trace in traces.items())
        return pieces if is_alike else None

    pieces = programs.kept_with(version.divided, traces, make)
    return None if pieces is None else Cut.of(pieces, vertices, selection)


def _read_of_trunk(divided: Divided) -> frozenset[str]:
    """The outputs of the trunk that the readout reads."""
    return frozenset(name for trace in divided.readout.values() for name in trace.pulls)


def _saves_much(
    of_methods: Mapping[str, Readout], batch: GraphBatch, methods: Sequence[str], vertices: Vertices
) -> bool:
    """Whether the readouts of vertices that were not asked for are more work than a run of its own for the others."""
    if not len(vertices.ascending):
        return False
    if batch.kind_index is None:
        all_counts, counts = [batch.num_vertices], [len(vertices.ascending)]
    else:
        all_counts = np.bincount(batch.kind_index, minlength=len(methods)).tolist()
        counts = np.bincount(batch.kind_index[vertices.ascending], minlength=len(methods)).tolist()
    saved, moved = 0, 0
    for method, count, all_count in zip(methods, counts, all_counts, strict=True):
        saved += (all_count - count) * of_methods[method].work
        moved += count * of_methods[method].num_read
    return saved > _RUN + moved * _MOVED


def bind(
    model: Model,
    version: Version,
    cut: Cut,
    trunk: Sequence[BoundPart],
    request: Request,
    batch: GraphBatch,
    methods_of_kinds: Sequence[str],
) -> InTwo:
    """Bind a readout to its trunk, whose programs are compiled for `request`."""
    divided = cut.divided
    kept, with_readout = model._programs, [name for name in dict.fromkeys(methods_of_kinds) if name in divided.readout]
    vertices = _apart(batch, methods_of_kinds, with_readout, cut.vertices)
    methods = cast("tuple[str, ...]", vertices.kinds)
    reads = {name: Reads.of(divided.readout[name]) for name in methods}
    names = [name for method in methods for name in divided.readout[method].pulls]
    wanted = {name for part in trunk if part.bound.wants_gradients for name in part.bound.differentiable}
    request = request._replace(inputs=tuple(name for name in names if name in wanted), through=False)
    of_trunk = kept.latest or {}

    def bind_part(part: GraphBatch) -> BoundPart:
        methods_of_part = cast("tuple[str, ...]", part.kinds)
        order, group_methods = order_of(part, methods_of_part, reads, "depth", None, request.device)
        with without_autocast(request.device.type):
            bound = programs.bound(kept, version, divided.readout, request, group_methods)
        counts = kinds.count_inputs(divided.readout, names, kinds.count_rows(part, methods_of_part))
        return BoundPart(bound, order, counts, 0)

    parts = [vertices] if vertices.num_graphs else []
    if model.max_vertices is not None and parts:
        parts = [part.batch for part in split(vertices, model.max_vertices)]
    bound_parts = list(map(bind_part, parts))
    kept.latest = {**of_trunk, **{f"{name}.readout": compiled for name, compiled in (kept.latest or {}).items()}}
    absent = [divided.readout[name] for name in with_readout if name not in methods]
    return InTwo(trunk, bound_parts, _read_of_trunk(divided), absent)


def _apart(batch: GraphBatch, methods: Sequence[str], distinct: Sequence[str], chosen: Vertices) -> GraphBatch:
    """The chosen vertices of `distinct` methods, each a graph; their kinds are their methods. The last few are kept
    with the batch. `methods` has the method of each kind of the batch."""
    count, numbers, present = len(chosen.ascending) if distinct else 0, b"", tuple(distinct)
    if batch.kind_index is not None and len(set(methods)) > 1:
        number = np.array([distinct.index(name) if name in distinct else -1 for name in methods], np.int32)
        of_vertices = number[batch.kind_index[chosen.ascending]]
        used, index = np.unique(of_vertices[of_vertices >= 0], return_inverse=True)
        count, present, numbers = len(index), tuple(distinct[each] for each in used), index.astype(np.int32).tobytes()
    key, apart = (count, present, numbers), batch.derived.apart
    if key not in apart:
        if len(apart) >= MOST_SELECTIONS:
            apart.pop(next(iter(list(apart))), None)  # which another thread may have done
        apart[key] = _vertices(*key)
    return apart[key]


@functools.lru_cache(maxsize=MOST_SELECTIONS)
def _vertices(count: int, methods: tuple[str, ...], numbers: bytes) -> GraphBatch:
    """So many vertices without edges: the same for all batches of which as many are asked for."""
    none, end = np.zeros(0, np.int32), np.arange(count + 1, dtype=np.int32)
    kind_index = np.frombuffer(numbers, np.int32) if numbers else np.zeros(count, np.int32)
    return GraphBatch(
        count, count, child=none, slot=none, offset=np.zeros(count + 1, np.int32), graph_offset=end, num_slots=0,
        kinds=methods, kind_index=kind_index,
    )  # fmt: skip
