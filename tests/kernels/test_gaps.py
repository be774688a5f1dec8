"""Operators whose kernels want operands without gaps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ..agreement import check
from ..models import FromCode
from ..strategies import Case, Structure


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_group_norm_of_a_child_whose_state_lies_between_others(backend):
    def vertex(self, v):
        left, right = v.gather(0).h, v.gather(1).h
        v.scatter(h=torch.tanh(self.norm(right) * left + v.pull("x")))
        v.push(both=torch.cat([left, right], -1), normed=self.norm(left))

    model = FromCode(vertex, {"h": 4}, norm=nn.GroupNorm(2, 4)).double()
    model.backend = backend
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    check(Case(model, [Structure(3, [(0, 2, 0)]), Structure(2, [(0, 1, 1)])], {"x": x}))
