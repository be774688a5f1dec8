"""What runs for a batch: the number of products, the memory that states share, and the same bits every time."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import vertexflow as vf
from vertexflow.kernels import native
from vertexflow.kernels.compile import choose_backend
from vertexflow.kernels.torch import source

from ..models import BinaryTreeLSTM, FromCode, TreeRNN


@pytest.fixture(autouse=True)
def _backend_torch(monkeypatch):
    """Operations are counted, which native code does not show."""
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")


class CountOperations(TorchDispatchMode):
    """Counts the aten operations that run."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def products(self):
        return sum(self.counts[name] for name in ("mm", "addmm", "bmm", "baddbmm", "linear"))


def products_of(model, graphs, **inputs):
    """The number of matrix products of forward, and of backward."""
    batch = vf.pack(graphs)
    inputs = {name: torch.randn(batch.num_vertices, size) for name, size in inputs.items()}
    model(batch, **inputs)
    with CountOperations() as forward:
        loss = model(batch, **inputs).h.sum()
    with CountOperations() as backward:
        loss.backward()
    return forward.products, backward.products


def test_products_of_a_batch():
    """Input projections and weight gradients are one product each, whatever the number of steps."""
    model = TreeRNN(3, 4)
    for length in (1, 2, 10, 100):
        forward, backward = products_of(model, [vf.chain(length)] * 3, x=3)
        steps = length - 1  # steps with children
        assert forward == 1 + steps
        assert backward == (2 + steps if steps else 1)  # without steps there is nothing to sum for the recurrent weight


def test_several_linears_in_a_row_have_one_weight_gradient_each():
    def vertex(self, v):
        inner = torch.relu(self.first(v.gather(0).h)) + v.pull("x")
        h = torch.tanh(self.second(inner))
        v.scatter(h=h)
        v.push(h=self.out(h))

    model = FromCode(vertex, {"h": 4}, first=nn.Linear(4, 4), second=nn.Linear(4, 4), out=nn.Linear(4, 2))
    counts = {length: products_of(model, [vf.chain(length)], x=4) for length in (5, 6)}
    # Each further step costs two products forward, and two backward for the gradient of its child's state alone.
    assert counts[6][0] - counts[5][0] == 2
    assert counts[6][1] - counts[5][1] == 2
    assert counts[5][1] == 2 * 4 + (1 + 1 + 3)  # steps; the leaf's; out's dx; three weight gradients


def test_one_call_gathers_all_slots_of_a_state():
    batch = vf.pack([vf.tree(((0, 1), 2))])
    model = BinaryTreeLSTM(3, 4)
    x = torch.randn(5, 3)
    model(batch, x=x)
    with CountOperations() as running:
        model(batch, x=x)
    # Two states in each of two steps with children; the input into row order, the output out of it.
    assert running.counts["index_select"] == 2 * 2 + 2
    assert running.counts["cat"] == 0


def test_the_same_bits_every_time():
    batch = vf.pack([vf.tree(((0, 1), 2)), vf.graph(4, [(0, 1), (0, 2), (1, 3), (2, 3)])])
    model = TreeRNN(3, 8)
    x = torch.randn(batch.num_vertices, 3, requires_grad=True)

    def run():
        return torch.autograd.grad(model(batch, x=x).h.square().sum(), [x, *model.parameters()])

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_backward_twice():
    model = TreeRNN(3, 4)
    x = torch.randn(5, 3, requires_grad=True)
    loss = model([vf.tree(((0, 1), 2))], x=x).h.sum()
    loss.backward(retain_graph=True)
    first = x.grad.clone()
    loss.backward()
    assert torch.equal(x.grad, 2 * first)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_a_weight_changed_between_forward_and_backward_is_noticed():
    model = TreeRNN(3, 4)
    loss = model([vf.tree(((0, 1), 2))], x=torch.randn(5, 3)).h.sum()
    with torch.no_grad():
        model.u.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_outputs_may_be_changed_in_place():
    model = TreeRNN(3, 4)
    x = torch.randn(5, 3, requires_grad=True)
    plain = torch.autograd.grad(model([vf.tree(((0, 1), 2))], x=x).h.sum(), x)[0]
    h = model([vf.tree(((0, 1), 2))], x=x).h
    h.mul_(2)
    assert torch.equal(torch.autograd.grad(h.sum(), x)[0], 2 * plain)


def test_backends(monkeypatch):
    monkeypatch.delenv("VERTEXFLOW_BACKEND")
    assert choose_backend("torch") == "torch"
    with monkeypatch.context() as patch:
        for there, chosen in ((True, "triton"), (False, "torch")):
            patch.setattr("vertexflow.kernels.triton.is_available", lambda there=there: there)
            assert choose_backend("auto", torch.device("cuda")) == chosen
        patch.setattr("vertexflow.kernels.triton.interprets", lambda: False)
        assert choose_backend("triton", torch.device("cuda")) == "triton"
        with pytest.raises(vf.BackendError, match=r'makes kernels for a GPU, but the model is on cpu.*"auto"'):
            choose_backend("triton", torch.device("cpu"))
    with pytest.raises(vf.BackendError, match="makes code for the CPU, but the model is on meta"):
        choose_backend("native", torch.device("meta"))
    with pytest.raises(vf.BackendError, match=r"no backend 'fast'.*'torch'"):
        vf.VertexFunction(state={"h": 3}, backend="fast")
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "slow")
    with pytest.raises(vf.BackendError, match="no backend 'slow'"):
        TreeRNN(3, 4)


def test_generated_code_can_be_read(monkeypatch, capsys):
    monkeypatch.setenv("VERTEXFLOW_LOG", "trace,passes,schedule,kernels")
    TreeRNN(3, 4)([vf.tree(((0, 1), 2))], x=torch.randn(5, 3))
    printed = capsys.readouterr().err
    assert "def core(rows, " in printed
    assert "torch.mm(children_h, " in printed
    assert "[vertexflow schedule]\npolicy depth: 5 vertices (3 without children) in 3 steps" in printed
    assert "core: once a step, children first" in printed
    assert "[vertexflow passes]\nafter canonical\n" in printed


def test_one_method_computes_all_kinds_together():
    model = TreeRNN(3, 4)
    x = torch.randn(4, 3)
    edges = [(0, 2), (1, 3)]
    plain = model([vf.graph(4, edges)], x=x).h
    with CountOperations() as running:
        assert torch.equal(model([vf.graph(4, edges, kind=["a", "b", "a", "b"])], x=x).h, plain)
    assert running.products == 1 + 1  # the input projection, and one step with children


@pytest.mark.skipif(native.compiler() is None, reason="there is no C++ compiler")
def test_calls_of_pytorch_are_written_for_parts_that_they_run(monkeypatch):
    written = []

    def compile_part(part, *arguments):
        written.append(part.name)
        return source.compile_part(part, *arguments)

    monkeypatch.delenv("VERTEXFLOW_BACKEND")
    monkeypatch.setattr("vertexflow.kernels.torch.calls.compile_part", compile_part)
    for backend in ("native", "torch"):
        written.clear()
        model = TreeRNN(3, 4)
        model.backend = backend
        model([vf.tree(((0, 1), 2))], x=torch.randn(5, 3, requires_grad=True)).h.sum().backward()
        parts = dict(line.split(": ", 1) for line in model.explain().splitlines())
        run = {name.removeprefix("vertex.") for name, how in parts.items() if how.startswith("calls of PyTorch")}
        assert set(written) == run
        assert (len(run) == len(parts)) is (backend == "torch")
