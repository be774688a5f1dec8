"""Ways that compute a batch in pieces: graph by graph, or as a run that grows."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import vertexflow as vf

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


def growing(call: Call) -> None:
    """Vertices are added in pieces, and some of them read before the next."""
    sample = call.sample
    pushed = [name for method in call.function.methods.values() for name, _ in method.push]
    edge_outputs = any(name.startswith("edge_") for name in pushed)
    if (
        sample.initial or sample.kinds is not None or edge_outputs or call.function.arity
    ):  # which runs that grow do not take
        return call.check(call.run())
    children = sample.children()
    order: list[int] = []
    while len(order) < sample.count:
        order += [v for v in range(sample.count) if v not in order and all(c in order for c, _ in children[v].values())]
    number = {vertex: at for at, vertex in enumerate(order)}
    count = sample.count
    cuts = sorted({0, count, *(call.rng.randrange(1, count) for _ in range(3) if count > 1)})
    rows: Rows = {}
    waiting: list[Any] = []
    run = None
    for start, stop in itertools.pairwise(cuts):
        with call.function.context():
            if run is None and call.rng.random() < 0.4:
                run = _begun(call, order[:stop], children, number)
                waiting.append(torch.arange(stop))
            else:
                run = call.model.start(shared=shared_of(call.bases)) if run is None else run
                waiting.append(_extended(call, run, order[start:stop], children, number))
        if call.rng.random() < 0.3:
            assert len(run.extend(np.empty((0, 0), np.int64))) == 0
        if call.rng.random() < 0.5 or stop == count:
            for piece in waiting:
                for name, value in run[piece].items():
                    rows.setdefault(name, []).append(value)
            waiting = []
    back = torch.tensor([number[vertex] for vertex in range(count)])
    return call.check({name: torch.cat(values)[back] for name, values in rows.items()})


Children = list[dict[int, tuple[int, int]]]


def _begun(call: Call, new: list[int], children: Children, number: dict[int, int]) -> vf.Frontier:
    """A run that begins with a graph of these vertices, whose edges are given in any order."""
    edges = [(number[c], number[v], slot, edge) for v in new for slot, (c, edge) in children[v].items()]
    call.rng.shuffle(edges)
    pairs, slots = [edge[:2] for edge in edges], [edge[2] for edge in edges]
    graph = vf.graph(len(new), pairs, slots=slots)
    return call.model.start([graph], shared=shared_of(call.bases), **_given(call, new, [edge[3] for edge in edges]))


def _extended(call: Call, run: vf.Frontier, new: list[int], children: Children, number: dict[int, int]) -> torch.Tensor:
    slots = max((slot for vertex in range(len(children)) for slot in children[vertex]), default=-1) + 1
    table = np.full((len(new), slots), -1)
    edges = []
    for row, vertex in enumerate(new):
        for slot in sorted(children[vertex]):
            table[row, slot] = number[children[vertex][slot][0]]
            edges.append(children[vertex][slot][1])
    return run.extend(table, **_given(call, new, edges))


def _given(call: Call, vertices: list[int], edges: list[int]) -> Leaves:
    inputs, edge_inputs, _ = laid_out(call.function, call.sample, call.bases)
    return {name: value[vertices] for name, value in inputs.items()} | {
        name: value[edges] for name, value in edge_inputs.items()
    }
