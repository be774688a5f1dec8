"""Weights that PyTorch computes of others before each call: training goes as with the method run by itself."""

from __future__ import annotations

import functools
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import vertexflow as vf

from .models import TreeRNN

GRAPHS = [vf.tree(((0, 1), 2)), vf.chain(3)]


def train(change, x, backend, between):
    """Losses and weights of some steps of training, from one seed."""
    torch.manual_seed(0)
    model = TreeRNN(3, 4).double()
    model.backend = backend
    change(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(GRAPHS, x=x).h.square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        between(model)
    return losses, model.state_dict()


def check_training(change, between=lambda model: None):
    x = torch.randn(8, 3, dtype=torch.float64)
    torch.testing.assert_close(train(change, x, "torch", between), train(change, x, "eager", between))


def pruned(model):
    prune.l1_unstructured(model.u, "weight", amount=0.5)


def pruned_twice(model):
    prune.random_structured(model.u, "weight", amount=0.3, dim=0)
    prune.l1_unstructured(model.w, "bias", amount=0.5)
    prune.l1_unstructured(model.u, "weight", amount=0.3)


def normed(model):
    nn.utils.weight_norm(model.u)
    nn.utils.weight_norm(model.w, dim=None)


def of_norm_one(model):
    nn.utils.parametrizations.weight_norm(model.u)


def orthogonal(model):
    nn.utils.parametrizations.orthogonal(model.w)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", [pruned, pruned_twice, normed, of_norm_one, orthogonal])
def test_training(change):
    check_training(change)


@pytest.mark.parametrize(
    "between", [pruned, lambda model: prune.is_pruned(model.u) and prune.remove(model.u, "weight")]
)
@pytest.mark.cases(1)
def test_pruned_more_and_made_permanent_between_steps(between):
    check_training(pruned, between)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("wrap", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_spectral_norm_trains_where_its_iteration_stands_still(wrap):
    """In training mode it writes to its buffers, which is refused (tests/test_first_call.py)."""
    check_training(lambda model: wrap(model.eval().u))


def test_functional_call_with_tied_weights():
    class Tied(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={"h": 3})
            self.one, self.other = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.other.weight = self.one.weight

        def vertex(self, v):
            h = torch.tanh(self.one(v.pull("x")) + 2 * self.other(v.gather(0).h))
            v.scatter(h=h)
            v.push(h=h)

    model, x = Tied(), torch.randn(3, 3)
    given = torch.randn(3, 3, requires_grad=True)
    tied_results = []
    for backend in ("torch", "eager", "torch"):
        model.backend = backend
        for tensors in ({"one.weight": given}, {"other.weight": given}, {"one.weight": given, "other.weight": given}):
            out = torch.func.functional_call(model, tensors, ([vf.chain(3)],), {"x": x})
            tied_results.append((out.h.detach(), torch.autograd.grad(out.h.sum(), given)[0]))
        model([vf.chain(3)], x=x)
    for values in tied_results[1:]:
        torch.testing.assert_close(values, tied_results[0])
    both = {"one.weight": given, "other.weight": torch.randn(3, 3)}
    with pytest.raises(ValueError, match="tied"):
        torch.func.functional_call(model, both, ([vf.chain(3)],), {"x": x})
    one, other = given, torch.randn(3, 3, requires_grad=True)
    results = []
    for backend in ("torch", "eager"):
        model.backend = backend
        both = {"one.weight": one, "other.weight": other}
        out = torch.func.functional_call(model, both, ([vf.chain(3)],), {"x": x}, tie_weights=False)
        results.append((out.h.detach(), *torch.autograd.grad(out.h.sum(), [one, other])))
    torch.testing.assert_close(*results)


def test_a_learned_policy_is_read_with_weights_only():
    model = TreeRNN(3, 4).double()
    model.policy = vf.FSM.learn([vf.pack(GRAPHS)])
    x = torch.randn(8, 3, dtype=torch.float64)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = TreeRNN(3, 4).double()
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.policy.dump() == model.policy.dump()
    torch.testing.assert_close(again(GRAPHS, x=x).h, model(GRAPHS, x=x).h)


class OfPartialMethods(vf.VertexFunction):
    def __init__(self):
        super().__init__(state={"h": 3})
        self.linear = nn.Linear(3, 3)
        self.scale = 1.0

    def scaled(self, v, factor):
        h = torch.tanh(factor * self.scale * self.linear(v.pull("x")) + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)

    vertex = functools.partialmethod(scaled, factor=2.0)


class Scaled:
    """An object in the place of a method."""

    scale = 1.0

    def __call__(self, v):
        h = torch.tanh(self.scale * v.pull("x") + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)


def calling_an_object():
    model = OfPartialMethods()
    model.vertex = Scaled()
    return model


@pytest.mark.parametrize("make", [OfPartialMethods, calling_an_object])
def test_vertex_methods_that_are_no_functions(make):
    model, x = make(), torch.randn(3, 3, requires_grad=True)
    results = {}
    for scale in (1.0, 3.0):
        (model if make is OfPartialMethods else model.vertex).scale = scale
        for backend in ("torch", "eager"):
            model.backend = backend
            h = model([vf.chain(3)], x=x).h
            results[scale, backend] = h.detach(), torch.autograd.grad(h.sum(), x)[0]
        torch.testing.assert_close(results[scale, "torch"], results[scale, "eager"])
    assert not torch.equal(results[1.0, "torch"][0], results[3.0, "torch"][0])
