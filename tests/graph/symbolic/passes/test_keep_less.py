"""What the forward pass keeps: columns that the derivative reads, and nothing that is cheap to compute again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.graph.symbolic.program import BACKWARD

from ....models import FromCode

SIZE = 4


def kept(vertex, **parts):
    """The program of a vertex function, and of each value that its derivative reads: the operation, and its width."""
    model = FromCode(vertex, {"h": SIZE}, **parts).double()
    model.backend = "torch"
    out = model([vf.chain(3)], x=torch.randn(3, SIZE, dtype=torch.float64))
    out.h.sum().backward()
    (program,) = model.symbolic_graph.programs.values()
    return program, [
        (str(node.target), int(node.meta["val"].shape[1])) for node in program.saved if node.op == "call_function"
    ]


def gru(self, v):
    h = v.gather(0).h
    mr, mn = self.u(h).chunk(2, -1)
    n = torch.tanh(v.pull("x") + torch.sigmoid(mr) * mn)
    h = n + torch.sigmoid(mr) * (h - n)
    v.scatter(h=h)
    v.push(h=h)


def test_columns_are_kept_and_not_the_value():
    _, saved = kept(gru, u=nn.Linear(SIZE, 2 * SIZE))
    assert ("aten.addmm.default", 2 * SIZE) not in saved
    assert ("aten.clone.default", SIZE) in saved


def test_a_difference_of_kept_values_is_computed_again():
    program, saved = kept(gru, u=nn.Linear(SIZE, 2 * SIZE))
    assert not any(target == "aten.sub.Tensor" for target, _ in saved)
    again = [node for node in program.stage_of if node.meta.get("again")]
    assert [str(node.target) for node in again] == ["aten.sub.Tensor"]
    assert program.stage_of[again[0]] in BACKWARD


def test_a_value_of_which_all_columns_are_read_is_kept():
    def vertex(self, v):
        a, b = self.u(v.gather(0).h).chunk(2, -1)
        h = torch.tanh(v.pull("x") + a * b)
        v.scatter(h=h)
        v.push(h=h)

    _, saved = kept(vertex, u=nn.Linear(SIZE, 2 * SIZE))
    assert ("aten.addmm.default", 2 * SIZE) in saved


def test_what_is_made_of_something_that_is_not_kept_is_kept():
    def vertex(self, v):
        total = self.u(v.gather(0).h) + v.pull("x")  # neither of which the derivative reads
        h = torch.tanh(total * total)
        v.scatter(h=h)
        v.push(h=h)

    _, saved = kept(vertex, u=nn.Linear(SIZE, SIZE, bias=False))
    assert ("aten.add.Tensor", SIZE) in saved


def test_the_tanh_of_a_state_is_computed_again():
    def vertex(self, v):
        h = torch.sigmoid(v.pull("x") + self.u(v.gather(0).h))
        v.scatter(h=h)
        v.push(h=torch.tanh(h) * h)

    program, saved = kept(vertex, u=nn.Linear(SIZE, SIZE))
    assert not any(target == "aten.tanh.default" for target, _ in saved)
    again = [node for node in program.stage_of if node.meta.get("again")]
    assert [str(node.target) for node in again] == ["aten.tanh.default"]


def chosen(otherwise):
    def vertex(self, v):
        left, x = v.gather(0), v.pull("x")
        is_inner = left.h[:, :1] != 0
        h = torch.where(is_inner, torch.relu(self.u(left.h)), otherwise(x))
        v.scatter(h=h)
        v.push(h=h)

    return vertex


def test_a_rectified_value_is_read_in_the_state_that_is_chosen_from_it():
    _, saved = kept(chosen(torch.sin), u=nn.Linear(SIZE, SIZE))
    targets = [target for target, _ in saved]
    assert "aten.relu.default" not in targets
    assert "aten.where.self" in targets


def test_a_rectified_value_of_another_shape_than_the_state_is_kept():
    def vertex(self, v):
        left, x = v.gather(0), v.pull("x")
        h = torch.where(left.h[:, :1] != 0, torch.relu(self.u(left.h)), x)
        v.scatter(h=h)
        v.push(h=h)

    _, saved = kept(vertex, u=nn.Linear(SIZE, 1))
    assert "aten.relu.default" in [target for target, _ in saved]


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_what_is_chosen_otherwise_may_be_no_number(backend):
    """Its sign is read, and lets a gradient of zero pass or not."""
    model = FromCode(chosen(lambda x: x), {"h": SIZE}, u=nn.Linear(SIZE, SIZE)).double()
    x = torch.randn(4, SIZE, dtype=torch.float64)
    x[:2] = torch.tensor([[float("nan")], [float("inf")]])
    x.requires_grad_()
    gradients = []
    for model.backend in ("eager", backend):
        out = model([vf.chain(1), vf.chain(1), vf.chain(2)], x=x)
        gradients.append(torch.autograd.grad(out.h[2:].square().sum(), [x, *model.parameters()]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)
    assert all(gradient.isfinite().all() for gradient in gradients[1])


def test_what_a_gate_lets_through_is_computed_again():
    def vertex(self, v):
        h = v.gather(0).h
        z = torch.sigmoid(self.u(h) + v.pull("x"))
        h = (1 - z) * h + z * torch.tanh(h)
        v.scatter(h=h)
        v.push(h=h)

    program, saved = kept(vertex, u=nn.Linear(SIZE, SIZE))
    assert not any(target == "aten.rsub.Scalar" for target, _ in saved)
    assert any(str(node.target) == "aten.rsub.Scalar" for node in program.stage_of if node.meta.get("again"))


def in_two_steps(self, v):
    a, b = torch.sigmoid(self.u(v.gather(0).h)).chunk(2, -1)
    total = a * b + a  # of kept gates, through a product that nobody else reads
    doubled = torch.cat([total, a], -1) * 2
    h = torch.tanh(total * total + v.pull("x")) + torch.tanh(doubled[:, :SIZE] * b)
    v.scatter(h=h)
    v.push(h=h)


def test_values_are_computed_again_through_others_and_their_views():
    program, saved = kept(in_two_steps, u=nn.Linear(SIZE, 2 * SIZE))
    kept_targets = [target for target, _ in saved]
    assert "aten.mul.Tensor" not in kept_targets
    assert "aten.add.Tensor" not in kept_targets
    again = [node for node in program.stage_of if node.meta.get("again")]
    assert {"aten.mul.Tensor", "aten.add.Tensor"} <= {str(node.target) for node in again}
    assert all(program.stage_of[node] in BACKWARD[1:] for node in again)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "native"])
def test_gradients_of_what_is_computed_again_in_two_steps(backend):
    model = FromCode(in_two_steps, {"h": SIZE}, u=nn.Linear(SIZE, 2 * SIZE)).double()
    x = torch.randn(6, SIZE, dtype=torch.float64, requires_grad=True)
    gradients = []
    for model.backend in ("eager", backend):
        out = model([vf.chain(4), vf.chain(2)], x=x)
        gradients.append(torch.autograd.grad(out.h.square().sum(), [x, *model.parameters()]))
    torch.testing.assert_close(*gradients)
