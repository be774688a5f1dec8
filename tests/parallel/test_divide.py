"""`vf.parallel.divide`: what each rank has of graphs, and that together it is all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import vertexflow as vf
from benchmarks.graphs import wide_circuit
from vertexflow.parallel.divide_graph import levels_of, stabbed
from vertexflow.parallel.graph_part import EXCHANGE, GraphPart

from .cases import DAGS, KINDS, TREES


def random_dag(rng: np.random.Generator, count: int) -> vf.InputGraph:
    edges = [
        (int(child), parent) for parent in range(1, count) for child in rng.integers(0, parent, rng.integers(0, 4))
    ]
    order = rng.permutation(count)
    return vf.graph(count, [(int(order[child]), int(order[parent])) for child, parent in edges])


def vertices_of_rows(parts: list[GraphPart]) -> list[np.ndarray]:
    """For each rank, the vertex whose state each row of its local graph holds in the end; -1: none. Messages are read from the
    sender's tables alone: the rows of an exchange that are sent come first, sorted by receiving rank."""
    vertex_of_row = []
    for part in parts:
        local = part.upward
        rows = np.full(local.batch.num_vertices, -1)
        rows[: part.num_vertices] = part.own
        vertex_of_row.append(rows)
    for number in range(parts[0].upward.num_exchanges):
        messages = {}
        for part, rows in zip(parts, vertex_of_row, strict=True):
            local = part.upward
            first = len(rows) - len(local.exchange) + int(np.flatnonzero(local.exchange == number)[0])
            read = local.batch.child[local.batch.offset[first] :]  # one child each
            pieces = np.split(rows[read[: local.sent[number].sum()]], np.cumsum(local.sent[number])[:-1])
            messages |= {(part.rank, to): piece for to, piece in enumerate(pieces)}
        for part, rows in zip(parts, vertex_of_row, strict=True):
            local = part.upward
            first = len(rows) - len(local.exchange) + int(np.flatnonzero(local.exchange == number)[0])
            arrived = np.concatenate([messages[source, part.rank] for source in range(len(parts))])
            assert len(arrived) == local.received[number].sum()
            rows[first : first + len(arrived)] = arrived
    return vertex_of_row


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_every_vertex_reads_its_children_in_their_slots(ranks):
    rng = np.random.default_rng(ranks)
    for _ in range(20):
        batch = vf.pack([random_dag(rng, int(rng.integers(1, 40))) for _ in range(3)])
        rank_of = rng.integers(0, ranks, batch.num_vertices)
        parts = vf.parallel.divide(batch, ranks, rank_of=rank_of)
        child, parent = batch.edge_index.numpy()
        for part, rows in zip(parts, vertices_of_rows(parts), strict=True):
            local = part.upward.batch
            for at, vertex in enumerate(part.own.tolist()):
                entries = slice(*batch.offset[vertex : vertex + 2])
                own_entries = slice(*local.offset[at : at + 2])
                assert rows[local.child[own_entries]].tolist() == batch.child[entries].tolist()
                assert local.slot[own_entries].tolist() == batch.slot[entries].tolist()
            read = part.upward.edges
            assert sorted(np.flatnonzero(np.isin(parent, part.own))) == read.tolist()
            ours = local.edge_index[:, : len(read)].numpy()  # numbered as the user's are
            assert rows[ours].tolist() == [child[read].tolist(), parent[read].tolist()]


def test_steps_are_those_of_the_whole_graph_and_exchanges_the_same_on_all_ranks():
    rng = np.random.default_rng(0)
    batch = vf.pack([random_dag(rng, 50)])
    levels = levels_of(batch)
    parts = vf.parallel.divide(batch, 3, rank_of=rng.integers(0, 3, 50))
    exchanges = []
    for part in parts:
        local = part.upward
        assert (local.steps[: part.num_vertices] == 2 * levels[part.own]).all()
        parent = np.repeat(np.arange(local.batch.num_vertices), np.diff(local.batch.offset))
        assert (local.steps[local.batch.child] < local.steps[parent]).all()
        exchanges.append(np.unique(local.steps[local.batch.kind == EXCHANGE]).tolist())
    assert exchanges[0] == exchanges[1] == exchanges[2]
    assert len(exchanges[0]) == parts[0].upward.num_exchanges > 1


def test_exchanges_are_as_few_as_can_be():
    rng = np.random.default_rng(0)
    for _ in range(200):
        first = rng.integers(0, 7, rng.integers(1, 6))
        last = np.minimum(6, first + rng.integers(0, 4, len(first)))

        def meets(points, first=first, last=last):
            return all(any(a <= point <= b for point in points) for a, b in zip(first, last, strict=True))

        least = next(size for size in range(1, 8) if any(map(meets, itertools.combinations(range(7), size))))
        chosen = stabbed(first, last, 7)
        assert meets(chosen)
        assert len(chosen) == least


def test_rows_of_a_rank_fall_with_the_number_of_ranks():
    batch = vf.pack([wide_circuit(0, 20_000, 500)])
    levels = levels_of(batch)
    for ranks in (2, 4, 8):
        parts = vf.parallel.divide(batch, ranks)
        mean = batch.num_vertices / ranks
        assert max(part.upward.batch.num_vertices for part in parts) < 1.25 * mean
        assert sum(part.num_vertices for part in parts) == batch.num_vertices
        rows = np.stack([np.bincount(levels[part.own], minlength=levels.max() + 1) for part in parts])
        assert rows.max(0).sum() < 1.15 * mean  # levels are shared evenly, too
        assert sum(part.num_ghosts for part in parts) < 0.03 * ranks * batch.num_vertices


def test_a_deep_and_narrow_graph_is_cut_where_few_states_cross():
    """Ranks would wait for each other in every level; so each takes a stretch, and the memory of each falls."""
    batch = vf.pack([vf.chain(1000), vf.chain(3)])
    parts = vf.parallel.divide(batch, 4)
    assert max(part.num_vertices for part in parts) <= 276
    assert sum(int(part.upward.sent.sum()) for part in parts) <= 6


@pytest.mark.parametrize("graphs", [TREES, DAGS, KINDS, []])
def test_what_users_ask_a_part(graphs):
    batch = vf.pack(graphs)
    parts = vf.parallel.divide(batch, 3, reverse=True)
    assert sorted(torch.cat([part.own for part in parts]).tolist()) == list(range(batch.num_vertices))
    for name in ("roots", "leaves"):
        vertices = torch.cat([part.own[getattr(part, name)] for part in parts])
        assert sorted(vertices.tolist()) == getattr(batch, name).tolist()
    for name, end in (("edges", 1), ("reverse_edges", 0)):
        assert sorted(torch.cat([getattr(part, name) for part in parts]).tolist()) == list(range(batch.num_edges))
        for part in parts:
            assert torch.isin(batch.edge_index[end][getattr(part, name)], part.own).all()
    if batch.kinds is not None:
        nodes = torch.cat([part.own[part.of_kind("node")] for part in parts])
        assert sorted(nodes.tolist()) == batch.of_kind("node").tolist()


def test_a_part_is_written_and_read(tmp_path):
    batch = vf.pack(KINDS)
    for part in vf.parallel.divide(batch, 2, reverse=True, rank_of=np.arange(batch.num_vertices) % 2):
        part.save(tmp_path / "part")
        again = GraphPart.load(tmp_path / "part")
        assert repr(again) == repr(part)
        assert (again.checksum, again.kinds) == (part.checksum, part.kinds)
        for one, other in ((part.upward, again.upward), (part.downward, again.downward)):
            for name in ("steps", "exchange", "place", "sent", "received", "edges"):
                assert (getattr(one, name) == getattr(other, name)).all()
            for name in ("child", "slot", "offset", "kind", "edge", "graph_offset"):
                assert (getattr(one.batch, name) == getattr(other.batch, name)).all()
    torch.save({"a": 1}, tmp_path / "other")
    with pytest.raises(vf.InputError, match="is no part of graphs"):
        GraphPart.load(tmp_path / "other")
    for text in ("hello", ""):
        (tmp_path / "other").write_text(text)
        with pytest.raises(vf.InputError, match=r"is no part of graphs"):
            GraphPart.load(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        GraphPart.load(tmp_path / "none")


def test_graphs_of_other_kinds_are_other_graphs():
    first, second = (
        vf.parallel.divide([vf.graph(2, [(0, 1)], kind=kinds)], 2, rank_of=[0, 1])[0]
        for kinds in (["a", "b"], ["b", "a"])
    )
    assert first.checksum != second.checksum
    assert (
        len(
            {
                vf.parallel.divide([vf.graph(2, [(0, 1)], kind=[1, kind])], 1, rank_of=[0, 0])[0].checksum
                for kind in (2, 3)
            }
        )
        == 2
    )


def test_what_is_refused():
    batch = vf.pack(TREES)
    for arguments, wanted in [
        ({"ranks": 0}, "ranks is 0"),
        ({"ranks": 2.0}, "ranks is 2.0"),
        ({"ranks": 2, "rank_of": [0, 1]}, "rank_of is of int64 and shape"),
        ({"ranks": 2, "rank_of": np.full(batch.num_vertices, 2)}, r"rank_of\[0\] is 2; ranks are 0 to 1"),
    ]:
        with pytest.raises(vf.VertexFlowError, match=wanted):
            vf.parallel.divide(batch, **arguments)
    with pytest.raises(vf.GraphError, match="hypergraph"):
        vf.parallel.divide([vf.hypergraph(3, [((0, 1), 2)])], 2)
    with pytest.raises(vf.InputError, match=r"reverse=True\) makes parts for both directions"):
        vf.parallel.divide(batch, 2)[0].reverse_edges  # noqa: B018
    with pytest.raises(vf.InputError, match=r"torch\.distributed is not initialised"):
        vf.nn.TreeGRU(3, 4)(vf.parallel.divide(batch, 2)[0], x=torch.randn(18, 3))
    assert str(vf.parallel.Plan({"data": 2, "vertices": 4}, {"": "whole"})).startswith(
        "plan: data 2 x vertices 4: whole"
    )
