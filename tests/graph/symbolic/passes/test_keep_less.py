"""What the forward pass keeps: columns that the derivative reads, and nothing that is cheap to compute again."""

from __future__ import annotations

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
    _, found = kept(gru, u=nn.Linear(SIZE, 2 * SIZE))
    assert ("aten.addmm.default", 2 * SIZE) not in found
    assert ("aten.clone.default", SIZE) in found


def test_a_difference_of_kept_values_is_computed_again():
    program, found = kept(gru, u=nn.Linear(SIZE, 2 * SIZE))
    assert not any(target == "aten.sub.Tensor" for target, _ in found)
    again = [node for node in program.stage_of if node.meta.get("again")]
    assert [str(node.target) for node in again] == ["aten.sub.Tensor"]
    assert program.stage_of[again[0]] in BACKWARD


def test_a_value_of_which_all_columns_are_read_is_kept():
    def vertex(self, v):
        a, b = self.u(v.gather(0).h).chunk(2, -1)
        h = torch.tanh(v.pull("x") + a * b)
        v.scatter(h=h)
        v.push(h=h)

    _, found = kept(vertex, u=nn.Linear(SIZE, 2 * SIZE))
    assert ("aten.addmm.default", 2 * SIZE) in found


def test_what_is_made_of_something_that_is_not_kept_is_kept():
    def vertex(self, v):
        total = self.u(v.gather(0).h) + v.pull("x")  # neither of which the derivative reads
        h = torch.tanh(total * total)
        v.scatter(h=h)
        v.push(h=h)

    _, found = kept(vertex, u=nn.Linear(SIZE, SIZE, bias=False))
    assert ("aten.add.Tensor", SIZE) in found
