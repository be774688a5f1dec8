"""Kernels that Triton can do nothing with."""

from __future__ import annotations

import pytest
import torch

import vertexflow as vf
from vertexflow.kernels.lower.verify import BrokenLoopError
from vertexflow.kernels.lower.views import VIEWS
from vertexflow.kernels.triton.source import write_core
from vertexflow.kernels.triton.spellings import CALLS

from ...models import FromCode

pytestmark = pytest.mark.usefixtures("interpreter")


def cell(self, v):
    h = torch.relu(v.gather(0).h + v.pull("x"))
    v.scatter(h=h)
    v.push(h=h)


@pytest.mark.parametrize(("function", "kernel"), [("relu", "core_"), ("where", "grad_core_")])
def test_a_kernel_that_cannot_be_compiled_is_refused_with_what_to_do(function, kernel, monkeypatch):
    """Forward, or backward; the model then works with another backend."""
    monkeypatch.setitem(CALLS, function, "nobody_knows")
    model = FromCode(cell, {"h": 4}, scale=torch.ones(()))
    model.backend = "triton"
    x = torch.randn(3, 4, requires_grad=True)

    def gradient():
        return torch.autograd.grad(model([vf.chain(3)], x=x).h.sum(), x)[0]

    with pytest.raises(
        vf.BackendError, match=rf'(?s)^the Triton kernel {kernel}\w*\d .*nobody_knows.* a defect .*backend="torch"'
    ) as caught:
        gradient()
    assert "InterpreterError" in repr(caught.value.__cause__)
    model.backend = "torch"
    by_torch = gradient()
    monkeypatch.undo()
    model.backend = "native"
    torch.testing.assert_close(by_torch, gradient())


def test_a_kernel_that_would_read_what_is_not_its_own_is_not_written(monkeypatch):
    def vertex(self, v):
        h = torch.cat([v.gather(0).h[:, 2:], v.pull("x")[:, :2]], -1) * self.scale
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 4}, scale=torch.ones(()))
    model.backend = "torch"
    model([vf.chain(3)], x=torch.randn(3, 4))
    (program,) = model.symbolic_graph.programs.values()
    assert "tl.store" in write_core(program, "core").pieces[0].text
    of_slice = VIEWS[torch.ops.aten.slice.Tensor]

    def shifted(*given):  # each but that of rows
        return tuple(place + (place.most < 4) for place in of_slice(*given))

    monkeypatch.setitem(VIEWS, torch.ops.aten.slice.Tensor, shifted)
    with pytest.raises(BrokenLoopError, match="is not in a row of"):
        write_core(program, "core")
