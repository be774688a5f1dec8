"""Numbers that are made of a value, and values without elements, depend on nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ....agreement import check
from ....models import FromCode
from ....strategies import Case, Structure

PARTS = [Structure(5, [(0, 3, 0), (1, 3, 1), (3, 4, 0), (2, 4, 1)]), Structure(2, [(0, 1, 0)])]
ROWS = 7


def test_numbers_of_the_dtype_of_a_gathered_state(backends):
    def vertex(self, v):
        below = v.gather(0).h + v.gather(1).h
        least, one = below.new_full((), -0.5), below.new_ones(()) + below.new_zeros(4)
        h = torch.maximum(torch.sin(below), least) + one * v.pull("x") + torch.full_like(self.p, 0.25)
        v.scatter(h=h)
        v.push(h=h)

    x = torch.randn(ROWS, 4, dtype=torch.float64, requires_grad=True)
    check(Case(FromCode(vertex, {"h": 4}, p=nn.Parameter(torch.zeros(4))).double(), PARTS, {"x": x}), *backends)


@pytest.mark.slow
def test_rows_without_elements(backends):
    def vertex(self, v):
        nothing, matrix, square = v.pull("nothing"), v.pull("matrix"), v.pull("square")
        below = v.gather(0).h + v.gather(1).h
        h = below + nothing @ self.w + (matrix * below[:, None, :3]).sum(1).sum(-1, keepdim=True)
        h = torch.tanh(h + (square.mT @ self.e).mT.sum((1, 2))[:, None] + torch.cat([below, nothing], -1) + v.pull("x"))
        v.scatter(h=h)
        v.push(h=h, nothing=nothing * below[:, :0], matrix=matrix.exp())

    shapes = {"x": (4,), "nothing": (0,), "matrix": (0, 3), "square": (0, 0)}
    inputs = {
        name: torch.randn(ROWS, *shape, dtype=torch.float64, requires_grad=True) for name, shape in shapes.items()
    }
    parts = {"w": nn.Parameter(torch.zeros(0, 4)), "e": nn.Parameter(torch.zeros(0, 0))}
    check(Case(FromCode(vertex, {"h": 4}, **parts).double(), PARTS, inputs), *backends)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
@pytest.mark.slow
def test_factors_of_matrices_without_elements(shape, backends):
    """Their gradients and their transposes have no elements either."""

    def vertex(self, v):
        below = v.gather(0).h + v.gather(1).h
        u, s, w = torch.svd(v.pull("matrix") * below[:, :1, None])
        h = torch.tanh(below + v.pull("x") + (u.square().sum((1, 2)) + s.sum(1) + w.square().sum((1, 2)))[:, None])
        v.scatter(h=h)
        v.push(h=h, s=s, u=u, w=w)

    inputs = {name: torch.randn(ROWS, *one, dtype=torch.float64) for name, one in {"x": (4,), "matrix": shape}.items()}
    check(Case(FromCode(vertex, {"h": 4}), PARTS, inputs), *backends)
