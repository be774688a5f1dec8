"""Initial states of vertices without children: given by the caller, with gradients, against the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf

from ..agreement import TOLERANCE, join
from ..budget import tries
from ..models import FromCode, TreeRNN
from ..reference import run_reference
from ..strategies import Structure, cases


def leaves_of(case) -> int:
    count, edges = join(case.parts)
    return count - len({child if case.reverse else parent for child, parent, _ in edges})


@tries(5)
@given(case=cases(), data=st.data())
def test_random_functions_with_initial_states(case, data):
    names = data.draw(st.lists(st.sampled_from(["h", "m"]), unique=True))
    initial = {name: torch.randn(leaves_of(case), *case.model.state[name], dtype=torch.float64) for name in names}
    for value in initial.values():
        value.requires_grad_(data.draw(st.booleans()))
    batch = vf.pack([part.graph() for part in case.parts])
    reference = run_reference(case.model, *join(case.parts), case.inputs, case.reverse, initial=initial)
    leaves = [*case.model.parameters(), *case.inputs.values(), *initial.values()]
    leaves = [leaf for leaf in leaves if leaf.requires_grad]
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(v.shape, dtype=v.dtype, generator=generator)
        for name, v in reference.items()
        if v.requires_grad
    }

    def gradients(outputs):
        if not weights:
            return [None] * len(leaves)
        loss = sum((outputs[name] * w).sum() for name, w in weights.items())
        return torch.autograd.grad(loss, leaves, allow_unused=True)

    slopes = gradients(reference)
    for case.model.backend in ("auto", "eager"):
        print(f"backend {case.model.backend}")
        ours = dict(case.model(batch, reverse=case.reverse, initial=initial, **case.inputs))
        for name, expected in reference.items():
            torch.testing.assert_close(ours[name], expected, **TOLERANCE)
        for actual, expected in zip(gradients(ours), slopes, strict=True):
            if expected is None:
                assert actual is None or not actual.any()
            else:
                torch.testing.assert_close(actual, expected, **TOLERANCE)


def test_only_the_initial_state_wants_a_gradient():
    model = TreeRNN(3, 4).double().requires_grad_(False)
    part = Structure(3, [(0, 2, 0), (1, 2, 1)])
    x, h = torch.randn(3, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    ours = model([part.graph()], x=x, initial={"h": h}).h.sum()
    expected = run_reference(model, 3, part.edges, {"x": x}, initial={"h": h})["h"].sum()
    torch.testing.assert_close(torch.autograd.grad(ours, h), torch.autograd.grad(expected, h), **TOLERANCE)


class Memory(vf.VertexFunction):
    def __init__(self):
        super().__init__(state={"h": 4})
        self.linear = nn.Linear(4, 4)

    def vertex(self, v):
        h = torch.tanh(v.pull("x") + self.linear(v.gather(0).h))
        v.scatter(h=h)
        v.push(h=h)


def test_a_sequence_in_chunks_is_the_sequence():
    """Two sequences, of which one ends in the first chunk; the state is carried over."""
    model = Memory().double()
    x = torch.randn(9, 4, dtype=torch.float64)
    whole = model([vf.chain(7), vf.chain(2)], x=x).h
    first = model([vf.chain(4), vf.chain(2)], x=torch.cat([x[:4], x[7:]])).h
    second = model([vf.chain(3)], x=x[4:7], initial={"h": first[3:4]}).h
    torch.testing.assert_close(torch.cat([first[:4], second, first[4:]]), whole, **TOLERANCE)


def test_a_detached_carry_cuts_the_gradient():
    model = Memory().double()
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    first = model([vf.chain(4)], x=x[:4]).h
    for carry, reaches in ((first[-1:], True), (first[-1:].detach(), False)):
        loss = model([vf.chain(2)], x=x[4:], initial={"h": carry}).h.sum()
        (grad,) = torch.autograd.grad(loss, x, retain_graph=True)
        assert bool(grad[:4].any()) == reaches
        assert grad[4:].all()


def test_children_of_any_number_and_an_initial_state():
    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.sum(self.linear(v.children.h)))
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 4}, linear=nn.Linear(4, 4)).double()
    x, h = torch.randn(4, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    edges = [(0, 3, 0), (1, 3, 1), (2, 3, 2)]
    ours = model([Structure(4, edges).graph()], x=x, initial={"h": h}).h
    torch.testing.assert_close(ours, run_reference(model, 4, edges, {"x": x}, initial={"h": h})["h"], **TOLERANCE)


@pytest.mark.parametrize(
    ("initial", "match"),
    [
        ({"c": torch.zeros(1, 4)}, "initial has 'c', but there is no such state; the states are 'h'"),
        ({"h": torch.zeros(2, 4)}, r"initial\['h'\] is \[2, 4\] on cpu; give a tensor of shape \[1, 4\]"),
        ({"h": 0}, r"initial\['h'\] is int; give a tensor"),
    ],
)
def test_what_is_wrong_with_an_initial_state_is_said(initial, match):
    with pytest.raises(vf.InputError, match=match):
        Memory()([vf.chain(3)], x=torch.randn(3, 4), initial=initial)


def test_edge_inputs_have_no_row_for_an_initial_state():
    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.sum(v.children.pull("relation") * v.children.h))
        v.scatter(h=h)
        v.push(h=h)

    with pytest.raises(vf.InputError, match="no row of the edge input 'relation'"):
        FromCode(vertex, {"h": 4})(
            [vf.chain(2)], x=torch.randn(2, 4), relation=torch.randn(1, 4), initial={"h": torch.randn(1, 4)}
        )
