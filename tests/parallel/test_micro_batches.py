"""How arguments are cut into micro-batches: as it was said, never because of how many rows they have."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.parallel.micro_batches import Cutter, positions

BATCH = vf.pack([vf.chain(2), vf.chain(3), vf.tree((0, 1))])  # 8 vertices, 5 edges, 3 graphs, 3 roots, 4 leaves
X = torch.arange(8.0)


def cut(rows, *args, count=3, names=("batch", "x"), **kwargs):
    return Cutter(count, rows, names).cut((BATCH, *args), kwargs)[0]


def test_a_table_that_has_as_many_rows_as_there_are_vertices_is_given_whole():
    table = torch.randn(8, 2)
    pieces = cut({"x": "vertices", "table": None}, X, table=table)
    assert [args[1].tolist() for args, _ in pieces] == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert all(kwargs["table"] is table for _, kwargs in pieces)
    with pytest.raises(
        vf.InputError, match=r"argument 'table' .* has 8 rows, as many as the batch has vertices. .*rows="
    ):
        cut({"x": "vertices"}, X, table=table)


def test_what_fits_nothing_of_the_batch_is_given_whole():
    table = torch.randn(17)
    assert all(kwargs["table"] is table for _, kwargs in cut({"x": "vertices"}, X, table=table))


def test_what_a_batch_said_is_not_kept():
    """In one batch a table is as long as nothing, in the next as long as its graphs."""
    cutter = Cutter(2, {"x": "vertices"}, ("batch", "x", "table"))
    cutter.cut((BATCH, X, torch.ones(17)), {})
    with pytest.raises(vf.InputError, match=r"'table' .* as many as the batch has graphs and roots"):
        cutter.cut((BATCH, X, torch.ones(3)), {})


def test_rows_of_every_sort():
    said = {"a": "edges", "b": "graphs", "c": "roots", "d": "leaves"}
    given = {"a": torch.arange(5), "b": torch.arange(3), "c": torch.arange(3), "d": torch.arange(4)}
    pieces = [kwargs for _, kwargs in cut(said, **given)]
    assert [piece["a"].tolist() for piece in pieces] == [[0], [1, 2], [3, 4]]
    assert [piece["b"].tolist() for piece in pieces] == [[0], [1], [2]]
    assert [piece["c"].tolist() for piece in pieces] == [[0], [1], [2]]
    assert [piece["d"].tolist() for piece in pieces] == [[0], [1], [2, 3]]


def test_entries_of_arguments():
    (first, _), *_ = cut({"x.rows": "vertices", "x": None}, {"rows": X, "table": X})
    assert first[1]["rows"].tolist() == [0, 1]
    assert first[1]["table"] is X
    (first, _), *_ = cut({"x.0": "vertices", "x.1": None}, (X, X))
    assert first[1][0].tolist() == [0, 1]
    assert first[1][1] is X


def test_vertices_of_a_kind():
    graphs = [vf.graph(3, [(0, 2), (1, 2)], kind=["leaf", "leaf", "node"]), vf.graph(1, [], kind=["leaf"])]
    cutter = Cutter(2, {"x": "vertices of kind 'leaf'"}, ("batch", "x"))
    assert [args[1].tolist() for args, _ in cutter.cut((vf.pack(graphs), torch.arange(3)), {})[0]] == [[0, 1], [2]]


def test_what_does_not_fit_what_was_said_is_refused():
    with pytest.raises(
        vf.InputError, match=r"'x' .* has 8 rows, and the batch 5 edges, which it was said to have a row for"
    ):
        cut({"x": "edges"}, X)
    with pytest.raises(vf.InputError, match=r"the batch 0 nodes, which .* 8 vertices, 5 edges, 3 graphs"):
        cut({"x": "nodes"}, X)


def test_parts_of_graphs_are_refused():
    part, _ = vf.parallel.divide(BATCH, 2, rank_of=torch.arange(8) % 2)
    with pytest.raises(vf.InputError, match="a model in stages was called with a part of graphs"):
        Cutter(2, {"x": "vertices"}, ("batch", "x")).cut((part, X[:4]), {})


def test_where_nothing_is_cut_nothing_has_to_be_said():
    ((args, _),) = cut({}, X, count=1)
    assert torch.equal(args[1], X)


class Model(nn.Module):
    def forward(self, batch, x, *, table=None):
        return x


class Open(nn.Module):
    def forward(self, batch, *rest, **more):
        return rest


def test_rows_of_arguments_that_a_model_has_not():
    assert positions(Model(), {"x": "vertices", "table": None}) == ["batch", "x"]
    assert positions(Open(), {"rest": "vertices", "other": None}) == ["batch"]
    with pytest.raises(vf.InputError, match="no such argument; it has batch, x, table"):
        positions(Model(), {"y": "vertices"})
