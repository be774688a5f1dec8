"""Outputs and every gradient agree with the reference, for random vertex functions over random structures."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf

from .models import BinaryTreeLSTM, FromCode
from .reference import run_reference
from .strategies import SMOOTH, Case, Structure, cases

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
# Every example is traced anew: shrinking a failure would take minutes.
SLOW_TO_TRACE = settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def join(parts: list[Structure]) -> tuple[int, list[tuple[int, int, int]]]:
    """Several structures side by side, as `vf.pack` numbers them."""
    edges, base = [], 0
    for part in parts:
        edges += [(child + base, parent + base, slot) for child, parent, slot in part.edges]
        base += part.num_vertices
    return base, edges


def check(case: Case) -> None:
    """Compare outputs and, for a random weighting of all of them, the gradient of every leaf that requires grad."""
    batch = vf.pack([part.graph() for part in case.parts])
    ours = vars(case.model(batch, reverse=case.reverse, **case.inputs))
    reference = run_reference(case.model, *join(case.parts), case.inputs, case.reverse)
    assert ours.keys() == reference.keys()
    for name, expected in reference.items():
        torch.testing.assert_close(ours[name], expected, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
    leaves = {**dict(case.model.named_parameters()), **case.inputs}
    leaves = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if not leaves:
        assert not any(value.requires_grad for value in ours.values())
    if not any(value.requires_grad for value in reference.values()):
        return
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(v.shape, dtype=v.dtype, generator=generator) for name, v in reference.items()}

    def gradients(outputs):
        loss = sum((outputs[name] * weight).sum() for name, weight in weights.items() if outputs[name].requires_grad)
        return torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)

    for name, found, expected in zip(leaves, gradients(ours), gradients(reference), strict=True):
        if expected is None:  # nothing that was computed uses this leaf; a gradient of zeros is as good
            assert found is None or not found.any(), name
        else:
            torch.testing.assert_close(found, expected, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


@SLOW_TO_TRACE
@given(cases())
def test_random_functions_over_random_structures(case):
    check(case)


@SLOW_TO_TRACE
@given(cases(max_graphs=2), st.data())
def test_frozen_parameters(case, data):
    for parameter in case.model.parameters():
        parameter.requires_grad_(data.draw(st.booleans()))
    check(case)


@settings(SLOW_TO_TRACE, max_examples=10)
@given(cases(SMOOTH, max_graphs=1, max_vertices=4))
def test_gradcheck(case):
    batch = vf.pack([part.graph() for part in case.parts])
    parameters = dict(case.model.named_parameters())

    def run(x, weight, *values):
        given = dict(zip(parameters, values, strict=True))
        inputs = {**case.inputs, "x": x, "weight": weight}
        return tuple(vars(torch.func.functional_call(case.model, given, (batch,), inputs)).values())

    values = [case.inputs["x"], case.inputs["weight"], *parameters.values()]
    values = [value.detach().clone().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(run, values, eps=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    "parts",
    [
        [Structure(1, [])],
        [Structure(1, [])] * 5,
        [Structure(7, [(i, i + 1, 0) for i in range(6)])],
        [Structure(5, [(0, 3, 0), (1, 3, 1), (3, 4, 0), (2, 4, 1)]), Structure(1, []), Structure(3, [(0, 2, 1)])],
        [Structure(4, [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 3, 0), (2, 3, 1)])],
        [Structure(400, [(i, i + 1, i % 2) for i in range(399)])],
    ],
    ids=["one vertex", "only single vertices", "chain", "trees of all sizes", "one child twice, a diamond", "deep"],
)
def test_the_readme_example(parts):
    torch.manual_seed(0)
    model = BinaryTreeLSTM(3, 5).double()
    x = torch.randn(join(parts)[0], 3, dtype=torch.float64, requires_grad=True)
    check(Case(model, parts, {"x": x}))


def lstm_cell(self, v):
    child = v.gather(0)
    h, c = self.cell(v.pull("x"), (child.h, child.c))
    v.scatter(h=h, c=c)
    v.push(h=h)


def gru_cell(self, v):
    h = self.cell(v.pull("x"), v.gather(0).h + v.gather(1).h)
    v.scatter(h=h, c=torch.tanh(h))
    v.push(h=h)


def convolution(self, v):
    h = torch.tanh(self.cell(torch.stack([v.pull("x"), v.gather(0).h, v.gather(1).c], 1)).sum(1))
    v.scatter(h=h, c=-h)
    v.push(h=h)


def tensor_network(self, v):
    h = torch.tanh(self.cell(v.gather(0).h, v.gather(1).h) + v.pull("x"))
    v.scatter(h=h, c=nn.functional.pad(h[:, 1:], (1, 0)))
    v.push(h=h, c=v.gather(0).c)


def attention(self, v):
    q = v.pull("x").view(-1, 1, 2, 2).transpose(1, 2)
    k = torch.stack([v.gather(0).h, v.gather(1).h], 1).view(-1, 2, 2, 2).transpose(1, 2)
    h = nn.functional.scaled_dot_product_attention(q, k, k).transpose(1, 2).reshape(-1, 4) + v.pull("x")
    v.scatter(h=h, c=h.sin())
    v.push(h=h)


@pytest.mark.parametrize(
    ("vertex", "cell"),
    [
        (lstm_cell, nn.LSTMCell(4, 4)),
        (gru_cell, nn.GRUCell(4, 4)),
        (gru_cell, nn.RNNCell(4, 4)),
        (convolution, nn.Conv1d(3, 2, 3, padding=1)),
        (tensor_network, nn.Bilinear(4, 4, 4)),
        (attention, nn.Identity()),
    ],
    ids=["LSTMCell", "GRUCell", "RNNCell", "Conv1d", "Bilinear and pad", "attention"],
)
def test_modules_of_pytorch(vertex, cell):
    model = FromCode(vertex, {"h": 4, "c": 4}, cell=cell).double()
    slots = 1 if vertex is lstm_cell else 2
    edges = [(0, 3, 0), (1, 3, 1), (3, 4, 0), (2, 4, 1)]
    parts = [Structure(5, [edge for edge in edges if edge[2] < slots]), Structure(2, [(1, 0, 0)])]
    check(Case(model, parts, {"x": torch.randn(7, 4, dtype=torch.float64, requires_grad=True)}))


def test_gradients_of_some_outputs_only():
    def vertex(self, v):
        h = torch.tanh(self.linear(v.pull("x")) + v.gather(0).h)
        v.scatter(h=h)
        v.push(a=h, b=self.linear(h), k=h.argmax(-1))

    model = FromCode(vertex, {"h": 3}, linear=nn.Linear(3, 3)).double()
    part = Structure(3, [(0, 1, 0), (1, 2, 0)])
    x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    reference = run_reference(model, 3, part.edges, {"x": x})
    ours = model([part.graph()], x=x)
    assert torch.equal(ours.k, reference["k"])
    assert not ours.k.requires_grad
    for name in ("a", "b"):
        expected = torch.autograd.grad(reference[name].sum(), x, retain_graph=True)[0]
        torch.testing.assert_close(torch.autograd.grad(getattr(ours, name).sum(), x, retain_graph=True)[0], expected)
