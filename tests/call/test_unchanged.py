"""What decides an extension, compared in one call: whatever changes, the comparison says so."""

from __future__ import annotations

import contextlib
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow import _core

factor = 1.0


class Scaled(vf.VertexFunction):
    def __init__(self) -> None:
        super().__init__(state={"h": 4})
        self.linear = nn.Linear(8, 4)
        self.scale = 1.0
        self.names = {"a"}
        self.register_buffer("shift", torch.zeros(4))

    def vertex(self, v: vf.Vertex) -> None:
        both = torch.cat([v.gather(0).h, v.gather(1).h], -1)
        h = torch.tanh(self.linear(both) * self.scale * factor + self.shift + v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)


def begun():
    model = Scaled()
    model.backend = "native"
    x = torch.randn(2, 4)
    run = model.start(x=torch.randn(3, 4))
    for _ in range(2):
        run.extend([[0, 1], [1, 2]], x=x)
    again = [*run._grower._again.values()][-1]
    return model, run, again.unchanged, x


@contextlib.contextmanager
def exchanged(model):
    model.linear.weight = nn.Parameter(model.linear.weight.detach().clone())
    yield


@contextlib.contextmanager
def done(action, *arguments):
    action(*arguments)
    yield


def with_attribute(tensor):
    tensor.note = 1


def with_other_data(tensor):
    tensor.data = tensor.data.clone()


def written(tensor):
    with torch.no_grad():
        tensor.add_(1)


@contextlib.contextmanager
def with_global(value):
    global factor
    before, factor = factor, value
    yield
    factor = before


@contextlib.contextmanager
def with_variable(monkeypatch):
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")
    yield
    monkeypatch.delenv("VERTEXFLOW_BACKEND")


@contextlib.contextmanager
def with_default_dtype():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


CHANGES = {
    "parameter": exchanged,
    "data": lambda model: done(with_other_data, model.linear.weight),
    "in place": lambda model: done(written, model.linear.bias),
    "attribute of a tensor": lambda model: done(with_attribute, model.shift),
    "requires_grad": lambda model: done(model.linear.weight.requires_grad_, False),
    "attribute": lambda model: done(setattr, model, "scale", 2.0),
    "set": lambda model: done(model.names.add, "b"),
    "training": lambda model: done(model.eval),
    "hook": lambda model: done(model.linear.register_forward_hook, lambda *_: None),
    "class of a module": lambda model: done(setattr, model.linear, "__class__", type("Other", (nn.Linear,), {})),
    "new buffer": lambda model: done(model.register_buffer, "other", torch.zeros(2)),
    "method": lambda model: done(setattr, model, "vertex", lambda v: None),
    "global": lambda model: with_global(2.0),
    "no_grad": lambda model: torch.no_grad(),
    "inference": lambda model: torch.inference_mode(),
    "autocast": lambda model: torch.autocast("cpu", torch.bfloat16),
    "default dtype": lambda model: with_default_dtype(),
    "default device": lambda model: torch.device("meta"),
    "dual numbers": lambda model: torch.autograd.forward_ad.dual_level(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.cases(1)
def test_a_change_is_seen(change):
    model, _, unchanged, x = begun()
    assert _core.is_unchanged(unchanged, [x])
    with CHANGES[change](model):
        assert not _core.is_unchanged(unchanged, [x])


def test_the_variable_is_seen(monkeypatch):
    monkeypatch.delenv("VERTEXFLOW_BACKEND", raising=False)
    _, _, unchanged, x = begun()
    with with_variable(monkeypatch):
        assert not _core.is_unchanged(unchanged, [x])
    assert _core.is_unchanged(unchanged, [x])


def test_inputs_are_compared():
    _, _, unchanged, x = begun()
    others = (x.double(), x[:, :3], x.clone().requires_grad_(), x.to_sparse())
    assert not any(_core.is_unchanged(unchanged, [other]) for other in others)
    assert _core.is_unchanged(unchanged, [torch.randn(7, 8)[:, :4]])  # rows, and how far they are apart, may be any


def test_what_is_written_down_keeps_no_run_alive():
    model, run, _, _ = begun()
    model.run = run  # a cycle, which leads through what was written down
    gone = weakref.ref(run)
    del model, run
    gc.collect()
    assert gone() is None


def test_what_places_hold():
    values = np.array([5, 5, 6], np.int32)
    assert [_core.common_of(values, np.array(places, np.int64), 3) for places in ([0, 1], [0, 2], [3], [-1], [])] == [
        5, -1, -1, -1, -1
    ]  # fmt: skip
    assert [_core.common_of(None, np.array(places), 3) for places in ([0, 2], [3])] == [0, -1]


def test_malformed():
    with pytest.raises(ValueError, match="nineteen"):
        _core.is_unchanged(((),), [])
    lists = [[] for _ in range(18)]
    with pytest.raises(TypeError, match="lists"):
        _core.is_unchanged((*lists[:-1], (), bool), [])
    with pytest.raises(ValueError, match="length"):
        _core.is_unchanged(([{}], *lists[1:], bool), [])
    with pytest.raises(ValueError, match="elements"):
        _core.common_of(np.zeros(3, np.int32), np.array([0, 3]), 4)
    calls = _core.Calls(np.zeros(0, np.int64), np.zeros(0, np.int64), 3, [])
    rows = _core.CallsOfRows(calls, 4, 1, [0, 0, 0], [], 2, [])
    with pytest.raises(ValueError, match="rows"):
        rows.run(3, 5, 0, 0, [], [])
    with pytest.raises(ValueError, match="address"):
        rows.run(0, 4, 0, 2, [0, 0], [])
