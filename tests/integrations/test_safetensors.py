"""safetensors: a model's weights, tied ones and a learned policy with them, written and read."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

import vertexflow as vf

from ..models import TreeRNN

BATCH = vf.pack([vf.tree(((0, 1), 2)), vf.chain(4)])


class Tied(vf.VertexFunction):
    def __init__(self):
        super().__init__(state={"h": 3})
        self.of_x, self.of_h = nn.Linear(3, 3), nn.Linear(3, 3)
        self.of_h.weight = self.of_x.weight

    def vertex(self, v):
        h = torch.tanh(self.of_x(v.pull("x")) + self.of_h(v.sum(v.children.h)))
        v.scatter(h=h)
        v.push(h=h)


def learned() -> TreeRNN:
    model = TreeRNN(3, 4)
    model.policy = vf.FSM.learn([BATCH])
    return model


MODELS = {
    "a model": lambda: TreeRNN(3, 4),
    "tied weights": Tied,
    "PyTorch's state_dict": lambda: vf.nn.LSTM(3, 4),
    "a learned policy": learned,
    "inside another": lambda: nn.ModuleDict({"one": Tied(), "other": learned()}),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_is_written_and_read(make, tmp_path):
    torch.manual_seed(0)
    model, other = make(), make()
    save_model(model, tmp_path / "model.safetensors")
    assert load_model(other, tmp_path / "model.safetensors") == (set(), [])
    assert model.state_dict().keys() == other.state_dict().keys()
    for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    if isinstance(model, vf.VertexFunction):
        x = torch.randn(BATCH.num_vertices, 3)
        graphs = BATCH if not isinstance(model, vf.nn.LSTM) else vf.pack([vf.chain(9)])
        assert torch.equal(other(graphs, x=x).h, model(graphs, x=x).h)


def test_what_was_called_and_trained_before_has_the_new_weights(tmp_path):
    torch.manual_seed(0)
    model, other, x = Tied(), Tied(), torch.randn(BATCH.num_vertices, 3)
    before = other(BATCH, x=x).h
    save_model(model, tmp_path / "model.safetensors")
    load_model(other, tmp_path / "model.safetensors")
    assert other.of_h.weight is other.of_x.weight
    assert torch.equal(other(BATCH, x=x).h, model(BATCH, x=x).h)
    assert not torch.equal(other(BATCH, x=x).h, before)


def test_a_policy_is_learned_in_one_process_and_used_in_another(tmp_path):
    """The model that reads it has not learned any."""
    model, fresh = learned(), TreeRNN(3, 4)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert isinstance(fresh.policy, vf.FSM)
    assert fresh.policy.dump() == model.policy.dump()
    save_model(model, tmp_path / "model.safetensors")
    fresh = TreeRNN(3, 4)
    load_model(fresh, tmp_path / "model.safetensors")
    assert fresh.policy.dump() == model.policy.dump()
