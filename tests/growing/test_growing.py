"""Runs that grow give what whole runs give, extension by extension: native calls prepared for a shape, and other backends."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf

from ..agreement import TOLERANCE
from ..models import BinaryTreeLSTM, FromCode

BACKENDS = ["native", "torch"]


def tables(rng, counts, slots=2):
    """The children of new vertices, extension after extension: earlier ones, some missing, and some of the same extension."""
    start, result = 0, []
    for number, count in enumerate(counts):
        table = rng.integers(-1, start, (count, slots)) if start else np.full((count, slots), -1)
        if number % 3 == 2:  # from the second row on, children may be new
            for row in range(1, count):
                table[row, row % slots] = start + rng.integers(0, row)
        if number % 3 == 2 and count > 2:  # numbers that are no order of computation
            first, last = start + 1, start + count - 1
            renamed = np.where(table == first, last, np.where(table == last, first, table))
            renamed[[1, -1]] = renamed[[-1, 1]]
            table = renamed
        result.append(table)
        start += count
    return result


def whole_graph(pieces):
    edges = [
        (child, base + row, slot)
        for base, table in zip(np.cumsum([0, *map(len, pieces)]), pieces, strict=False)
        for row, children in enumerate(table.tolist())
        for slot, child in enumerate(children)
        if child >= 0
    ]
    return vf.graph(sum(map(len, pieces)), [edge[:2] for edge in edges], slots=[edge[2] for edge in edges])


def gradients(loss, model, *inputs):
    return torch.autograd.grad(loss, [*model.parameters(), *inputs], allow_unused=True)


def agree(ours, expected):
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


def children_and_edges(self, v):
    """Slots, all children, and a row an edge."""
    kids = v.children
    weight = v.softmax((kids.h * kids.expand(v.pull("x"))).sum(-1))
    h = torch.tanh(
        self.linear(v.pull("x"))
        + v.gather(1).h
        + v.sum(weight.unsqueeze(-1) * kids.h) / (1 + v.num_children).unsqueeze(-1)
    )
    v.scatter(h=h)
    v.push(h=h)


def models():
    yield BinaryTreeLSTM(4, 4)
    yield FromCode(children_and_edges, {"h": 4}, linear=nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("number", "backend"), [(0, "native"), (0, "torch"), (0, "triton"), (1, "native"), (1, "torch")]
)
@pytest.mark.cases(1)
def test_extensions_give_what_the_whole_graph_gives(number, backend):
    rng = np.random.default_rng(number)
    pieces = tables(rng, [3, 3, 4, 3] if backend == "triton" else [3, 3, 4, 3, 5, 1, 3])
    torch.manual_seed(number)
    model = list(models())[number].double()
    x = torch.randn(sum(map(len, pieces)), 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(x), 4, dtype=torch.float64)
    model.backend = "eager"
    expected = model([whole_graph(pieces)], x=x).h
    model.backend = backend
    run, start, losses = model.start(), 0, []
    for at, table in enumerate(pieces):
        new = run.extend(table, x=x[start : start + len(table)])
        if at % 2:  # what is read in between takes part in the loss
            losses.append((run[new].h * weights[new]).sum())
        start += len(table)
    torch.testing.assert_close(run[:].h, expected, **TOLERANCE)
    rest = torch.tensor([v for v in range(len(x)) if all(v not in range(*part) for part in read_early(pieces))])
    loss = sum(losses) + (run[rest].h * weights[rest]).sum()
    agree(gradients(loss, model, x), gradients((expected * weights).sum(), model, x))


def read_early(pieces):
    bounds = np.cumsum([0, *map(len, pieces)]).tolist()
    return [(bounds[at], bounds[at + 1]) for at in range(1, len(pieces), 2)]


def test_native_extensions_are_prepared_once_for_a_shape():
    model = BinaryTreeLSTM(4, 4).double()
    model.backend = "native"
    run = model.start(x=torch.randn(4, 4, dtype=torch.float64))
    for left in range(20):
        run.extend([[left, left + 1], [-1, left + 2]], x=torch.randn(2, 4, dtype=torch.float64))
    run[:].h.sum().backward()
    assert len(model._programs.orders) == 2  # of leaves, and of two vertices that read earlier ones
    bounds = {id(bound): bound for version in model._programs.versions.values() for bound, _ in version.bound.values()}
    assert all(bound.extends_natively for bound in bounds.values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_runs_side_by_side_and_branches_that_nobody_reads(backend):
    model = BinaryTreeLSTM(4, 4).double()
    model.backend = backend
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    alone = model.start(x=x)
    alone.extend([[0, 1]])
    alone.extend([[3, 2]])
    expected = gradients(alone[4].h.square().sum(), model, x)
    one, other = model.start(x=x), model.start(x=x.detach())
    one.extend([[0, 1]])
    other.extend([[2, 2], [1, 0]])
    one.extend([[0, 2], [1, 1]])  # dropped
    new = one.extend([[3, 2]])
    other.extend([[3, 4]])
    loss = one[new].h.square().sum() + 0 * other[:].h.sum()
    for _ in range(2):
        agree(torch.autograd.grad(loss, [*model.parameters(), x], retain_graph=True), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_what_is_added_without_gradients_is_a_constant(backend):
    """The vertices around it keep theirs."""
    model = BinaryTreeLSTM(4, 4).double()
    model.backend = backend
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    run = model.start(x=x)
    with torch.no_grad():
        run.extend([[0, 1], [1, 2]])
    run.extend([[0, 3], [2, 2]])
    ours = gradients(run[[5, 6, 0]].h.square().sum(), model, x)

    constants = model.start(x=x.detach())
    constants.extend([[0, 1]])
    h3, c3 = constants._grown.states["h"][4].clone(), constants._grown.states["c"][4].clone()
    zeros = torch.zeros(4, dtype=torch.float64)

    def cell(row, left, right):
        i, o, u, fl, fr = model.u(torch.cat([left[0], right[0]])).chunk(5)
        xi, xo, xu = model.w(row).chunk(3)
        c = torch.sigmoid(i + xi) * torch.tanh(u + xu) + torch.sigmoid(fl) * left[1] + torch.sigmoid(fr) * right[1]
        return torch.sigmoid(o + xo) * torch.tanh(c), c

    first, _, third = (cell(row, (zeros, zeros), (zeros, zeros)) for row in x)
    fifth, sixth = cell(zeros, first, (h3, c3)), cell(zeros, third, third)
    loss = sum(h.square().sum() for h, _ in (fifth, sixth, first))
    agree(ours, gradients(loss, model, x))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_is_drawn_anew_and_kept_for_the_backward_pass(backend):
    def vertex(self, v):
        h = self.drop(torch.tanh(self.linear(v.pull("x")) + v.gather(0).h))
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 4}, linear=nn.Linear(4, 4), drop=nn.Dropout(0.5)).double()
    model.backend = backend
    x = torch.ones(8, 4, dtype=torch.float64, requires_grad=True)
    run = model.start(x=x)
    before = np.arange(8)
    for _ in range(2):
        before = run.extend(before[:, None], x=x.detach())
    last = run[before].h
    assert not torch.equal(run[8:16].h != 0, last != 0)
    once, again = (torch.autograd.grad(last.sum(), x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, again)
    kept = run[:].h.detach().view(3, 8, 4)
    alive = torch.tanh(model.linear(x))  # of what was kept, each pass doubles
    expected = torch.autograd.grad(alive, x, self_gradient(model, x, kept))[0]
    torch.testing.assert_close(once, expected, **TOLERANCE)


def self_gradient(model, x, kept):
    """The gradient of the first value before dropout, by hand: through tanh and the masks of three extensions."""
    grad = torch.ones_like(kept[0])
    for now, before in ((2, 1), (1, 0)):
        inner = model.linear(x).detach() + kept[before]
        grad = grad * 2 * (kept[now] != 0) * (1 - torch.tanh(inner).square())
    return grad * 2 * (kept[0] != 0)


def test_a_parameter_changed_before_backward_is_refused():
    model = BinaryTreeLSTM(4, 4)
    model.backend = "native"
    run = model.start(x=torch.randn(3, 4))
    run.extend([[0, 1]])
    with torch.no_grad():
        model.u.weight.add_(1)
    run.extend([[3, 2]])  # sees the change
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        run[:].h.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.slow
def test_fewer_digits(dtype):
    torch.manual_seed(1)
    model = BinaryTreeLSTM(4, 4)
    x = torch.randn(3, 4)
    results = []
    for one in (model.double(), copy.deepcopy(model).to(dtype)):
        run = one.start(x=x.to(next(one.parameters()).dtype))
        run.extend([[0, 1]])
        run.extend([[3, 2], [1, 1]])
        h = run[:].h
        results.append([h, *gradients(h.float().square().sum() if dtype != torch.float32 else h.square().sum(), one)])
    for ours, exact in zip(results[1], results[0], strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(
            ours.double(), exact.double(), rtol=0.05, atol=0.05 if dtype == torch.bfloat16 else 1e-5
        )


@pytest.mark.slow
def test_many_vertices_at_once_and_buffers_that_grow():
    model = BinaryTreeLSTM(4, 64)
    x = torch.randn(9000, 4, requires_grad=True)
    run = model.start(x=x)
    pairs = np.arange(9000).reshape(-1, 2)
    new = run.extend(pairs)
    run.extend(new.numpy().reshape(-1, 2))
    graph = vf.graph(len(run), np.stack([np.arange(13500), np.repeat(np.arange(9000, 15750), 2)]))
    inputs = torch.cat([x, torch.zeros(len(run) - 9000, 4)])
    whole = model([graph], x=inputs).h
    torch.testing.assert_close(run[:].h, whole, rtol=1e-5, atol=1e-5)
    for ours, expected in zip(
        gradients(run[13500:].h.mean(), model, x), gradients(whole[13500:].mean(), model, x), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_a_model_whose_states_or_outputs_have_changed_is_refused(backend):
    """Rows of two dtypes, or outputs that only some vertices have, cannot lie in one buffer."""

    def vertex(self, v):
        h = torch.tanh(self.linear(v.pull("x")) + v.gather(0).h)
        v.scatter(h=h)
        v.push(**dict.fromkeys(self.names, h))

    model = FromCode(vertex, {"h": 4}, linear=nn.Linear(4, 4), names=["h"])
    model.backend = backend
    run = model.start(x=torch.randn(3, 4))
    model.double()
    with pytest.raises(
        vf.VertexFunctionError, match=r"state 'h' of the new vertices is float64 \[4\], .* begin another run"
    ):
        run.extend([[0]], x=torch.randn(1, 4).double())
    assert len(run) == 3
    model.float()
    run.extend([[0]])
    model.names = ["h", "again"]
    with pytest.raises(vf.VertexFunctionError, match="push the same always"):
        run.extend([[0]])
    assert len(run) == 4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_a_backward_pass_during_another_one_of_the_same_run(backend):
    """As in a hook, or in another thread: each has gradients of its own, which go with it."""
    model = BinaryTreeLSTM(4, 4).double()
    model.backend = backend
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    run = model.start(x=x)
    run.extend([[0, 1], [1, 2]])
    early = run[[3, 4]].h
    run.extend([[3, 4]])
    loss, other = early.square().sum() + run[5].h.sum(), run[:].h.sum()
    wanted = [*model.parameters(), x]
    expected = torch.autograd.grad(loss, wanted, retain_graph=True)
    expected_of_other, seen = torch.autograd.grad(other, wanted, retain_graph=True), []
    early.register_hook(lambda _: seen.append(torch.autograd.grad(other, wanted, retain_graph=True)))
    agree(torch.autograd.grad(loss, wanted, retain_graph=True), expected)
    agree(seen[0], expected_of_other)
    assert not run._grown.gradients._of_calls


@pytest.mark.parametrize("backend", ["native", "torch", "eager"])
@pytest.mark.cases(2)
def test_what_changes_between_extensions_of_one_shape_is_seen(backend):
    """A frozen parameter, an input that requires grad, another parameter, an attribute; and wrong rows are refused."""

    def vertex(self, v):
        h = torch.tanh(self.linear(v.pull("x")) * self.scale + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 4}, linear=nn.Linear(4, 4), scale=1.0).double()
    model.backend = backend
    x = torch.randn(7, 2, 4, dtype=torch.float64)
    wanted = x[4].clone().requires_grad_()
    run, plain, h = model.start(), [], torch.zeros(2, 4, dtype=torch.float64)
    weights = [model.linear.weight]
    for step in range(7):
        rows = wanted if step == 4 else x[step]
        model.linear.weight.requires_grad_(step != 2)
        if step == 3:
            model.scale = 0.5
        if step == 5:
            model.linear.weight = nn.Parameter(model.linear.weight.detach() * 2)
            weights.append(model.linear.weight)
        h = torch.tanh(model.linear(rows) * model.scale + h)
        plain.append(h)
        run.extend([[-1], [-1]] if step == 0 else [[2 * step - 2], [2 * step - 1]], x=rows)
        with pytest.raises(vf.InputError, match="input 'x' has 3 rows, but the extension has 2 vertices"):
            run.extend([[0], [0]], x=torch.zeros(3, 4, dtype=torch.float64))
    ours = run[:].h
    torch.testing.assert_close(ours, torch.cat(plain), **TOLERANCE)
    leaves = [*weights, model.linear.bias, wanted]
    agree(torch.autograd.grad(ours.sin().sum(), leaves), torch.autograd.grad(torch.cat(plain).sin().sum(), leaves))
