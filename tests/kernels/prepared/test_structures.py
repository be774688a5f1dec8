"""Runs that are written down once for a structure give, bit for bit, what the executor gives."""

from __future__ import annotations

import pytest
import torch

import vertexflow as vf
from benchmarks.zoo import ZOO
from vertexflow.kernels import autograd, native

from ...models import FromCode
from ...promises import Circuit

needs_a_compiler = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")


def both(monkeypatch, compute):
    """What is computed by the runs that are written down, and by the executor; and how many of the first there were."""
    prepared, seen = autograd.prepared_for, []

    def noted(bound, order):
        seen.append(prepared(bound, order))
        return seen[-1]

    monkeypatch.setattr(autograd, "prepared_for", noted)
    one = compute()
    monkeypatch.setattr(autograd, "prepared_for", lambda bound, order: None)
    return one, compute(), seen


def values_of(result):
    return [value for value in result.values() if isinstance(value, torch.Tensor)]


def trained(model, batch, inputs, backward):
    """Outputs, those without gradients, and all gradients."""
    model.zero_grad()
    for value in inputs.values():
        value.grad = None
    torch.manual_seed(0)  # dropout, if there is any
    outputs = values_of(model(batch, **inputs))
    backward([value for value in outputs if value.requires_grad])
    with torch.no_grad():
        again = values_of(model(batch, **inputs))
    return [*outputs, *again, *(each.grad for each in (*model.parameters(), *inputs.values()))]


def by_random(outputs):
    torch.manual_seed(1)
    torch.autograd.backward(outputs, [torch.randn(value.shape) for value in outputs])


def by_sum(outputs):
    """Gradients whose rows are all the same memory, and none for the other outputs."""
    outputs[0].sum().backward()


def by_strided(outputs):
    torch.manual_seed(1)
    torch.autograd.backward(
        outputs, [torch.randn(*reversed(value.shape)).permute(*reversed(range(value.dim()))) for value in outputs]
    )


def agree(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert (left is None and right is None) or torch.equal(left, right)


@needs_a_compiler
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.cases(1)
def test_every_model_runs_as_the_executor_runs_it(monkeypatch, name):
    animal = ZOO[name](5)
    for function in animal.functions():
        function.backend = "native"
    batch, inputs = vf.pack(animal.graphs), animal.inputs(torch.float32)
    for backward in (by_random, by_sum, by_strided):
        with monkeypatch.context() as context:
            one, other, seen = both(context, lambda by=backward: trained(animal.model, batch, inputs, by))
        agree(one, other)
        assert None not in seen


@needs_a_compiler
@pytest.mark.slow
def test_kinds_that_share_nothing_and_draw_random_numbers(monkeypatch):
    model = Circuit()
    model.backend = "native"
    graph = vf.graph(5, [(0, 2), (1, 2), (2, 3), (3, 4), (0, 4)], kind=["in", "in", "and", "not", "and"])
    batch = vf.pack([graph, vf.graph(1, [], kind=["in"])])
    inputs = {"x": torch.randn(3, 8, requires_grad=True)}
    one, other, seen = both(monkeypatch, lambda: trained(model, batch, inputs, by_random))
    agree(one, other)
    assert None not in seen


@needs_a_compiler
def test_the_same_calls_serve_other_parameters_and_inputs(monkeypatch):
    """Addresses are looked up at each run: parameters moved elsewhere, strided inputs, and after an update in place."""
    animal = ZOO["README"](4)
    animal.model.backend = "native"
    batch = vf.pack(animal.graphs)
    x = torch.randn(4, batch.num_vertices).t().requires_grad_()

    def steps():
        torch.manual_seed(2)
        values = []
        for _ in range(3):
            for parameter in animal.model.parameters():
                parameter.data = torch.randn(*reversed(parameter.shape)).permute(*reversed(range(parameter.dim())))
            values += trained(animal.model, batch, {"x": x}, by_random)
            with torch.no_grad():
                for parameter in animal.model.parameters():
                    parameter.mul_(0.5)
            values += trained(animal.model, batch, {"x": x}, by_random)
        return [value.clone() for value in values]

    one, other, seen = both(monkeypatch, steps)
    agree(one, other)
    assert len({id(each) for each in seen}) == 2  # with gradients and without


@needs_a_compiler
def test_what_users_get_is_theirs_alone():
    """Outputs and gradients have memory of their own, and stay when the model runs again."""
    animal = ZOO["LSTM"](4)
    batch, inputs = vf.pack(animal.graphs), animal.inputs(torch.float32)
    values = [*values_of(animal.model(batch, **inputs))]
    by_sum(values)
    values += [each.grad for each in (*animal.model.parameters(), *inputs.values())]
    before = [value.clone() for value in values]
    for value in values:
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
    animal.model.zero_grad()
    others = {name: torch.randn_like(value).requires_grad_() for name, value in inputs.items()}
    by_random(values_of(animal.model(batch, **others)))
    agree(values, before)


@needs_a_compiler
def test_a_tensor_of_the_vertex_function_that_is_given_other_data():
    """Of which PyTorch counts no change; native code would read it as what it was."""
    table = torch.ones(3)

    def vertex(self, v):
        v.push(y=v.pull("x") * table)

    model, x = FromCode(vertex, {}), torch.randn(1, 3)
    model.backend = "native"
    for other in (table.data, torch.full((3,), 3.0, dtype=torch.float16)):
        table.data = other
        assert torch.equal(model([vf.graph(1, [])], x=x).y, x * table)


@needs_a_compiler
def test_lazily_conjugated_numbers_that_pass_through():
    """No loop computes with them; their rows are moved as they lie in memory."""

    def vertex(self, v):
        v.push(y=2.0 * v.pull("x"), z=v.pull("z"))

    model = FromCode(vertex, {})
    model.backend = "native"
    z, coming = (torch.randn(2, 3, dtype=torch.complex64).conj() for _ in range(2))
    z.requires_grad_()
    out = model([vf.graph(1, [])] * 2, x=torch.ones(2, 3), z=z).z
    assert torch.equal(out, z)
    assert torch.equal(torch.autograd.grad(out, z, coming)[0], coming)
