"""A vertex function is an nn.Module: optimisers, dropout, autocast, copies and checkpoints behave as for any."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import vertexflow as vf

from .models import FromCode, TreeRNN

GRAPHS = [vf.tree(((0, 1), (2, 3))), vf.chain(4), vf.tree(0)]  # 12 vertices


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.NAdam],
)
@pytest.mark.cases(2)
def test_any_optimiser_lowers_the_loss(optimizer):
    model = TreeRNN(3, 8)
    batch = vf.pack(GRAPHS)
    x, target = torch.randn(12, 3), torch.rand(3, 8) - 0.5
    stepper = optimizer(model.parameters(), lr=0.5 if optimizer is torch.optim.SGD else 0.01)

    def closure():
        stepper.zero_grad()
        loss = (model(batch, x=x).h[batch.roots] - target).square().mean()
        loss.backward()
        return loss

    losses = [stepper.step(closure).item() for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]


def test_lbfgs_calls_the_model_many_times_a_step():
    model = TreeRNN(3, 4)
    x = torch.randn(12, 3)
    stepper = torch.optim.LBFGS(model.parameters())

    def closure():
        stepper.zero_grad()
        loss = model(GRAPHS, x=x).h.square().mean()
        loss.backward()
        return loss

    assert float(stepper.step(closure)) > 2 * float(closure())


CHAINS = [vf.chain(3)] * 4  # 12 vertices


def dropped(self, v):
    x = self.drop(v.pull("x"))
    v.scatter(h=x + v.gather(0).h)
    v.push(x=x)


def test_dropout_has_a_fresh_mask_for_each_vertex_and_call_and_the_same_in_backward():
    model = FromCode(dropped, {"h": 64}, drop=nn.Dropout(0.5))
    x = torch.ones(12, 64, requires_grad=True)
    first, second = model(CHAINS, x=x).x, model(CHAINS, x=x).x
    for out in (first, second):
        assert set(out.unique().tolist()) == {0.0, 2.0}
        assert 0.3 < (out == 0).float().mean() < 0.7
        assert len(out.unique(dim=0)) == 12
    assert not torch.equal(first, second)
    assert torch.equal(torch.autograd.grad(first.sum(), x)[0], first)  # x is 1: the gradient is the mask
    assert torch.equal(model.eval()(CHAINS, x=x).x, x)


def test_dropout_of_what_is_gathered():
    def vertex(self, v):
        h = self.drop(v.gather(0).h) + v.pull("x")
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 64}, drop=nn.Dropout(0.5))
    x = torch.ones(30, 64, requires_grad=True)
    h = model([vf.chain(3)] * 10, x=x).h
    ends = h[2::3]
    assert set(ends.unique().tolist()) <= {1.0, 3.0, 7.0}
    assert len(ends.unique(dim=0)) == 10
    # x of the first vertex reaches the end times both masks: 4 where neither dropped it.
    grad = torch.autograd.grad(ends.sum(), x)[0]
    assert torch.equal(grad[0::3] == 4, ends == 7)
    assert torch.equal(grad[1::3] == 2, ends >= 3)


def test_dropout_is_reproducible_from_the_seed():
    model = FromCode(dropped, {"h": 8}, drop=nn.Dropout(0.5))
    x = torch.randn(12, 8)
    outs = []
    for _ in range(2):
        torch.manual_seed(7)
        outs.append(model(CHAINS, x=x).x)
    assert torch.equal(*outs)


@pytest.mark.slow
def test_autocast_is_close_to_float32():
    model = TreeRNN(16, 32)
    x = torch.randn(12, 16)

    def run():
        model.zero_grad()
        h = model(GRAPHS, x=x).h
        h.square().sum().backward()
        return h.float(), model.u.weight.grad.clone()

    exact = run()
    with torch.autocast("cpu", torch.bfloat16):
        rough = run()
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert 0 < (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    model = TreeRNN(3, 4).to(dtype)
    h = model(GRAPHS, x=torch.randn(12, 3, dtype=dtype)).h
    h.sum().backward()
    assert h.dtype == model.u.weight.grad.dtype == dtype


@pytest.mark.slow
def test_copies_and_checkpoints_compute_the_same():
    model = TreeRNN(3, 4)
    x = torch.randn(12, 3)
    expected = model(GRAPHS, x=x).h
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    other = TreeRNN(3, 4)
    other.load_state_dict(model.state_dict())
    clones = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False), other]
    for clone in clones:
        assert torch.equal(clone(GRAPHS, x=x).h, expected)
        clone(GRAPHS, x=x).h.sum().backward()
        assert model.u.weight.grad is None


def test_a_vertex_function_is_part_of_a_larger_module():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, 3)
            self.tree = TreeRNN(3, 4)
            self.out = nn.Linear(4, 2)

        def forward(self, batch, tokens):
            return self.out(self.tree(batch, x=self.embed(tokens)).h[batch.roots])

    model = Classifier()
    model(vf.pack(GRAPHS), torch.randint(0, 10, (12,))).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert set(model.state_dict()) == {
        "embed.weight",
        "tree.w.weight",
        "tree.w.bias",
        "tree.u.weight",
        "out.weight",
        "out.bias",
    }


def test_parametrised_weights():
    model = TreeRNN(3, 4)
    nn.utils.parametrizations.weight_norm(model.u)
    x = torch.randn(12, 3)
    before = model(GRAPHS, x=x).h
    before.sum().backward()
    assert model.u.parametrizations.weight.original0.grad is not None
    with torch.no_grad():
        model.u.parametrizations.weight.original0.mul_(2)
    assert not torch.equal(model(GRAPHS, x=x).h, before)


def test_parameters_that_the_method_does_not_use_get_no_gradient():
    model = TreeRNN(3, 4)
    model.unused = nn.Linear(2, 2)
    model(GRAPHS, x=torch.randn(12, 3)).h.sum().backward()
    assert model.unused.weight.grad is None


def test_outputs_of_no_grad_are_plain():
    model = TreeRNN(3, 4)
    with torch.no_grad():
        assert not model(GRAPHS, x=torch.randn(12, 3)).h.requires_grad
    with torch.inference_mode(), torch.enable_grad():  # which changes nothing there, as for PyTorch's operators
        assert not model(GRAPHS, x=torch.randn(12, 3)).h.requires_grad


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.cases(1)
def test_a_model_made_in_inference_mode(backend):
    """Its parameters are inference tensors, in which PyTorch counts no changes."""
    usual, x = TreeRNN(3, 4), torch.randn(12, 3)
    with torch.inference_mode():
        model = TreeRNN(3, 4)
        model.backend = usual.backend = backend
        for factor in (1.0, 2.0):
            usual.u.weight.mul_(factor)
            model.load_state_dict(usual.state_dict())
            assert torch.equal(model(GRAPHS, x=x).h, usual(GRAPHS, x=x).h)


def test_a_chain_of_100_000_vertices():
    model = TreeRNN(2, 2)
    x = torch.randn(100_000, 2, requires_grad=True)
    model([vf.chain(100_000)], x=x).h.sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad[0].any()


def test_a_tree_50_000_deep():
    nested = 0
    for leaf in range(1, 50_001):
        nested = (nested, leaf)
    model = TreeRNN(2, 2)
    batch = vf.pack([vf.tree(nested)])
    x = torch.randn(batch.num_vertices, 2, requires_grad=True)
    model(batch, x=x).h[batch.roots].sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_a_model_that_was_evaluated_first_can_be_trained(without):
    model, x = TreeRNN(3, 4), torch.randn(5, 3)
    with without():
        expected = model([vf.chain(5)], x=x).h
    assert not expected.requires_grad
    out = model([vf.chain(5)], x=x).h
    assert torch.equal(out, expected)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("backend", ["torch", "native", "eager"])
def test_a_batch_that_was_used_in_inference_mode_first_can_be_trained_on(backend):
    """What a batch keeps, its readers and its schedule, is not of inference mode."""
    model, x = TreeRNN(3, 4), torch.randn(10, 3, requires_grad=True)
    model.backend = backend
    batch = vf.pack([vf.tree(((0, 1), 2)), vf.chain(5)])

    def loss():
        h = model(batch, x=x).h
        h = h[batch.roots].sum() + h[batch.leaves].sum() + h[batch.edge_index[0]].sum()
        return h + (torch.tanh(x)[batch.graph_of_vertex] * 2).sum() + batch.sum(x).square().sum()

    with torch.inference_mode():
        expected = loss()
    actual = loss()
    assert torch.equal(actual, expected)
    actual.backward()
    assert x.grad.isfinite().all()
