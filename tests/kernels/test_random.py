"""Random numbers drawn in loops: distributed as PyTorch's, the same for a seed, others for each row and each draw."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import vertexflow as vf
from vertexflow.kernels.lower.decompositions import table

from ..models import FromCode

aten = torch.ops.aten
SIZE = 40
DRAWS = {  # of a value that is 0.5 everywhere: what is drawn, and its distribution function
    "uniform": (lambda h: torch.empty_like(h).uniform_(-2, 3), lambda y: ((y + 2) / 5).clamp(0, 1)),
    "normal": (lambda h: torch.empty_like(h).normal_(1, 2), lambda y: torch.special.ndtr((y - 1) / 2)),
    "around": (lambda h: torch.normal(h.detach(), 2.0), lambda y: torch.special.ndtr((y - 0.5) / 2)),
    "of sizes": (lambda h: torch.randn(h.shape[0], SIZE, dtype=h.dtype), torch.special.ndtr),
    "normal of sizes": (
        lambda h: torch.normal(1.0, 2.0, (h.shape[0], SIZE), dtype=h.dtype),
        lambda y: torch.special.ndtr((y - 1) / 2),
    ),
    "rsample": (lambda h: torch.distributions.Normal(h, 2.0).rsample(), lambda y: torch.special.ndtr((y - 0.5) / 2)),
    "exponential": (lambda h: torch.empty_like(h).exponential_(2.0), lambda y: 1 - torch.exp(-2 * y)),
    "rrelu": (lambda h: F.rrelu(h - 1.5, 0.2, 0.4, training=True), lambda y: ((y + 0.4) / 0.2).clamp(0, 1)),
}


def drawing(functions):
    def vertex(self, v):
        h = (v.gather(0).h + v.pull("x")) * 0.5
        results = [function(h) for function in functions]
        v.scatter(h=h * 0 + 0.5 + 0 * sum(result.clamp(-1, 1) for result in results))
        v.push(**{f"y{at}": result for at, result in enumerate(results)})

    return FromCode(vertex, {"h": SIZE}).double()


@pytest.mark.parametrize("backend", ["torch", "native", "triton"])
@pytest.mark.slow
def test_numbers_are_distributed_as_they_should_be(backend, request):
    """By the largest distance between distribution functions, whose own distribution Kolmogorov found (1933)."""
    if backend == "triton":
        request.getfixturevalue("interpreter")
    model = drawing([draw for draw, _ in DRAWS.values()])
    model.backend = backend
    length, count = (2, 20) if backend == "triton" else (4, 200)  # the interpreter is slow
    x = torch.full((length * count, SIZE), 0.5, dtype=torch.float64)
    x[::length] = 1
    torch.manual_seed(0)
    graphs = [vf.chain(length)] * count
    out, again = model(graphs, x=x), model(graphs, x=x)
    torch.manual_seed(0)
    same = model(graphs, x=x)
    if backend != "torch":
        cores = [line for line in model.explain().splitlines() if "core" in line]
        assert not [line for line in cores if "calls of PyTorch" in line]
    for at, (name, (_, distribution)) in enumerate(DRAWS.items()):
        y = out[f"y{at}"]
        assert torch.equal(y, same[f"y{at}"])
        assert not torch.isclose(y, again[f"y{at}"], rtol=0, atol=0).any() or name == "rrelu"
        ordered = distribution(y.flatten().sort().values)
        distance = (ordered - torch.linspace(0, 1, len(ordered), dtype=y.dtype)).abs().max()
        assert distance < 2.2 / math.sqrt(len(ordered)), f"{name}: {distance}"  # once in 8000 times
        one, other = y[::2].flatten(), y[1::2].flatten()
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 5 / math.sqrt(len(one)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_what_is_made_of_the_least_and_the_largest_number_is_finite(number, dtype, monkeypatch):
    """Of 24 bits, each comes once in 16 million times: logarithms of it are no infinity, and those of these neither."""
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, number))
    x = torch.zeros(1, dtype=dtype)
    exponential = table()[aten.exponential.default](x, 0.5)
    assert exponential > 0
    assert exponential.log().isfinite()
    assert exponential.isfinite()
    assert table()[aten.randn_like.default](x).isfinite()
    assert -2 <= table()[aten.uniform.default](x, -2, 3) < 3


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: x.uniform_(3, -2),
        lambda x: x.normal_(0, -1),
        lambda x: x.exponential_(-1),
        lambda x: torch.normal(x, -x.abs() - 1),
    ],
)
@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.cases(1)
def test_what_pytorch_refuses_is_refused(draw, backend):
    def vertex(self, v):
        h = v.gather(0).h + v.pull("x")
        v.scatter(h=torch.tanh(h) + draw(h.detach().clone()))

    model = FromCode(vertex, {"h": 3})
    model.backend = backend
    with pytest.raises(vf.VertexFlowError):
        model([vf.chain(2)], x=torch.ones(2, 3))
