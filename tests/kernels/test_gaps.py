"""Operators whose kernels want operands without gaps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ..agreement import check
from ..models import FromCode
from ..strategies import Case, Structure


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.cases(1)
def test_group_norm_of_a_child_whose_state_lies_between_others(backend):
    def vertex(self, v):
        left, right = v.gather(0).h, v.gather(1).h
        v.scatter(h=torch.tanh(self.norm(right) * left + v.pull("x")))
        v.push(both=torch.cat([left, right], -1), normed=self.norm(left))

    model = FromCode(vertex, {"h": 4}, norm=nn.GroupNorm(2, 4)).double()
    model.backend = backend
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    check(Case(model, [Structure(3, [(0, 2, 0)]), Structure(2, [(0, 1, 1)])], {"x": x}))


@pytest.mark.parametrize("number", [lambda m: torch.linalg.det(m), lambda m: torch.linalg.slogdet(m)[1]])
@pytest.mark.slow
def test_determinants_of_matrices_wherever_they_lie(number):
    """PyTorch factors the transpose of a matrix that lies without gaps, and its derivative goes by where it lay in the trace."""

    def vertex(self, v):
        x, child = v.pull("x"), v.gather(1).h.view(-1, 2, 2)
        known = torch.where(v.num_children[:, None, None] > 1, child, torch.eye(2, dtype=child.dtype))
        det = number(x[:, :4].reshape(-1, 2, 2)) + number(x[:, 4:].view(-1, 2, 2).mT) + number(known.mT)
        v.scatter(h=torch.tanh(x[:, 4:] * det[:, None]))
        v.push(det=det, of_child=torch.linalg.det(child))

    model = FromCode(vertex, {"h": 4})
    x = torch.randn(9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    trees = [Structure(3, [(0, 2, 1), (1, 2, 0)])] * 3
    check(Case(model, trees, {"x": x}), "torch", "native")
