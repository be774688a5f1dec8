"""The backward pass reads what the forward pass read, whatever became of parameters in between, or it is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import vertexflow as vf
from vertexflow.kernels.prepared import structures as prepared

from ..models import FromCode

BATCH = vf.pack([vf.tree(((0, 1), 2)), vf.chain(3)])
X = torch.randn(BATCH.num_vertices, 4, requires_grad=True)
TURN = torch.randn(4, 4)  # neither a parameter nor a buffer


def turned(self, v):
    h = torch.tanh(v.pull("x") + (v.gather(0).h @ TURN + v.gather(1).h) * self.scale)
    v.scatter(h=h)
    v.push(h=h)


@pytest.fixture(scope="module", params=["native", "torch"])
def model(request):
    model = FromCode(turned, {"h": 4}, scale=nn.Parameter(torch.randn(4)))
    model.backend = request.param
    return model


def gradient(h):
    """Of the input; the graph stays."""
    return torch.autograd.grad(h.sum(), X, retain_graph=True)[0]


def test_backward_again_after_other_calls(model):
    h = model(BATCH, x=X).h
    first = gradient(h)
    gradient(model(BATCH, x=2 * X).h)
    assert torch.equal(gradient(h), first)


@pytest.mark.parametrize("become", [torch.Tensor.half, torch.Tensor.double, torch.zeros_like, lambda old: old[:3]])
def test_a_parameter_that_was_given_other_data(model, become):
    """As `model.half()` does. Native code would read these as numbers of the dtype that it was made for."""
    h, old = model(BATCH, x=X).h, model.scale.data
    first = gradient(h)
    model.scale.data = become(old)
    second = gradient(h)
    model.scale.data = old
    assert torch.equal(second, first)


@pytest.mark.parametrize("which", ["parameter", "constant"])
def test_what_was_changed_in_place_is_noticed(model, which):
    h = model(BATCH, x=X).h
    with torch.no_grad():
        (model.scale if which == "parameter" else TURN).mul_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(h)


def test_a_parameter_whose_memory_was_freed(model):
    model.scale.data = torch.randn(4)
    h = model(BATCH, x=X).h
    model.scale.untyped_storage().resize_(0)
    with pytest.raises(vf.InputError, match=r"memory of .* was freed"):
        gradient(h)
    model.scale.data = torch.randn(4)


def test_what_comes_back_from_hooks(model):
    """Moved and brought back is right; what comes back of another dtype or shape is refused, not read as it was."""
    first = gradient(model(BATCH, x=X).h)
    with saved_tensors_hooks(lambda saved: saved.numpy().copy(), torch.from_numpy):
        h = model(BATCH, x=X).h
    assert torch.equal(gradient(h), first)
    for spoil in (lambda saved: saved.double() if saved.dtype == torch.float32 else saved, lambda saved: saved[:2]):
        with saved_tensors_hooks(lambda saved: saved, spoil):
            h = model(BATCH, x=X).h
        with pytest.raises(vf.VertexFlowError, match="came back of another dtype or shape"):
            gradient(h)


def test_gradients_in_a_batch_are_refused_by_name(model):
    h = model(BATCH, x=X).h
    with pytest.raises(vf.InputTypeError, match="is_grads_batched"):
        torch.autograd.grad(h, X, torch.randn(2, *h.shape), is_grads_batched=True)


def test_two_threads_find_out_at_once_what_cannot_be_prepared(model, monkeypatch):
    """The other thread has found it out while this one wrote the forward pass down."""
    bounds = []

    def prepare(bound, order, grows=False):
        bounds.append(bound)
        bound.is_native = False
        return prepared.Prepared(None, [], [], [])

    def backward(self, bound, order, have_rows, overwrites):
        raise prepared.Unprepared

    monkeypatch.setattr(prepared, "prepare", prepare)
    monkeypatch.setattr(prepared.Prepared, "backward_for", backward)
    fresh = FromCode(turned, {"h": 4}, scale=model.scale)
    fresh.backend = model.backend
    gradient(fresh(BATCH, x=X).h)
    assert all(not bound.prepared for bound in bounds)
    assert bounds


@pytest.mark.parametrize("backend", ["eager", "native", "torch"])
@pytest.mark.parametrize("max_vertices", [None, 2])
@pytest.mark.cases(1)
def test_an_input_with_the_name_and_the_shape_of_a_parameter(backend, max_vertices):
    def vertex(self, v):
        h = torch.tanh(v.pull("scale") + v.gather(0).h @ self.scale)
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 4}, scale=nn.Parameter(torch.randn(4, 4)))
    model.backend, model.max_vertices = backend, max_vertices
    x = torch.randn(4, 4)
    first = torch.tanh(x[::2])
    expected = torch.stack([first, torch.tanh(x[1::2] + first @ model.scale)], 1).flatten(0, 1)
    ours = model([vf.chain(2)] * 2, scale=x).h
    torch.testing.assert_close(ours, expected)
    slopes = [torch.autograd.grad(h.square().sum(), model.scale)[0] for h in (ours, expected)]
    torch.testing.assert_close(*slopes)
