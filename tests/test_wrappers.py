"""What PyTorch wraps around modules works around models: right numbers and gradients, or a sentence that says no."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch._dynamo.utils import counters

import vertexflow as vf

from .models import BinaryTreeLSTM

GRAPHS = [vf.tree(((0, 1), 2)), vf.chain(3)]


def model_and_input(backend="torch"):
    torch.manual_seed(0)
    model = BinaryTreeLSTM(3, 4).double()
    model.backend = backend
    return model, torch.randn(8, 3, dtype=torch.float64, requires_grad=True)


def loss_and_gradients(model, x):
    loss = model(GRAPHS, x=x).h.square().sum()
    return [loss.detach(), *torch.autograd.grad(loss, [x, *model.parameters()])]


@pytest.fixture(scope="module")
def expected():
    """The loss and the gradients of a model that nothing is wrapped around."""
    return loss_and_gradients(*model_and_input("eager"))


@pytest.fixture
def dynamo():
    """TorchDynamo as if nothing had been compiled."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def whole(model, batch, x):
    out = model(batch, x=x * 2)
    out.double = out.h * 2
    return (batch.sum(out.double) * x[:2, :1]).sum() + (out["h"][batch.roots] * x[:2, 1:2]).sum()


def grown(model, batch, x):
    run = model.start(x=x * 2)
    new = run.extend([[0, 1], [8, 3]])
    return (run[new].h * x[:2, :1]).sum()


def packed(model, batch, x):
    again = vf.pack([vf.graph(3, [(0, 2), (1, 2)]), *GRAPHS[1:], vf.tree((0,))])
    return (model(again, x=x * 2).h * x[:, :1]).sum()


OURS = {whole: 2, grown: 3, packed: 4}


@pytest.mark.parametrize(
    ("backend", "function"), [("eager", whole), ("eager", grown), ("aot_eager", whole), ("aot_eager", packed)]
)
def test_inside_compiled_code(function, backend, dynamo):
    """A break for each call of ours, of which nothing is compiled, nor anything again when inputs and graphs change."""
    model, x = model_and_input()
    compiled = torch.compile(function, backend=backend)
    for call in range(4):
        batch = vf.pack(GRAPHS[:: -1 if call % 2 else 1])
        x = torch.randn_like(x, requires_grad=True)
        wanted = [x, *model.parameters()]
        got = compiled(model, batch, x)
        gradients = torch.autograd.grad(got, wanted)
        if not call:
            frames = dict(counters["frames"])
            breaks = "".join(counters["graph_break"])
            assert all(count == 1 for count in counters["graph_break"].values())
            assert (
                breaks.count("vertexflow compiles what it computes itself")
                == len(counters["graph_break"])
                == OURS[function]
            )
        assert dict(counters["frames"]) == frames
        want = function(model, batch, x)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(gradients, torch.autograd.grad(want, wanted))


def test_compiled_code_without_a_break_is_refused_with_a_reason(dynamo):
    model, x = model_and_input()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="vertexflow compiles what it computes itself"):
        torch.compile(whole, backend="eager", fullgraph=True)(model, vf.pack(GRAPHS), x)


def test_a_compiled_model(expected, dynamo):
    model, x = model_and_input()
    plain = copy.deepcopy(model)
    model.compile(backend="eager")
    outside = torch.compile(plain, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(loss_and_gradients(model, x), expected)
        torch.testing.assert_close(loss_and_gradients(outside, x), expected)
    assert counters["frames"]["total"] == 0
    assert list(model.state_dict()) == list(plain.state_dict())
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(loss_and_gradients(again, x), expected)


def compile_in_place(model):
    model.u.compile(backend="eager")


def compile_around(model):
    model.u = torch.compile(model.u, backend="eager")


@pytest.mark.parametrize("change", [compile_in_place, compile_around])
def test_submodules_that_are_compiled(change, expected, dynamo):
    """In a trace they are what they were; with backend="eager" they run as they are."""
    model, x = model_and_input()
    change(model)
    torch.testing.assert_close(loss_and_gradients(model, x), expected)
    model.backend = "eager"
    torch.testing.assert_close(loss_and_gradients(model, x), expected)
