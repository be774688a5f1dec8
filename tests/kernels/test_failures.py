"""What PyTorch raises while a program runs names the line of the vertex function, and leaves the model as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf

from ..models import FromCode


def looks_up_before_the_steps(self, v):
    h = torch.tanh(self.embed(v.pull("k")) + v.gather(0).h)
    v.scatter(h=h)
    v.push(h=h)


def reads_a_child_in_the_steps(self, v):
    h = v.gather(0).h.gather(1, v.pull("k")[:, None]).sin() + 1.0
    v.scatter(h=h.expand(-1, 4))
    v.push(h=h)


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize(
    ("vertex", "line"),
    [(looks_up_before_the_steps, r"self\.embed\(v\.pull"), (reads_a_child_in_the_steps, r"\.gather\(1, v\.pull")],
)
@pytest.mark.cases(1)
def test_an_index_out_of_range_names_the_line(backend, vertex, line):
    model = FromCode(vertex, {"h": 4}, embed=nn.Embedding(4, 4))
    model.backend = backend
    batch = vf.pack([vf.chain(3)])
    good = torch.tensor([0, 1, 2])
    before = model(batch, k=good).h
    with pytest.raises(
        vf.VertexFunctionError, match=rf"(?s)(IndexError|RuntimeError): index.*test_failures\.py:\d+: .*{line}"
    ) as caught:
        model(batch, k=torch.tensor([0, 1, 17]))
    assert isinstance(caught.value.__cause__, (IndexError, RuntimeError))
    assert torch.equal(model(batch, k=good).h, before)


def test_lack_of_memory_stays_what_pytorch_says(monkeypatch):
    model = FromCode(looks_up_before_the_steps, {"h": 4}, embed=nn.Embedding(4, 4))
    model.backend = "torch"
    batch, k = vf.pack([vf.chain(3)]), torch.tensor([0, 1, 2])
    model(batch, k=k)

    def fails(*args, **kwargs):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(torch, "tanh", fails)
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        model(batch, k=k)
