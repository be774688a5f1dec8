"""`torch.func` over a model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf

from .models import FromCode, TreeRNN
from .test_higher_order import COUNT, GRAPHS, agree, numbers


def weighted(model, x, **more):
    return model(GRAPHS, x=x, **more).h.square().sum()


@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.cases(1)
def test_transforms_of_torch_func(limit):
    model, x, func = TreeRNN(2, 2).double(), numbers(COUNT, 2).detach(), torch.func
    model.max_vertices = limit
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def loss(weights, x):
        return func.functional_call(model, weights, (GRAPHS,), {"x": x}).h.square().sum()

    wanted = [*model.parameters(), leaf := x.clone().requires_grad_()]
    expected = torch.autograd.grad(weighted(model, leaf), wanted)
    of_weights, of_x = func.grad(loss, (0, 1))(weights, x)
    agree([*of_weights.values(), of_x], expected)
    value, pull_back = func.vjp(loss, weights, x)
    agree([value, pull_back(torch.ones_like(value))[1]], [weighted(model, x), expected[-1]])
    hessian = torch.autograd.functional.hessian(lambda x: weighted(model, x), x)
    for second in (func.jacrev(func.jacrev(loss, 1), 1), func.hessian(loss, 1), func.jacfwd(func.jacfwd(loss, 1), 1)):
        agree([second(weights, x)], [hessian])
    both = torch.stack([x, 2 * x], 1)
    each = func.vmap(func.grad(loss), (None, 1))(weights, both)
    agree([value[1] for value in each.values()], [*func.grad(loss)(weights, 2 * x).values()])
    agree([func.jvp(lambda x: loss(weights, x), (x,), (x,))[1]], [(expected[-1] * x).sum()])


@pytest.mark.slow
def test_transforms_with_edges_initial_states_kinds_of_reading_and_selections():
    def vertex(self, v):
        kids = v.children
        e = torch.tanh(kids.h @ self.u + kids.expand(v.pull("x"))) * kids.pull("w")[:, None]
        a = v.softmax(e)
        h = torch.tanh(v.pull("x") + v.sum(a * kids.h) + v.max(e) + v.min(e) + v.logsumexp(e).clamp(-3, 3))
        v.scatter(h=h)
        v.push(h=h, a=a)

    model, func = FromCode(vertex, {"h": 2}, u=nn.Parameter(torch.eye(2, dtype=torch.float64))), torch.func
    batch = vf.pack(GRAPHS)
    x, w = numbers(COUNT, 2).detach(), numbers(batch.num_edges).detach()

    def loss(x, w):
        out = model(batch, x=x, w=w, outputs=batch.roots)
        return out.h.square().sum() + (out.a**3).sum()

    leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    agree(func.grad(loss, (0, 1))(x, w), torch.autograd.grad(loss(*leaves), leaves))
    agree([func.jacrev(func.jacrev(loss))(x, w)], [torch.autograd.functional.hessian(lambda x: loss(x, w), x)])

    chains, tree = vf.pack([vf.chain(3), vf.chain(2)]), TreeRNN(2, 2).double()
    h0, x = numbers(2, 2).detach(), numbers(5, 2).detach()

    def of_initial(h0):
        return tree(chains, x=x, initial={"h": h0}).h.square().sum()

    leaf = h0.clone().requires_grad_()
    agree([func.grad(of_initial)(h0)], torch.autograd.grad(of_initial(leaf), leaf))
