"""GGNN equals its paper's equations, a loop over rounds and edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vertexflow as vf
from tests.agreement import TOLERANCE
from vertexflow.nn import GGNN

GRAPHS = [(4, [(0, 1), (1, 2), (2, 0), (2, 2), (3, 0), (0, 1)]), (1, []), (3, [(0, 1), (1, 0)])]


def by_the_paper(model, graphs, x, relations, rounds):
    """Equations 2 to 6, round by round; all graphs after one another, and the states after the last round."""
    hidden, base, numbered, finals = model.u.in_features, 0, 0, []
    a_k, b_k = model.message.weight.split(hidden), model.message.bias.split(hidden)
    (wz, wr, wn), (bz, br, bn) = model.w.weight.split(hidden), model.w.bias.split(hidden)
    uz, ur = model.u_gates.weight.split(hidden)
    for count, edges in graphs:
        h = list(x[base : base + count])
        for _ in range(rounds):
            a = [torch.zeros(hidden, dtype=x.dtype) for _ in range(count)]
            for number, (source, target) in enumerate(edges):
                k = relations[numbered + number]
                a[target] = a[target] + a_k[k] @ h[source] + b_k[k]
            after = []
            for v in range(count):
                z = torch.sigmoid(wz @ a[v] + bz + uz @ h[v])
                r = torch.sigmoid(wr @ a[v] + br + ur @ h[v])
                n = torch.tanh(wn @ a[v] + bn + model.u.weight @ (r * h[v]))
                after.append((1 - z) * h[v] + z * n)
            h = after
        finals += h
        base, numbered = base + count, numbered + len(edges)
    return torch.stack(finals)


@pytest.mark.slow
@pytest.mark.parametrize("num_relations", [1, 3])
def test_the_same_as_the_paper(num_relations):
    rounds, total = 3, sum(len(edges) for _, edges in GRAPHS)
    model = GGNN(5, num_relations).double()
    x = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    relations = torch.randint(num_relations, (total,))
    given, base = [], 0
    for graph in GRAPHS:
        numbers = vf.unrolled_edges(graph, rounds)
        given.append(np.where(numbers < 0, -1, numbers + base))
        base += len(graph[1])
    index = torch.from_numpy(np.concatenate(given))
    inputs = {"relation": torch.where(index < 0, -1, relations[index])} if num_relations > 1 else {}
    batch = vf.pack([vf.unroll(graph, rounds) for graph in GRAPHS])
    actual = model(batch, x=x, **inputs).h[batch.roots]
    expected = by_the_paper(model, GRAPHS, x, relations, rounds)
    torch.testing.assert_close(actual, expected, **TOLERANCE)
    weight = torch.randn_like(expected)
    leaves = [x, *model.parameters()]
    grads = [torch.autograd.grad((value * weight).sum(), leaves) for value in (actual, expected)]
    for mine, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(mine, wanted, **TOLERANCE)


@pytest.mark.slow
def test_a_vertex_that_nothing_points_to_goes_on_by_itself():
    model = GGNN(4)
    x = torch.randn(2, 4)
    alone = vf.pack([vf.unroll((1, []), 2)])
    beside = vf.pack([vf.unroll((2, [(0, 1)]), 2)])
    torch.testing.assert_close(model(beside, x=x).h[beside.roots[:1]], model(alone, x=x[:1]).h[alone.roots])
