"""Native code of cores: what it computes, when it is compiled, and what happens where it cannot be."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import nn

import vertexflow as vf
from vertexflow.call import programs
from vertexflow.kernels.native import build

from ..agreement import check
from ..budget import tries
from ..models import FromCode, TreeRNN
from ..ragged import ragged_cases
from ..strategies import cases


@pytest.fixture(autouse=True)
def optimised(monkeypatch):
    """Code as users get it."""
    monkeypatch.delenv("VERTEXFLOW_CXXFLAGS", raising=False)


NATIVE = "native code, over all steps"
POINTWISE = [
    "add", "sub", "mul", "div", "gate", "linear", "linears", "relu", "joint", "tied", "split", "where", "choose", "larger",
    "scale", "squash", "transpose", "in place", "detach",
]  # fmt: skip


@tries(3)
@given(cases(POINTWISE))
def test_random_functions_of_what_native_code_has(case):
    case.model.backend = "native"
    check(case)
    if case.model.state["m"] != (3, 3):  # whose diagonal native code has not
        assert "core: calls of PyTorch:" not in case.model.explain()  # no core that native code refused


@tries(2)
@given(ragged_cases(POINTWISE))
@pytest.mark.slow
def test_random_functions_of_any_number_of_children(case):
    case.model.backend = "native"
    check(case)
    if case.model.state["m"] != (3, 3):
        assert "core: calls of PyTorch:" not in case.model.explain()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.cases(1)
def test_functions_are_those_of_pytorch(dtype):
    """Over all magnitudes, to four units in the last place (of one, for sigmoid); infinities and NaN have tests below."""
    functions = [torch.tanh, torch.sigmoid, torch.relu, torch.neg]
    powers = torch.logspace(-30, 3, 4001, dtype=torch.float64)
    special = torch.tensor([0.0, float("inf"), -float("inf"), float("nan"), 88.0, -88.0, 104.0, -104.0])
    values = torch.cat([powers, -powers, special.double()]).to(dtype)

    class Twice(vf.VertexFunction):
        """The second vertex of each chain applies each function to what the first one was given in its column."""

        def vertex(self, v):
            columns = v.gather(0).h.split(1, -1)
            after = torch.cat([function(column) for function, column in zip(functions, columns, strict=True)], -1)
            h = v.pull("first") * v.pull("x") + (1 - v.pull("first")) * after
            v.scatter(h=h)
            v.push(h=h)

    model = Twice(state={"h": len(functions)}, backend="native")
    rows = torch.zeros(2 * len(values), len(functions), dtype=dtype)
    rows[::2] = torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)[:, None]
    first = torch.zeros_like(rows)
    first[::2] = 1
    with torch.no_grad():
        actual = model([vf.chain(2)] * len(values), x=rows, first=first).h[1::2].double()
    assert f"vertex.core: {NATIVE}" in model.explain()
    for at, function in enumerate(functions):
        expected = function(rows[::2, at].double())
        scale = torch.ones_like(expected) if function is torch.sigmoid else expected.abs()
        allowed = 4 * torch.finfo(dtype).eps * scale + torch.finfo(dtype).tiny
        assert ((actual[:, at] - expected).abs() <= allowed).all(), function


def test_infinities_and_nan_go_through():
    def vertex(self, v):
        h = v.gather(0).h + v.pull("x")
        g = torch.tanh(h) + 2 * torch.sigmoid(h) + 4 * torch.relu(h)
        v.scatter(h=g)
        v.push(g=g)

    values = torch.tensor([float("inf"), -float("inf"), float("nan"), 1e30, -1e30, 1e-40])
    model, results = FromCode(vertex, {"h": 1}), []
    x = torch.zeros(2 * len(values), 1)
    x[::2, 0] = values
    for model.backend in ("native", "torch"):
        with torch.no_grad():
            results.append(model([vf.chain(2)] * len(values), x=x).g)
    torch.testing.assert_close(*results, equal_nan=True)


@pytest.mark.slow
def test_nan_of_any_bits_stays_nan():
    def vertex(self, v):
        one, two, three = (v.gather(0).h + v.pull("x")).split(1, -1)
        h = torch.cat([torch.tanh(one), torch.sigmoid(two), nn.functional.silu(three)], -1)
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 3})
    model.backend = "native"
    bits = torch.arange(0x7FC00000, 0x7FC00200, dtype=torch.int32)
    with torch.no_grad():
        outputs = model([vf.chain(1)] * len(bits), x=bits.view(torch.float32)[:, None].repeat(1, 3)).h
    assert outputs.isnan().all()


@pytest.mark.slow
def test_both_backends_agree_in_float32():
    torch.manual_seed(0)
    batch = vf.pack([vf.tree(((0, 1), (2, 3))), vf.chain(7), vf.tree((((0, 1), 2), 3))])
    x = torch.randn(batch.num_vertices, 20, requires_grad=True)
    results = []
    model = TreeRNN(20, 33)  # no multiple of what a register holds
    for model.backend in ("torch", "native"):
        out = model(batch, x=x).h
        grads = torch.autograd.grad(out.square().sum(), [x, *model.parameters()])
        results.append([out, *grads])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
def test_clamping():
    def vertex(self, v):
        both, below, above = (v.pull("x") + v.gather(0).h).split(3, -1)
        h = torch.cat([both.clamp(-0.5, 0.5), below.clamp(None, 0.1), above.clamp(0.1)], -1)
        v.scatter(h=h)
        v.push(h=h)

    x = torch.randn(8, 9, dtype=torch.float64, requires_grad=True)
    model, outs = FromCode(vertex, {"h": 9}), []
    for model.backend in ("torch", "native"):
        outs.append(model([vf.chain(8)], x=x).h)
    assert "calls of PyTorch:" not in model.explain()
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*(torch.autograd.grad(out.square().sum(), x)[0] for out in outs))


@pytest.mark.slow
def test_two_runs_give_the_same_bits():
    model = TreeRNN(64, 64)
    model.backend = "native"
    batch = vf.pack([vf.tree((((0, 1), 2), (3, 4)))] * 50)
    x = torch.randn(batch.num_vertices, 64)
    runs = [torch.autograd.grad(model(batch, x=x).h.sum(), list(model.parameters())) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


def test_a_weight_that_is_a_view_is_read_as_it_is():
    def vertex(self, v):
        h = torch.tanh(v.pull("x") + F.linear(v.gather(0).h, self.weight))
        v.scatter(h=h)
        v.push(h=h)

    model, x, results = FromCode(vertex, {"h": 5}, weight=nn.Parameter(torch.randn(5, 5).t())), torch.randn(6, 5), []
    assert not model.weight.is_contiguous()
    for model.backend in ("native", "torch"):
        results.append(model([vf.chain(6)], x=x).h)
    torch.testing.assert_close(*results)


def test_what_native_code_has_not_runs_through_pytorch_and_is_explained():
    def vertex(self, v):
        h = torch.sort(torch.tanh(v.pull("x") + v.gather(0).h), -1).values
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 3})
    model.backend = "native"
    with pytest.raises(vf.VertexFunctionError, match="nothing to explain yet"):
        model.explain()
    model([vf.chain(3)], x=torch.randn(3, 3, requires_grad=True)).h.sum().backward()
    line = vertex.__code__.co_firstlineno + 1
    assert f"vertex.core: calls of PyTorch: sort is made by aten.sort.default (line {line})" in model.explain()


@pytest.mark.slow
def test_random_numbers_are_fresh_for_each_vertex_and_call_and_the_same_for_a_seed():
    def vertex(self, v):
        h = self.drop(v.gather(0).h * 0 + v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 64}, drop=nn.Dropout(0.3))
    model.backend = "native"
    batch, x = vf.pack([vf.chain(20)] * 10), torch.ones(200, 64, requires_grad=True)

    def drawn(seed):
        torch.manual_seed(seed)
        return [model(batch, x=x).h for _ in range(2)]

    (first, second), (again, _) = drawn(0), drawn(0)
    assert "core: calls of PyTorch" not in model.explain()
    assert torch.equal(first, again)
    for one, other in [(first, second), (first, drawn(1)[0]), *itertools.pairwise(first.split(1))]:
        assert 0.2 < ((one == 0) != (other == 0)).float().mean() < 0.65  # 0.42 where they are independent
    torch.testing.assert_close(first.detach().unique(), torch.tensor([0.0, 1 / 0.7]))
    assert abs((first == 0).float().mean() - 0.3) < 0.02
    assert torch.equal(torch.autograd.grad(first.sum(), x)[0], first.detach())  # the same in the backward pass
    assert torch.equal(model.eval()(batch, x=x).h, x)


def test_a_division_of_integers_by_zero_is_refused_as_by_pytorch_and_nothing_crashes():
    def vertex(self, v):
        n = v.gather(0).n + 3
        v.scatter(n=torch.remainder(n, v.pull("by")))
        v.push(n=n, thirds=torch.div(n, 3, rounding_mode="floor"))

    model = FromCode(vertex, {"n": 2})
    model.state_dtype = {"n": torch.int64}
    model.backend = "native"
    assert model([vf.chain(3)], by=torch.full((3, 2), 2)).thirds.tolist() == [[1, 1]] * 3
    with pytest.raises(vf.VertexFlowError, match="ZeroDivisionError"):
        model([vf.chain(3)], by=torch.tensor([[1, 1], [0, 1], [1, 1]]))


CHECKED = {  # by PyTorch, which raises an error
    "bernoulli": lambda p: torch.bernoulli(p),
    "binary_cross_entropy": lambda p: F.binary_cross_entropy(p, p.detach() * 0, reduction="none"),
}


@pytest.mark.parametrize("name", CHECKED)
def test_what_pytorch_checks_is_checked(name):
    def vertex(self, v):
        h = CHECKED[name](v.gather(0).h * 0 + v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 2})
    model.backend = "native"
    model([vf.chain(2)], x=torch.full((2, 2), 0.5))
    with pytest.raises(vf.VertexFlowError, match=r"between 0 and 1|p_in >= 0"):
        model([vf.chain(2)], x=torch.full((2, 2), 2.0))


def test_powers_of_integers_are_those_of_pytorch():
    """A floating point power has 53 bits only."""

    def vertex(self, v):
        n = torch.pow(v.gather(0).n + v.pull("by"), v.pull("by"))
        v.scatter(n=n)
        v.push(n=n)

    model = FromCode(vertex, {"n": 1})
    model.state_dtype = {"n": torch.int64}
    model.backend = "native"
    by = torch.full((2, 1), 19)
    assert model([vf.chain(1)] * 2, by=by).n.tolist() == (by**by).tolist()


@pytest.mark.slow
def test_code_is_compiled_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("VERTEXFLOW_CACHE", str(tmp_path))
    times = []
    for _ in range(2):
        model = TreeRNN(3, 7)
        model.backend = "native"
        model([vf.chain(3)], x=torch.randn(3, 3))
        times.append(sorted(path.stat().st_mtime_ns for path in tmp_path.iterdir()))
    assert len(times[0]) == 4  # matrix products, what moves rows, what knows of other processes, and what calls them
    assert times[0] == times[1]


@pytest.mark.slow
def test_code_that_one_process_compiled_another_one_reads(monkeypatch, tmp_path):
    monkeypatch.setenv("VERTEXFLOW_CACHE", str(tmp_path))
    code = textwrap.dedent("""
        import torch, vertexflow as vf
        from tests.models import TreeRNN
        model = TreeRNN(3, 7)
        model.backend = "native"
        model([vf.chain(3)], x=torch.randn(3, 3))
    """)
    exec(code)
    times = sorted(path.stat().st_mtime_ns for path in tmp_path.iterdir())
    assert len(times) == 4  # of the model, of products, of what moves rows, of how threads wait
    settings = {**os.environ, "CXX": build.compiler(), "PYTHONPATH": "."}
    subprocess.run([sys.executable, "-c", code], check=True, env=settings)
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.iterdir()) == times


@pytest.mark.slow
def test_without_a_folder_to_keep_it_in(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("VERTEXFLOW_CACHE", str(blocked))

    def vertex(self, v):  # without a product, whose code takes longest to compile
        h = torch.tanh(v.gather(0).h + v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 3})
    model.backend = "native"
    model([vf.chain(3)], x=torch.randn(3, 3))
    assert NATIVE in model.explain()


def test_without_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    programs._say_that_there_is_no_compiler.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        for backend in ("torch", "auto", "auto"):
            warnings.simplefilter("always")
            model = TreeRNN(3, 4)
            model.backend = backend
            model([vf.chain(3)], x=torch.randn(3, 3))
            assert NATIVE not in model.explain()
            assert len(caught) == (backend == "auto")  # said once, to those who have not asked for it
    assert caught[0].category is vf.SlowCoreWarning
    assert "there is no C++ compiler" in str(caught[0].message)
    assert 'backend "auto" is "torch"' in str(caught[0].message)
    model.backend = "native"
    with pytest.raises(vf.BackendError, match=r"needs a C\+\+ compiler"):
        model([vf.chain(3)], x=torch.randn(3, 3))


def test_a_compiler_that_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("VERTEXFLOW_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    model = TreeRNN(3, 4)
    model.backend = "native"
    with pytest.raises(vf.BackendError, match="false could not compile"):
        model([vf.chain(3)], x=torch.randn(3, 3))
    assert list(tmp_path.iterdir()) == []
