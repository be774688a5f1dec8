"""Random numbers in Triton kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import vertexflow as vf

from ...models import FromCode

pytestmark = pytest.mark.usefixtures("interpreter")

SIZE = 40


def model_of(vertex, dtype):
    return FromCode(vertex, {"h": SIZE}, scale=torch.ones((), dtype=dtype))


def drawn(model, graphs, backend, seed=0):
    """The results, and the gradient of the input; all cores are code of the backend."""
    model.backend, dtype = backend, model.scale.dtype
    batch = vf.pack(graphs)
    x = torch.linspace(0.5, 2, batch.num_vertices * SIZE, dtype=dtype).view(-1, SIZE).requires_grad_()
    torch.manual_seed(seed)
    h = model(batch, x=x).h
    assert "core: calls of PyTorch" not in model.explain(), model.explain()
    return h.detach(), torch.autograd.grad(h.square().sum(), x)[0]


def dropped(self, v):
    h = F.dropout(v.gather(0).h + v.gather(1).h + v.pull("x"), 0.3) * self.scale
    v.scatter(h=h)
    v.push(h=h)


def dropped_on_edges(self, v):
    h = v.sum(F.dropout(v.children.h, 0.5)) + v.pull("x") * self.scale
    v.scatter(h=h)
    v.push(h=h)


def of_a_single_number(self, v):
    left, right = v.gather(0).h, v.gather(1).h
    h = torch.rand_like(left[:, :1]) * left + torch.randn_like(right) * self.scale + right + v.pull("x")
    v.scatter(h=h)
    v.push(h=h)


GRAPHS = [vf.tree(((0, 1), (2, (3, 4)))), vf.chain(3), vf.tree((0, 1))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("vertex", [dropped, dropped_on_edges, of_a_single_number])
@pytest.mark.cases(1)
def test_the_numbers_are_those_of_native_code(vertex, dtype):
    model = model_of(vertex, dtype)
    actual, expected = (drawn(model, GRAPHS, backend) for backend in ("triton", "native"))
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(actual[0], drawn(model, GRAPHS, "triton", seed=1)[0])


def test_dropout_in_half_precision_keeps_as_many():
    h, grad = drawn(model_of(dropped, torch.bfloat16), [vf.chain(1)] * 60 + [vf.chain(2)] * 60, "triton")
    assert h.dtype == grad.dtype == torch.bfloat16
    assert 0.65 < (h != 0).double().mean() < 0.75
