"""Kernels of every ready-made vertex function, in Triton's interpreter, against the torch backend."""

from __future__ import annotations

import pytest
import torch

from benchmarks.zoo import ZOO

DOUBLE = {"rtol": 1e-10, "atol": 1e-10}


def run(animal, inputs, backend):
    for function in animal.functions():
        function.backend = backend
    out = animal.model(animal.graphs, **inputs)
    weight = torch.randn(out.h.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(out.h.dtype)
    leaves = [*inputs.values(), *animal.model.parameters()]
    grads = torch.autograd.grad((out.h * weight).sum(), leaves, allow_unused=True)
    return [
        out.h,
        *(torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, grads, strict=True)),
    ]


@pytest.mark.parametrize("name", ZOO)
def test_the_same_as_pytorch(name):
    torch.manual_seed(0)
    animal = ZOO[name](5)
    animal.model.double()
    inputs = animal.inputs(torch.float64)
    expected, found, again = (run(animal, inputs, backend) for backend in ("torch", "triton", "triton"))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **DOUBLE)
    assert all(map(torch.equal, found, again))
    for function in animal.functions():
        print(function.explain())
