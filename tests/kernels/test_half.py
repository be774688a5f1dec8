"""Half precision in native code: rounded where PyTorch rounds it, and as close to float64 as PyTorch itself is."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from hypothesis import given
from torch import nn

import vertexflow as vf

from ..agreement import expect, gradients, join, leaves_of
from ..budget import tries
from ..models import BinaryTreeLSTM, FromCode
from ..reference import run_reference
from ..strategies import SMOOTH, cases
from .triton.test_dtypes import EDGES, HALF, SIZE, TAKEN_APART, WIDER, Cell, plain, through

GRAPH = vf.graph(6, [edge[:2] for edge in EDGES], slots=[edge[2] for edge in EDGES])
OF = pytest.mark.parametrize("dtype", HALF, ids=lambda dtype: str(dtype)[6:])


def native(model, x):
    model.backend = "native"
    result = model(vf.pack([GRAPH]), x=x).result
    core = next(line for line in model.explain().splitlines() if "core:" in line)
    assert "core: native code" in core, core
    return result


def both(function, dtype):
    """What native code gives, and plain PyTorch for each vertex: the result, and gradients of the input and of a weight."""
    results = []
    for run in (native, plain):
        model = Cell(function, dtype)
        x = torch.randn(6, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x = x.to(dtype).requires_grad_()
        result = run(model, x)
        leaves = [x, model.linear.weight]
        grads = torch.autograd.grad(result.double().square().sum(), leaves, allow_unused=True)
        results.append([result, *(grad for grad in grads if grad is not None)])
    return results


@pytest.mark.parametrize("state", [torch.float32, *HALF], ids=lambda dtype: str(dtype)[6:])
@OF
@pytest.mark.cases(1)
def test_each_operation_is_rounded(dtype, state):
    """To the same bits as in PyTorch."""
    actual, expected = both(through(dtype), state)
    assert actual[0].dtype == expected[0].dtype
    assert torch.equal(actual[0], expected[0])
    close = 1e-2 if state in HALF else 1e-4
    torch.testing.assert_close(actual[1], expected[1], rtol=close, atol=close)


@pytest.mark.parametrize("given", [torch.float32, torch.float64], ids=lambda dtype: str(dtype)[6:])
@OF
@pytest.mark.cases(1)
def test_a_cast_gives_the_nearest_number(dtype, given):
    """Of two that are equally near, the even one; also of tiny and of too large numbers, and from one half precision to the
    other."""
    limits = torch.finfo(dtype)
    ones = [1 + limits.eps / 2, 1 + 1.5 * limits.eps, 1 + limits.eps / 2 * 1.01, -1 - limits.eps / 2]
    ends = [limits.max, limits.max * (1 + limits.eps / 5), limits.max * (1 + limits.eps / 2), 3e38, float("inf")]
    small = [limits.tiny * part for part in (1, 0.999, 0.37, limits.eps, limits.eps / 2, limits.eps * 1.5, 0)]
    x = torch.tensor([*ones, *ends, *small, *(-one for one in (*ends, *small)), float("nan")], dtype=given)

    def vertex(self, v):
        half = v.pull("x").to(dtype)
        v.scatter(h=v.gather(0).h + 1)
        v.push(half=half, back=half.to(given), other=half.to(next(other for other in HALF if other != dtype)))

    model = FromCode(vertex, {"h": 1})
    model.backend = "native"
    outputs = model([vf.chain(2)] * 2, x=x.expand(4, -1))
    assert "PyTorch" not in model.explain()
    half = x.to(dtype)
    for name, wanted in {"half": half, "back": half.to(given), "other": half.to(outputs.other.dtype)}.items():
        assert outputs[name].dtype == wanted.dtype
        torch.testing.assert_close(outputs[name], wanted.expand(4, -1), rtol=0, atol=0, equal_nan=True)
        assert torch.equal(outputs[name].signbit()[0, :-1], wanted.signbit()[:-1])


@OF
@pytest.mark.parametrize("name", TAKEN_APART)
@pytest.mark.cases(1)
def test_what_is_taken_apart_is_rounded_once(name, dtype):
    actual, expected = both(TAKEN_APART[name], dtype)
    unit = torch.finfo(dtype).eps
    assert actual[0].dtype == dtype
    torch.testing.assert_close(actual[0], expected[0], rtol=unit, atol=unit / 4)
    for one, other in zip(actual[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=8 * unit, atol=8 * unit)


@OF
@pytest.mark.parametrize("name", WIDER)
@pytest.mark.cases(1)
def test_wider_and_narrower_values_beside_each_other(name, dtype):
    actual, expected = both(WIDER[name], dtype)
    assert actual[0].dtype == expected[0].dtype
    close = 16 * torch.finfo(dtype).eps
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=close, atol=close)


@OF
@pytest.mark.cases(1)
def test_sums_over_children_and_over_what_parents_send_are_rounded_once(dtype):
    """Of 300 numbers 1 the sum is 300, not 256, where half precision ends to count; whatever sends gradients, slots or edges."""
    count = 300

    def vertex(self, v):
        kids, left = v.children, v.gather(0)
        total, most = v.sum(kids.h), v.max(kids.h)
        h = v.pull("x") + 0 * (total + left.h)
        v.scatter(h=h)
        v.push(total=total, most=most, left=left.h)

    model = FromCode(vertex, {"h": 3}, w=nn.Parameter(torch.zeros(1, dtype=dtype)))
    model.backend = "native"
    graphs = [
        vf.graph(count + 1, [(child, count) for child in range(count)]),
        vf.graph(count + 1, [(0, parent) for parent in range(1, count + 1)]),
    ]
    x = torch.ones(2 * count + 2, 3, dtype=dtype, requires_grad=True)
    out = model(graphs, x=x)
    assert "core: native code, over all steps" in model.explain()
    assert out.total[count].tolist() == [count] * 3
    assert out.most[: count + 2].tolist() == [[float(at == count)] * 3 for at in range(count + 2)]
    (out.total.sum() + out.left.sum()).backward()
    assert x.grad[count + 1].tolist() == [2 * count] * 3


@tries(4)
@given(cases(SMOOTH))
@pytest.mark.slow
def test_random_functions_are_as_close_to_float64_as_pytorch_is(case):
    """In bfloat16; outputs, and the gradient of everything."""
    exact, half = expect(case), in_bfloat16(case)
    half.model.backend = "native"
    plain = run_reference(half.model, *join(half.parts), half.inputs, half.reverse)
    ours = dict(half.model(vf.pack([part.graph() for part in half.parts]), reverse=half.reverse, **half.inputs))
    results = []
    for outputs in (ours, plain):
        weights = {name: weight.to(torch.bfloat16) for name, weight in exact.weights.items()}
        results.append({**outputs, **gradients(outputs, weights, leaves_of(half))} if weights else outputs)
    for name, wanted in {**exact.outputs, **exact.gradients}.items():
        if wanted is not None:
            off, allowed = ((one[name].double() - wanted).norm() for one in results)
            assert off <= 2 * allowed + 0.02 * wanted.norm(), f"{name}: {off} from float64, and PyTorch {allowed}"


def in_bfloat16(case):
    def narrower(value):
        return value.detach().to(torch.bfloat16).requires_grad_(value.requires_grad)

    inputs = {name: narrower(value) if value.is_floating_point() else value for name, value in case.inputs.items()}
    return dataclasses.replace(case, model=copy.deepcopy(case.model).to(torch.bfloat16), inputs=inputs)


def run_tree_lstm(dtype, backend, autocast=False, state_dtype=None):
    """Outputs and all gradients of one of hidden size 40, which is not a multiple of anything that products like."""
    torch.manual_seed(0)
    model = BinaryTreeLSTM(19, 40)
    model.backend, model.state_dtype = backend, state_dtype
    graphs = [vf.tree(((0, 1), (2, (3, 4)))), vf.chain(5), vf.tree((0, 1))] * 6
    x = torch.randn(sum(graph.num_vertices for graph in graphs), 19).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        h = model.to(dtype)(graphs, x=x).h
    h.double().square().sum().backward()
    return model, [h.detach(), x.grad, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize(
    ("dtype", "autocast", "state_dtype"),
    [
        (torch.bfloat16, False, None),
        (torch.bfloat16, False, {"c": torch.float32}),
        (torch.float32, True, None),
        (torch.float32, True, {"h": torch.bfloat16}),
        (torch.float16, False, None),
    ],
    ids=str,
)
@pytest.mark.cases(1)
def test_a_tree_lstm(dtype, autocast, state_dtype):
    _, exact = run_tree_lstm(torch.float64, "eager")
    _, plain = run_tree_lstm(dtype, "eager", autocast, state_dtype)
    model, ours = run_tree_lstm(dtype, "native", autocast, state_dtype)
    for one, other, wanted in zip(ours, plain, exact, strict=True):
        assert one.dtype == other.dtype
        assert (one.double() - wanted).norm() < 0.02 * wanted.norm()
    calls = [line for line in model.explain().splitlines() if "PyTorch" in line and "eager:" not in line]
    assert not calls or dtype == torch.float16, calls
