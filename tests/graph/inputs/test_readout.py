"""Readouts: a graph's vertices reduced to one row, against loops over the graphs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vertexflow as vf

KIND = ["a", "b", "a"]


def batch_of(lengths, kinds=False):
    return vf.pack(
        [
            vf.graph(n, [(i, i + 1) for i in range(n - 1)], kind=[KIND[i % 3] for i in range(n)] if kinds else None)
            for n in lengths
        ]
    )


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.booleans())
def test_every_readout_is_that_of_each_graph(lengths, kinds):
    batch = batch_of(lengths, kinds)
    names = ("a",) if kinds else ()
    rows = [len([i for i in range(n) if KIND[i % 3] == "a"]) if kinds else n for n in lengths]
    x = torch.randn(sum(rows), 2, 3, dtype=torch.float64, requires_grad=True)
    of_graph = torch.split(x, rows)
    expected = {
        "sum": torch.stack([part.sum(0) for part in of_graph]),
        "mean": torch.stack([part.mean(0) for part in of_graph]),
        "max": torch.stack([part.amax(0) for part in of_graph]),
        "softmax": torch.cat([part.softmax(0) for part in of_graph]),
    }
    for name, wanted in expected.items():
        actual = getattr(batch, name)(x, *names)
        torch.testing.assert_close(actual, wanted, msg=lambda text, name=name: f"{name}: {text}")
        weight = torch.randn_like(wanted)
        grads = [torch.autograd.grad((value * weight).sum(), x, retain_graph=True)[0] for value in (actual, wanted)]
        torch.testing.assert_close(*grads, msg=lambda text, name=name: f"{name}: {text}")
    y = torch.randn(len(lengths), 2, dtype=torch.float64)
    assert torch.equal(batch.expand(y, *names), y.repeat_interleave(torch.tensor(rows), 0))


def test_a_graph_without_a_vertex_of_the_kind_reads_zeros():
    batch = batch_of([1, 2], kinds=True)
    x = torch.tensor([[5.0]])
    for name in ("sum", "mean", "max"):
        assert getattr(batch, name)(x, "b").tolist() == [[0.0], [5.0]]
    assert batch.of_kind("b").tolist() == [2]
    assert batch.of_kind("a", "b").tolist() == [0, 1, 2]
    assert batch.of_kind("c").tolist() == []


def test_attention_over_the_vertices_of_a_graph():
    batch = batch_of([2, 3])
    h, scores = torch.randn(5, 4), torch.randn(5, 1)
    actual = batch.sum(batch.softmax(scores) * h)
    expected = [
        (part.softmax(0) * rows).sum(0) for part, rows in zip(scores.split([2, 3]), h.split([2, 3]), strict=True)
    ]
    torch.testing.assert_close(actual, torch.stack(expected))


def test_the_wrong_number_of_rows():
    with pytest.raises(vf.InputError, match=r"batch\.sum takes one row for each of 5 vertices, not 4 rows"):
        batch_of([2, 3]).sum(torch.randn(4, 1))
    with pytest.raises(
        vf.InputError,
        match=r"batch\.max takes one row for each of 3 vertices, not 2 rows; name those that have rows, of the kinds 'a', 'b'",
    ):
        batch_of([3], kinds=True).max(torch.randn(2, 1))
    with pytest.raises(vf.InputError, match="one row for each of 2 vertices of kind 'a', not 3 rows"):
        batch_of([3], kinds=True).mean(torch.randn(3, 1), "a")
    with pytest.raises(vf.InputError, match="one row for each of 2 graphs, not 3"):
        batch_of([2, 3]).expand(torch.randn(3, 1))
    with pytest.raises(vf.GraphError, match="the vertices of kind 'a' were asked for, but the graphs have no kinds"):
        batch_of([3]).sum(torch.randn(3, 1), "a")


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data())
def test_readouts_over_some_vertices(lengths, data):
    """Given in any order, also several times, or as a mask: what a loop over the graphs gives."""
    batch = batch_of(lengths)
    count, graph = batch.num_vertices, batch.graph_of_vertex
    vertices = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), max_size=9)), dtype=torch.int64)
    if data.draw(st.booleans()):
        mask = torch.zeros(count, dtype=torch.bool)
        mask[vertices] = True
        selection, vertices = mask, mask.nonzero().squeeze(1)
    else:
        selection = vertices
    x = torch.randn(len(vertices), 2, dtype=torch.float64, requires_grad=True)
    places = [(graph[vertices] == at).nonzero().squeeze(1) for at in range(len(lengths))]

    def stacked(reduce):
        return torch.stack([reduce(x[at]) if len(at) else x.new_zeros(2) for at in places])

    softmax = torch.zeros_like(x)
    for at in places:
        softmax = softmax.index_copy(0, at, x[at].softmax(0))
    expected = {
        "sum": stacked(lambda rows: rows.sum(0)),
        "mean": stacked(lambda rows: rows.mean(0)),
        "max": stacked(lambda rows: rows.amax(0)),
        "softmax": softmax,
    }
    for name, wanted in expected.items():
        actual = getattr(batch, name)(x, of=selection)
        torch.testing.assert_close(actual, wanted, msg=lambda text, name=name: f"{name}: {text}")
        if len(vertices):
            weight = torch.randn_like(wanted)
            grads = [torch.autograd.grad((value * weight).sum(), x, retain_graph=True)[0] for value in (actual, wanted)]
            torch.testing.assert_close(*grads, msg=lambda text, name=name: f"{name}: {text}")
    y = torch.randn(len(lengths), 2)
    assert torch.equal(batch.expand(y, of=selection), y[graph[vertices]])


def test_of_what_is_no_vertices_is_refused():
    batch, x = batch_of([2, 3], kinds=True), torch.randn(2, 1)
    with pytest.raises(vf.InputError, match=r"batch\.mean takes one row for each of 1 vertices in `of`, not 2 rows"):
        batch.mean(x, of=torch.tensor([3]))
    with pytest.raises(vf.InputError, match=r"has the vertices 0 to 5; the batch has 0 to 4"):
        batch.sum(x, of=torch.tensor([0, 5]))
    with pytest.raises(vf.InputError, match=r"has 2 booleans for 5 vertices"):
        batch.sum(x, of=torch.tensor([True, True]))
    with pytest.raises(vf.InputTypeError, match=r"not float32 \[2\]"):
        batch.softmax(x, of=torch.tensor([0.0, 1.0]))
    with pytest.raises(vf.InputTypeError, match="not list"):
        batch.expand(x, of=[0, 1])
    with pytest.raises(vf.InputError, match="was given kinds and `of`"):
        batch.sum(x, "a", of=torch.tensor([0, 1]))
