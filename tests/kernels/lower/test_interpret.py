"""Loops, as the interpreter runs them, compute what PyTorch computes; nothing is compiled here. Views are in test_views.py."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vertexflow as vf
from benchmarks.zoo import ZOO
from vertexflow.kernels.lower.decompose import decomposed
from vertexflow.kernels.lower.loops import draws
from vertexflow.kernels.lower.verify import verify
from vertexflow.kernels.native.plan import plan_part
from vertexflow.kernels.native.statements import statements_of

from ...models import FromCode
from ...test_views import SIZE
from ..test_special_values import FUNCTIONS, MASKS, MORE_FUNCTIONS
from .parts import check_parts


def program_of(model, graphs, **inputs):
    """The program of a model for all gradients, traced in float64."""
    model = model.double()
    model.backend = "torch"
    model(graphs, **{name: x.double().requires_grad_() for name, x in inputs.items()})
    return model.symbolic_graph.programs["vertex"]


def of_pairs(functions):
    def vertex(self, v):
        a, b = v.gather(0).pair.split(1, -1)
        results = torch.cat([function(a + 1e-3, b).to(a.dtype) for function in functions], -1)
        v.scatter(pair=v.pull("pair") + results[:, :2] * 1e-9)
        v.push(results=results)

    return FromCode(vertex, {"pair": 2})


@pytest.mark.slow
@pytest.mark.parametrize("table", [FUNCTIONS, MORE_FUNCTIONS], ids=["functions", "more functions"])
def test_functions(table):
    left_out = {"lgamma", "whole numbers", "shifts"}
    functions = [function for name, function in table.items() if name not in left_out]
    assert "core" in check_parts(program_of(of_pairs(functions), [vf.chain(2)], pair=torch.rand(2, 2)))


def test_booleans():
    functions = [
        lambda a, b, f=f: f(a > 0.2, b > 0.3) for name, f in MASKS.items() if name != "functions"
    ]  # which are in float32
    assert "core" in check_parts(program_of(of_pairs(functions), [vf.chain(2)], pair=torch.rand(2, 2)))


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


LAYERS = {
    "layer norm": lambda: nn.LayerNorm(SIZE),
    "rms norm": lambda: nn.RMSNorm(SIZE),
    "softmax": lambda: nn.Softmax(-1),
    "log softmax": lambda: nn.LogSoftmax(-1),
    "group norm": lambda: nn.GroupNorm(2, SIZE),
    "glu": lambda: nn.Sequential(nn.GLU(-1), nn.Linear(SIZE // 2, SIZE)),
    "gelu": nn.GELU,
    "prelu": nn.PReLU,
    "standardised": lambda: lambda h: (h - h.mean(-1, keepdim=True)) / h.std(-1, keepdim=True),
    "variance": lambda: lambda h: h / (1 + h.var(-1, keepdim=True, unbiased=False)),
    "largest": lambda: lambda h: h - h.amax(-1, keepdim=True) + h.amin(-1, keepdim=True),
    "logsumexp": lambda: lambda h: h - h.logsumexp(-1, keepdim=True),
    "product": lambda: lambda h: h / (2 + (h.abs() + 0.5).prod(-1, keepdim=True)),
    "norm": lambda: lambda h: F.normalize(h, dim=-1),
    "norm of a matrix": lambda: (
        lambda h: (lambda m: m / (1 + m.norm(dim=1, keepdim=True)))(h.view(-1, 2, 3)).flatten(1)
    ),
    "softmax over a first dimension": lambda: lambda h: h.view(-1, 2, 3).softmax(1).flatten(1),
    "stack": lambda: lambda h: torch.stack([h, h * 2, -h], 1).sum(1),
    "roll": lambda: lambda h: h.roll(2, -1) + h.view(-1, 2, 3).roll((1, -1), (1, 2)).flatten(1),
    "flip": lambda: lambda h: h.flip(-1) - h.view(-1, 2, 3).flip(1, 2).flatten(1),
    "pad": lambda: lambda h: F.pad(h, (1, -1)) + F.pad(h, (-2, 2), value=0.5),
    "repeat": lambda: lambda h: h.repeat(1, 3)[:, 2:8],
    "cumsum": lambda: lambda h: h.cumsum(-1),
    "triangle": lambda: (
        lambda h: (h[:, :4].view(-1, 2, 2).tril() - h[:, :4].view(-1, 2, 2).triu(1)).flatten(1).repeat(1, 2)[:, :6]
    ),
    "any and all": lambda: lambda h: torch.where((h > 0).any(-1, keepdim=True), h, -h) * (h < 9).all(-1, keepdim=True),
    "matrices of a row": lambda: (
        lambda h: (h[:, :4].view(-1, 2, 2) @ h[:, 2:].reshape(-1, 2, 2)).flatten(1).repeat(1, 2)[:, :6]
    ),
    "diagonal": lambda: lambda h: h + h.view(-1, 2, 3).diagonal(dim1=1, dim2=2).sum(-1, keepdim=True),
    "every second": lambda: lambda h: h[:, ::2].repeat(1, 2) + h[:, 1::3].repeat(1, 3),
}


NAMES = [*LAYERS]


@pytest.mark.parametrize("names", [NAMES[start : start + 6] for start in range(0, len(NAMES), 6)], ids=", ".join)
@pytest.mark.slow
def test_layers(names):
    """Several in one vertex function; each is pushed, and part of the state."""

    def vertex(self, v):
        mixed = self.mix(v.gather(0).h) + v.gather(1).h + v.pull("x")
        results = [layer(mixed) for layer in self.layers]
        v.scatter(h=sum(results))
        v.push(**{f"y{at}": result for at, result in enumerate(results)})

    layers = nn.ModuleList(
        [each if isinstance(each, nn.Module) else Applied(each) for each in (LAYERS[name]() for name in names)]
    )
    model = FromCode(vertex, {"h": SIZE}, layers=layers, mix=nn.Linear(SIZE, SIZE))
    program = program_of(model, [vf.tree((0, 1))], x=torch.randn(3, SIZE))
    assert {"core", "grad_core", "grad_lazy"} <= {*check_parts(program)}


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.4),
        nn.AlphaDropout(0.3),
        lambda h: h + torch.randn_like(h),
    ],
)
def test_random_numbers_are_drawn_in_loops(layer):
    """How often, is for PyTorch to say; that they are the same for a seed and fresh for each row, the backend's tests do."""

    def vertex(self, v):
        h = layer(v.gather(0).h + v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)

    program = program_of(FromCode(vertex, {"h": SIZE}), [vf.chain(3)], x=torch.randn(3, SIZE))
    plan = plan_part(decomposed(program.parts["core"], program.trace))
    (statements,) = statements_of(plan)
    verify(statements)
    assert any(map(draws, statements))


class Heads(vf.VertexFunction):
    """A recurrent weight for each head, as in an sLSTM."""

    def __init__(self):
        super().__init__(state={"h": 6})
        self.recurrent = nn.Parameter(torch.randn(3, 2, 4))

    def vertex(self, v):
        h = v.gather(0).h.view(-1, 3, 2)
        gates = torch.einsum("nhk,hkm->nhm", h, self.recurrent)
        a, b = gates.chunk(2, -1)
        h = (torch.sigmoid(a) * torch.tanh(b)).flatten(1) + v.pull("x")
        v.scatter(h=h)
        v.push(h=h)


def test_a_weight_for_each_head():
    program = program_of(Heads(), [vf.chain(3)], x=torch.randn(3, 6))
    assert {"core", "grad_core", "grad_lazy_inner"} <= {*check_parts(program)}


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.cases(1)
def test_ready_made_models(name):
    animal = ZOO[name](4)
    animal.model.double()
    for function in animal.functions():
        function.backend = "torch"
    animal.model(vf.pack(animal.graphs), **animal.inputs(torch.float64))
    for function in animal.functions():
        for program in function.symbolic_graph.programs.values():
            check_parts(program)
