"""Ways that compute a batch in pieces: graph by graph, or as a run that grows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..agreement import join
from .call import Call
from .inputs import Leaves, laid_out, of_pulling_kinds, shared_of

Rows = dict[str, list[torch.Tensor]]


def one_graph_at_a_time(call: Call) -> None:
    call.check(_in_pieces(call, [[index] for index in range(len(call.sample.parts))]))


def in_another_order(call: Call) -> None:
    call.check(_in_pieces(call, [call.rng.sample(range(len(call.sample.parts)), len(call.sample.parts))]))


def _in_pieces(call: Call, pieces: list[list[int]]) -> Leaves:
    """Calls with some graphs each; rows are put back to where they belong."""
    sample, function = call.sample, call.function
    sizes = [part.num_vertices for part in sample.parts]
    edge_sizes = [len(part.edges) for part in sample.parts]
    inputs, edge_inputs, initial = laid_out(function, sample, call.bases)
    rows: Rows = {}
    places: dict[str, list[int]] = {}
    ends = [edge[0 if sample.reverse else 1] for edge in join(sample.parts)[1]]
    starts = {vertex: at for at, vertex in enumerate(sample.starts())}
    for piece in pieces:
        at = [vertex for index in piece for vertex in _range_of(sizes, index)]
        edges_at = [edge for index in piece for edge in _range_of(edge_sizes, index)]
        kinds = None if sample.kinds is None else [sample.kinds[vertex] for vertex in at]
        part = replace(sample, parts=[sample.parts[index] for index in piece], kinds=kinds)
        given: dict[str, Any] = of_pulling_kinds(
            function,
            part,
            {name: value[at] for name, value in inputs.items()},
            {name: value[edges_at] for name, value in edge_inputs.items()},
        )
        if initial is not None:
            own = [starts[vertex] for vertex in at if vertex in starts]
            given["initial"] = {name: value[own] for name, value in initial.items()}
        given["reverse"] = sample.reverse
        if function.shared:
            given["shared"] = shared_of(call.bases)
        for name, value in call.run(graphs=part.graphs(), given=given).items():
            rows.setdefault(name, []).append(value)
            pushing = [k for k, method in function.methods.items() if name in [push[0] for push in method.push]]
            rows_of = (
                [(edge, ends[edge]) for edge in edges_at] if name.startswith("edge_") else [(row, row) for row in at]
            )
            places.setdefault(name, []).extend(
                row for row, vertex in rows_of if sample.kinds is None or sample.kinds[vertex] in pushing
            )
    return {name: torch.cat(values)[np.argsort(places[name])] for name, values in rows.items()}


def _range_of(sizes: list[int], index: int) -> range:
    start = sum(sizes[:index])
    return range(start, start + sizes[index])
