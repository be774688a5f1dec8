"""Ways that compute a batch as a run that grows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import vertexflow as vf

from .call import Call
from .combined import Gradients, add, pushing_vertices
from .inputs import Leaves, laid_out, shared_of


@dataclass
class Growing:
    """A run of the vertices of a sample, which are added in an order of its own, and what was read of them."""

    call: Call
    order: list[int] = field(default_factory=list)
    run: Any = None
    rows: dict[str, list[tuple[int, torch.Tensor]]] = field(default_factory=dict)  # of each vertex

    def __post_init__(self) -> None:
        sample = self.call.sample
        self.children = sample.children()
        waiting = self.call.rng.sample(range(sample.count), sample.count)
        done: set[int] = set()
        while len(self.order) < sample.count:
            ready = [v for v in waiting if v not in done and all(c in done for c, _ in self.children[v].values())]
            self.order += ready
            done |= {*ready}
        self.number = {vertex: at for at, vertex in enumerate(self.order)}

    def cuts(self, most: int) -> list[tuple[int, int]]:
        count = len(self.order)
        return [*itertools.pairwise(sorted({0, count, *(self.call.rng.randrange(count) for _ in range(most))}))]

    def begin(self, stop: int) -> torch.Tensor:
        """Begin with a graph of so many vertices, whose edges are given in any order."""
        new = self.order[:stop]
        edges = [
            (self.number[c], self.number[v], slot, edge) for v in new for slot, (c, edge) in self.children[v].items()
        ]
        self.call.rng.shuffle(edges)
        pairs, slots = [edge[:2] for edge in edges], [edge[2] for edge in edges]
        graph = vf.graph(len(new), pairs, slots=slots, kind=self.kinds_of(new))
        by_edge = [(edge[3], new[edge[1]]) for edge in edges]
        self.run = self.call.model.start([graph], shared=shared_of(self.call.bases), **self.given(new, by_edge))
        return torch.arange(stop)

    def extend(self, start: int, stop: int) -> torch.Tensor:
        if self.run is None:
            self.run = self.call.model.start(shared=shared_of(self.call.bases))
        table, edges = self.table(start, stop)
        new = self.order[start:stop]
        kinds = self.kinds_of(new)
        if kinds is not None and len(set(kinds)) == 1 and self.call.rng.random() < 0.5:
            kinds = kinds[0]
        of_kinds = {} if kinds is None else {"kind": kinds}
        return self.run.extend(table, **of_kinds, **self.given(new, edges))

    def table(self, start: int, stop: int) -> tuple[np.ndarray[Any, Any], list[tuple[int, int]]]:
        new, children = self.order[start:stop], self.children
        slots = max((slot for vertex in new for slot in children[vertex]), default=-1) + 1
        table = np.full((len(new), slots + self.call.rng.choice([0, 0, 1]) * self.may_have_more), -1)
        edges = []
        for row, vertex in enumerate(new):
            for slot in sorted(children[vertex]):
                table[row, slot] = self.number[children[vertex][slot][0]]
                edges.append((children[vertex][slot][1], vertex))
        return table, edges

    @property
    def may_have_more(self) -> bool:
        return all(method.ragged for method in self.call.function.methods.values())

    def kinds_of(self, vertices: list[int]) -> list[str] | None:
        kinds = self.call.sample.kinds
        return None if kinds is None else [kinds[vertex] for vertex in vertices]

    def given(self, vertices: list[int], edges: list[tuple[int, int]]) -> Leaves:
        """Inputs of vertices, and of edges with the vertices that read them, of the kinds that pull them."""
        sample, methods = self.call.sample, self.call.function.methods
        inputs, edge_inputs, _ = laid_out(self.call.function, sample, self.call.bases)

        def of_pulling(name: str, pairs: list[tuple[int, int]]) -> list[int]:
            pulling = [kind for kind, method in methods.items() if name in (*method.inputs, *method.edge_inputs)]
            return [at for at, vertex in pairs if sample.kinds is None or sample.kinds[vertex] in pulling]

        given = {name: (value, of_pulling(name, [(v, v) for v in vertices])) for name, value in inputs.items()}
        given |= {name: (value, of_pulling(name, edges)) for name, value in edge_inputs.items()}
        kinds = self.kinds_of(vertices)
        wanted = {
            name
            for kind, method in methods.items()
            for name in (*method.inputs, *method.edge_inputs)
            if kinds is None or kind in kinds
        }
        return {name: value[rows] for name, (value, rows) in given.items() if name in wanted}

    def read(self, numbers: list[int]) -> Leaves:
        """What vertices with these numbers pushed, joined by name; rows are noted as well."""
        outputs: Leaves = {}
        kinds = [None] if self.call.sample.kinds is None else sorted({*self.kinds_of([self.order[n] for n in numbers])})
        for kind in kinds:
            chosen = [n for n in numbers if kind is None or self.call.sample.kinds[self.order[n]] == kind]
            for name, value in self.run[torch.tensor(chosen)].items():
                assert len(value) == len(chosen), name
                self.rows.setdefault(name, []).extend(
                    (self.order[n], row) for n, row in zip(chosen, value.unbind(), strict=True)
                )
                outputs[name] = value
        return outputs

    def take(self) -> Leaves:
        """Outputs of what was read since, in the order of vertices; each of them once."""
        outputs = {}
        for name, rows in self.rows.items():
            by_vertex = dict(rows)
            outputs[name] = torch.stack([by_vertex[vertex] for vertex in sorted(by_vertex)])
        self.rows = {}
        return outputs


def can_grow(call: Call) -> bool:
    pushed = [name for method in call.function.methods.values() for name, _ in method.push]
    edge_outputs = any(name.startswith("edge_") for name in pushed)
    return not (call.sample.initial or edge_outputs or call.function.arity)


def growing(call: Call) -> None:
    """Vertices are added in pieces, and some of them read before the next."""
    if not can_grow(call):
        return call.check(call.run())
    grown = Growing(call)
    waiting: list[int] = []
    for start, stop in grown.cuts(3):
        with call.function.context():
            new = grown.begin(stop) if not start and call.rng.random() < 0.4 else grown.extend(start, stop)
        assert new.tolist() == [*range(start, stop)]
        if call.rng.random() < 0.3:
            assert len(grown.run.extend(np.empty((0, 0), np.int64), **_any_kind(call))) == 0
        waiting += new.tolist()
        if call.rng.random() < 0.5 or stop == call.sample.count:
            grown.read(waiting)
            waiting = []
    return call.check(grown.take())


def _any_kind(call: Call) -> dict[str, str]:
    return {} if call.sample.kinds is None else {"kind": call.sample.kinds[0]}


def growing_oddly(call: Call) -> None:
    """Two runs by turns, with bad children, readings that nobody uses, calls without gradients, and several calls of backward."""
    if not can_grow(call):
        return call.check(call.run())
    runs, rng = [Growing(call), Growing(call)], call.rng
    leaves = call.leaves()
    wanted = [name for name, leaf in leaves.items() if leaf.requires_grad]
    total: list[Gradients] = [dict.fromkeys(call.expected.gradients) for _ in runs]
    values: list[dict[str, dict[int, torch.Tensor]]] = [{}, {}]
    done: list[set[int]] = [set(), set()]  # vertices whose outputs were counted in a loss
    turns = [(at, cut) for at, grown in enumerate(runs) for cut in grown.cuts(4)]
    for at, (start, stop) in _by_turns(rng, turns):
        grown = runs[at]
        with call.function.context():
            if start and rng.random() < 0.3:
                _bad(call, grown, start, stop)
            if not start and rng.random() < 0.4:
                grown.begin(stop)
            else:
                grown.extend(start, stop)
        if rng.random() < 0.3:
            with torch.no_grad():
                grown.read([rng.randrange(stop) for _ in range(2)])
            grown.rows = {}
        if rng.random() < 0.3:  # and is not used
            grown.read([rng.randrange(stop) for _ in range(2)])
            grown.rows = {}
        is_last = stop == call.sample.count
        if rng.random() < 0.5 or is_last:
            left = [n for n in range(stop) if n not in done[at] and (is_last or rng.random() < 0.6)]
            done[at] |= {*left}
            rng.shuffle(left)
            pieces = [left[::2], left[1::2]] if rng.random() < 0.5 else [left]
            for piece in filter(None, pieces):
                grown.read(piece)
            _back(call, grown, values[at], total[at], leaves, wanted)
    for at in range(2):
        call.check_values(
            {name: torch.stack([rows[vertex] for vertex in sorted(rows)]) for name, rows in values[at].items()}
        )
        call.check_gradients(total[at])


def _by_turns(rng: Any, turns: list[Any]) -> list[Any]:
    """In any order in which those of each run stay in theirs."""
    queues = [[turn for turn in turns if turn[0] == at] for at in range(2)]
    for queue in queues:
        queue.sort(key=lambda turn: turn[1])
    taken = []
    while any(queues):
        taken.append(rng.choice([queue for queue in queues if queue]).pop(0))
    return taken


def _bad(call: Call, grown: Growing, start: int, stop: int) -> None:
    """Extensions that are refused leave the run as it was."""
    before = grown.run.num_vertices
    table, edges = grown.table(start, stop)
    new = grown.order[start:stop]
    kinds = grown.kinds_of(new)
    of_kinds = {} if kinds is None else {"kind": kinds}
    given = grown.given(new, edges)
    bad = table.copy()
    if bad.size:
        bad[-1, -1] = call.sample.count + 5
        _refused(lambda: grown.run.extend(bad, **of_kinds, **given))
    if given:
        name = call.rng.choice([*given])
        _refused(
            lambda: grown.run.extend(
                table,
                **of_kinds,
                **{
                    **given,
                    name: torch.cat([given[name], given[name], given[name].new_ones(1, *given[name].shape[1:])]),
                },
            )
        )
        _refused(lambda: grown.run.extend(table, **of_kinds, **given, nobody=given[name]))
    assert grown.run.num_vertices == before


def _refused(extend: Any) -> None:
    try:
        extend()
    except vf.VertexFlowError:
        return
    raise AssertionError("not refused")


def _back(
    call: Call,
    grown: Growing,
    values: dict[str, dict[int, torch.Tensor]],
    total: Gradients,
    leaves: Leaves,
    wanted: list[str],
) -> None:
    """Gradients of what was read, perhaps of one leaf after the other, perhaps twice."""
    losses, weights = [], []
    for name, rows in grown.rows.items():
        place = {vertex: at for at, vertex in enumerate(pushing_vertices(call, name))}
        for vertex, row in rows:
            values.setdefault(name, {})[vertex] = row.detach()
        weight = call.expected.weights.get(name)
        if weight is not None and rows:
            losses.append(torch.stack([row for _, row in rows]))
            weights.append(weight[[place[vertex] for vertex, _ in rows]])
    grown.rows = {}
    pairs = [(loss, weight) for loss, weight in zip(losses, weights, strict=True) if loss.requires_grad]
    if not (pairs and wanted):
        return
    ends, given = zip(*pairs, strict=True)
    twice = call.rng.random() < 0.3
    chosen = [[name] for name in wanted] if call.rng.random() < 0.3 else [wanted]
    for names in chosen:
        for again in range(1 + twice):
            gradients = torch.autograd.grad(
                ends, [leaves[name] for name in names], given, allow_unused=True, retain_graph=True
            )
            if not again:
                add(total, zip(names, gradients, strict=True))
