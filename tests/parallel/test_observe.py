"""What is seen of a model: its parts in their order, parameters, and memory; the model stays as it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.parallel.observe import observe

from ..models import TreeRNN

pytestmark = pytest.mark.usefixtures("_without_compiler")
TREES = [vf.tree(((0, 1), 2)), vf.chain(4), vf.tree((0, 1))]


class Network(nn.Module):
    """Layers of PyTorch around vertex functions of two sorts."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Linear(3, 4), nn.Linear(4, 2)
        self.up, self.down = TreeRNN(4, 4), TreeRNN(4, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, batch, x):
        up = self.up(batch, x=self.embed(x)).h
        return self.out(self.down(batch, x=up * self.scale, reverse=True).h[batch.roots])


def test_parts_are_seen_in_their_order_with_their_parameters():
    model, batch = Network(), vf.pack(TREES)
    observation = observe(model, (batch, torch.empty(batch.num_vertices, 3, device="meta")))
    assert [part.name for part in observation.parts] == ["embed", "up", "", "down", "out"]
    assert {name for part in observation.parts for name in part.parameters} == set(dict(model.named_parameters()))
    by_name = {part.name: part for part in observation.parts}
    assert by_name["out"].parameters == ["out.weight", "out.bias"]
    assert by_name[""].parameters == ["scale"]
    assert by_name["up"].param_bytes == sum(parameter.nbytes for parameter in model.up.parameters())
    assert by_name["embed"].plain[0] == 3 * 2 * batch.num_vertices * 3 * 4
    assert (observation.num_graphs, observation.num_vertices) == (3, batch.num_vertices)


@pytest.mark.slow
def test_real_tensors_and_meta_tensors_are_the_same():
    model, batch = Network(), vf.pack(TREES)
    observations = [
        observe(model, (batch, torch.zeros(batch.num_vertices, 3, device=device))) for device in ("cpu", "meta")
    ]
    real, meta = ([(part.name, part.kept_bytes, part.plain.tolist()) for part in each.parts] for each in observations)
    assert real == meta
    assert real[1][1] > 0


def test_what_is_kept_is_what_is_estimated():
    model = TreeRNN(16, 16)
    batch = vf.pack(TREES * 20)
    x = torch.empty(batch.num_vertices, 16, device="meta")
    (part,) = observe(model, (batch, {"x": x})).parts
    estimate = model.estimate_memory(batch, x=x)
    assert part.kept_bytes == estimate.kept + estimate.outputs


@pytest.mark.slow
def test_layers_of_an_lstm_are_one_part():
    model, batch = vf.nn.LSTM(3, 4, num_layers=2, bidirectional=True), vf.pack([vf.chain(5), vf.chain(2)])
    (part,) = observe(model, (batch, torch.empty(7, 3, device="meta"))).parts
    assert len(part.calls) == 4
    assert set(part.parameters) == set(dict(model.named_parameters()))


def test_kinds_have_their_own_work():
    class Kinds(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={"h": 4})
            self.of_node = nn.Linear(8, 4)

        @vf.vertex("leaf")
        def leaf(self, v):
            v.scatter(h=v.pull("x"))

        @vf.vertex("node")
        def node(self, v):
            h = torch.tanh(self.of_node(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
            v.scatter(h=h)
            v.push(h=h)

    batch = vf.pack([vf.graph(3, [(0, 2), (1, 2)], kind=["leaf", "leaf", "node"])] * 3)
    (part,) = observe(Kinds(), (batch, {"x": torch.empty(6, 4, device="meta")})).parts
    leaf, node = part.calls[0].works
    assert not any(work.row[0] for work in leaf.values())
    assert any(work.row[0] for work in node.values())


def test_what_is_derived_of_a_batch_is_not_kept_with_it():
    model, batch = Network(), vf.pack(TREES)
    seen = []
    observe(model, (batch, torch.empty(batch.num_vertices, 3, device="meta")), lambda m, b: seen.append(b[0]) or m(*b))
    assert seen[0] is not batch
    assert not batch.derived.orders
    assert batch.mean(torch.ones(batch.num_vertices, 1)).device.type == "cpu"


def test_the_model_stays_as_it_is():
    model, batch = Network(), vf.pack(TREES)
    x = torch.randn(batch.num_vertices, 3)
    model(batch, x).sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    versions = [len(function._programs.versions) for function in (model.up, model.down)]
    traces = [
        [len(version.traces) for version in function._programs.versions.values()] for function in (model.up, model.down)
    ]
    observe(model, (batch, torch.empty(batch.num_vertices, 3, device="meta")))
    assert versions == [len(function._programs.versions) for function in (model.up, model.down)]
    after = [
        [len(version.traces) for version in function._programs.versions.values()] for function in (model.up, model.down)
    ]
    assert traces == after
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    model.zero_grad()
    model(batch, x).sum().backward()
    for gradient, parameter in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=0)


def test_what_cannot_be_seen_is_refused(monkeypatch):
    batch = vf.pack(TREES)
    x = torch.empty(batch.num_vertices, 3, device="meta")

    class Asks(Network):
        def forward(self, batch, x):
            return super().forward(batch, x[x.sum(1) > 0])

    class Grows(Network):
        def forward(self, batch, x):
            run = self.up.start(x=self.embed(x))
            return run[run.extend([[0, 1]])].h

    eager = Network()
    eager.up.backend = "eager"
    linear = nn.Linear(3, 3)
    with pytest.raises(vf.InputError, match="cannot be gone through without numbers"):
        observe(Asks(), (batch, x))
    with pytest.raises(vf.InputError, match="a run that grows cannot be planned"):
        observe(Grows(), (batch, x))
    with monkeypatch.context() as patch:
        patch.delenv("VERTEXFLOW_BACKEND")
        with pytest.raises(vf.BackendError, match='with the backend "eager" nothing is traced'):
            observe(eager, (batch, x))
    with pytest.raises(vf.InputError, match="has called no vertex function"):
        observe(linear, (x,))
    model = Network()
    with pytest.raises(vf.VertexFlowError):
        observe(model, (batch, x[:-1]))
    assert model(batch, torch.randn(batch.num_vertices, 3)).shape == (3, 2)  # and nothing is left behind
