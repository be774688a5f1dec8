"""Whatever vertexflow fails on while it makes something of a vertex function is a refusal, and leaves the model as it was."""

from __future__ import annotations

import pytest
import torch

import vertexflow as vf
from vertexflow.call import programs

from .models import FromCode


def sums(self, v):
    h = torch.tanh(v.pull("x") + v.gather(0).h)
    v.scatter(h=h)
    v.push(h=h)


@pytest.mark.parametrize("step", ["partition", "compile_program"])
def test_a_defect_is_a_refusal(step, monkeypatch):
    def fails(*args):
        raise IndexError("of some pass")

    model = FromCode(sums, {"h": 4})
    batch, x = vf.pack([vf.chain(3)]), torch.randn(3, 4)
    with monkeypatch.context() as patch:
        patch.setattr(programs, step, fails)
        with pytest.raises(vf.VertexFunctionError, match=r"IndexError: of some pass.*report it") as caught:
            model(batch, x=x)
    assert isinstance(caught.value.__cause__, IndexError)
    assert model(batch, x=x).h.shape == (3, 4)


def test_lack_of_memory_stays_what_pytorch_says(monkeypatch):
    def fails(*args):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(programs, "partition", fails)
    with pytest.raises(torch.OutOfMemoryError):
        FromCode(sums, {"h": 4})(vf.pack([vf.chain(3)]), x=torch.randn(3, 4))


def test_rows_that_a_mask_hides_are_refused():
    """The mask may be another in the next call."""

    def vertex(self, v):
        h = v.pull("x") + v.gather(0).h
        h = torch.ops.aten._unsafe_masked_index(h, v.pull("mask"), [v.pull("k")[:, None], torch.arange(4)[None]], 0.0)
        v.scatter(h=h)
        v.push(h=h)

    inputs = {"x": torch.randn(3, 4), "mask": torch.zeros(3, 4, dtype=torch.bool), "k": torch.tensor([2, 0, 1])}
    with pytest.raises(
        vf.VertexFunctionError, match=r"mixes rows.*index(?s:.*)test_refusals\.py:\d+: .*_unsafe_masked_index"
    ):
        FromCode(vertex, {"h": 4})(vf.pack([vf.chain(3)]), **inputs)


def test_numbers_that_pytorch_does_not_compare():
    def vertex(self, v):
        h = v.pull("x") + v.gather(0).h
        v.scatter(h=h)
        v.push(half=h.chalf())

    model = FromCode(vertex, {"h": 4}, p=torch.nn.Parameter(torch.zeros(1))).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    assert torch.equal(model([vf.chain(3)], x=x).half.to(torch.complex64), x.cumsum(0).chalf().to(torch.complex64))


def test_shapes_that_fit_for_one_number_of_rows_alone():
    """Written in place, where nothing looks at shapes before the write is taken apart."""

    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h)
        h.masked_scatter_(h[:, 0] > 0, h.clone())
        v.scatter(h=h)
        v.push(h=h)

    with pytest.raises(vf.VertexFunctionError, match=r"failed: RuntimeError: (.|\n)*masked_scatter_") as caught:
        FromCode(vertex, {"h": 4})([vf.chain(4)], x=torch.randn(4, 4))
    assert "defect" not in str(caught.value)


@pytest.mark.parametrize(
    "fails",
    [
        pytest.param(lambda x: x.sum().item(), id="a value"),
        pytest.param(lambda x: 1 if (x > 0).all() else 2, id="a condition"),
        pytest.param(len, id="a number of rows"),
        pytest.param(lambda x: range(x.shape[0]), id="a size as a number"),
        pytest.param(lambda x: x.numpy(), id="memory"),
        pytest.param(lambda x: torch.is_grad_enabled(), id="a switch"),
        pytest.param(lambda x: x.view(7, -1), id="a shape that fits for some numbers of rows"),
        pytest.param(lambda x: torch.cat([x, torch.ones(2, 3)]), id="shapes that never fit"),
    ],
)
def test_what_fails_while_a_vertex_function_is_traced_is_not_caught_in_it(fails):
    """Some of it does not fail in eager code, or only in some steps: the way round it would be taken in silence."""

    def vertex(self, v):
        x = v.pull("x")
        try:
            fails(x)
        except Exception:
            x = 2 * x
        h = torch.tanh(x + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)

    with pytest.raises(
        vf.VertexFunctionError, match=r"catches what fails in it(.|\n)*test_refusals\.py:\d+: `fails\(x\)`"
    ):
        FromCode(vertex, {"h": 4})([vf.chain(3)], x=torch.randn(3, 4))


def test_what_fails_without_a_tensor_may_be_caught():
    def vertex(self, v):
        try:
            factor = {}["factor"]
        except KeyError:
            factor = getattr(v.pull("x"), "factor", 2)
        h = torch.tanh(factor * v.pull("x") + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)

    assert FromCode(vertex, {"h": 4})([vf.chain(3)], x=torch.randn(3, 4)).h.shape == (3, 4)
