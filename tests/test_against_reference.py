"""Outputs and every gradient agree with the reference, for random vertex functions over random structures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf
from vertexflow.scheduler import POLICIES

from .agreement import check, compare, join
from .budget import tries
from .models import BinaryTreeLSTM, FromCode
from .reference import run_reference
from .strategies import SMOOTH, Case, Structure, cases


@tries(7)
@given(cases())
def test_random_functions_over_random_structures(case):
    check(case, "eager", "torch", "native")


@tries(4)
@given(case=cases(max_graphs=2), data=st.data())
@pytest.mark.slow
def test_frozen_parameters(case, data):
    for parameter in case.model.parameters():
        parameter.requires_grad_(data.draw(st.booleans()))
    check(case, "auto", "eager")


@tries(4)
@given(case=cases(max_graphs=2), data=st.data())
@pytest.mark.slow
def test_every_policy_gives_the_same(case, data):
    """Kinds at random: steps are of one kind each, in the order that the policy chose."""
    case.reverse = False
    graphs = []
    for part in case.parts:
        kind = data.draw(st.lists(st.sampled_from("abc"), min_size=part.num_vertices, max_size=part.num_vertices))
        plain = part.graph()
        parent = np.repeat(np.arange(part.num_vertices), np.diff(plain.offset))
        graphs.append(vf.graph(part.num_vertices, np.stack([plain.child, parent]), kind=kind, slots=plain.slot))
    batch = vf.pack(graphs)
    with torch.no_grad():
        case.model(batch, **case.inputs)
    (traces,) = case.model._programs.seen.version.traces.values()
    for policy in [*POLICIES, "fsm"]:
        print(f"policy {policy}")
        scheduled = batch.with_schedule(vf.schedule(batch, policy, traces["vertex"].num_slots))
        for backend in ("auto", "eager"):
            case.model.backend = backend
            compare(case, dict(case.model(scheduled, **case.inputs)))
        assert all(key.is_ahead for key in scheduled.derived.orders)  # that schedule was used, and no other made


@tries(2)
@given(cases(SMOOTH, max_graphs=1, max_vertices=4))
def test_gradcheck(case):
    batch = vf.pack([part.graph() for part in case.parts])
    parameters = dict(case.model.named_parameters())

    def run(x, weight, *values):
        given = dict(zip(parameters, values, strict=True))
        inputs = {**case.inputs, "x": x, "weight": weight}
        return tuple(torch.func.functional_call(case.model, given, (batch,), inputs).values())

    values = [case.inputs["x"], case.inputs["weight"], *parameters.values()]
    values = [value.detach().clone().requires_grad_() for value in values]
    # Norms of norms of rows that hardly differ bend within 1e-5: the usual eps is too long a step.
    assert torch.autograd.gradcheck(run, values, eps=1e-7, atol=1e-5)


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
@pytest.mark.cases(1)
def test_the_readme_example(parts):
    torch.manual_seed(0)
    model = BinaryTreeLSTM(3, 5).double()
    x = torch.randn(join(parts)[0], 3, dtype=torch.float64, requires_grad=True)
    check(Case(model, parts, {"x": x}))


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
