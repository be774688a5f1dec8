"""Operations that loops do not know: PyTorch is called for them between two loops of a step, and the rest stays in loops."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vertexflow as vf

from ...agreement import check
from ...models import FromCode
from ...strategies import PARTS, ROWS, Case

SIZE = 4


LOOPS = {"native": "native code", "triton": "Triton kernels"}
BACKENDS = ["torch", *LOOPS]
pytestmark = pytest.mark.usefixtures("interpreter")


def check_cut(case: Case, backends: Sequence[str] = BACKENDS) -> None:
    """These backends against the reference; those with loops have cut the core."""
    expected = None
    for backend in backends:
        expected = check(case, backend, expected=expected)
        if backend in LOOPS:
            assert f"core: {LOOPS[backend]}, with calls of PyTorch in each step" in case.model.explain()
            assert "core: calls of PyTorch:" not in case.model.explain()


def given() -> dict[str, torch.Tensor]:
    return {"x": torch.randn(ROWS, SIZE, dtype=torch.float64, requires_grad=True)}


def both(v):
    """The sums of the states of two children, and the input."""
    left, right = v.gather(0), v.gather(1)
    return left.h + right.h, left.c + right.c, v.pull("x")


def finish(v, h, **outputs):
    v.scatter(h=torch.tanh(h), c=torch.sin(h))
    v.push(h=h, **outputs)


def in_the_middle(self, v):
    h, c, x = both(v)
    values, places = (self.u(h) + x).sort(-1)
    finish(v, torch.sigmoid(values) * c + places * torch.exp(-c * c))


def of_what_is_gathered(self, v):
    left, right = v.gather(0), v.gather(1)
    values, _ = left.h.sort(-1)
    finish(v, self.u(right.h) * values + v.pull("x"), sorted=values)


def of_columns_of_what_is_gathered(self, v):
    left, right = v.gather(0), v.gather(1)
    values = left.h[:, 1:].sort(-1).values
    finish(v, torch.cat([self.u(right.h)[:, :1], values * torch.tanh(right.c[:, :3])], -1) + v.pull("x"))


def one_behind_the_other(self, v):
    h, c, x = both(v)
    values = (self.u(h) + x).sort(-1).values.flip(-1)[:, 1:].topk(3, -1).values
    finish(v, F.pad(values, (0, 1)) + torch.sigmoid(c) * torch.tanh(x + h))


def at_two_levels(self, v):
    h, c, x = both(v)
    first = self.u(h + x).sort(-1).values
    second = self.u(torch.tanh(first)).sort(-1).values
    finish(v, (first * second).cummin(-1).values + torch.sigmoid(c + x) * first)


def of_matrices(self, v):
    h, c, x = both(v)
    a = (torch.tanh(h) * x).view(-1, 2, 2)
    factor = torch.linalg.cholesky(a @ a.transpose(1, 2) + 2 * self.identity)
    finish(v, factor.reshape(-1, SIZE) * torch.sigmoid(self.u(c)))


def with_a_parameter(self, v):
    h, c, x = both(v)
    rows = F.embedding((self.u(h) + x).argsort(-1)[:, 0], self.table)
    finish(v, rows * torch.sigmoid(c) + torch.tanh(x * h))


def of_rows_that_are_not_in_front(self, v):
    h, c, x = both(v)
    values = torch.stack([self.u(h), x, torch.tanh(c)]).sort(0).values
    finish(v, values[0] * torch.sigmoid(values[2]) + values[1])


def of_several_entries_a_row(self, v):
    h, c, x = both(v)
    values = torch.stack([self.u(h), x], 1).view(-1, SIZE).sort(-1).values
    finish(v, values.view(-1, 2, SIZE).sum(1) * torch.sigmoid(c))


def read_as_a_view(self, v):
    h, c, x = both(v)
    values = (self.u(h) * x).sort(-1).values
    finish(v, self.u(values.view(-1, 2, 2).transpose(1, 2).reshape(-1, SIZE)) + torch.sin(c))


def in_half_precision(self, v):
    h, c, x = both(v)
    half = (torch.tanh(h) + x).half().sort(-1).values.double()
    finish(v, torch.sigmoid(c) * torch.tanh(self.u(h + c)) * torch.exp(-c * c) + half.detach())


def whose_results_are_read_by_calls_alone(self, v):
    h, c, x = both(v)
    first, other = (self.u(h) + x).sort(-1).values, (c + x).sort(-1).values
    second = other.scatter_add(1, (torch.sin(first) > 0).long(), torch.cos(first))  # nothing else reads `other`
    finish(v, second * torch.sigmoid(c) + torch.tanh(x * h))


VERTICES = [
    in_the_middle, of_what_is_gathered, of_columns_of_what_is_gathered, one_behind_the_other, at_two_levels, of_matrices,
    with_a_parameter, of_rows_that_are_not_in_front, of_several_entries_a_row, read_as_a_view, in_half_precision,
    whose_results_are_read_by_calls_alone,
]  # fmt: skip


IN_TRITON = [in_the_middle, at_two_levels, with_a_parameter, whose_results_are_read_by_calls_alone]


@pytest.mark.parametrize(
    ("vertex", "backends"),
    [
        *((vertex, BACKENDS if vertex in IN_TRITON else ["torch", "native"]) for vertex in VERTICES),
        *(pytest.param(vertex, ["triton"], marks=pytest.mark.slow) for vertex in VERTICES if vertex not in IN_TRITON),
    ],
    ids=lambda value: getattr(value, "__name__", ", ".join(value) if isinstance(value, list) else None),
)
@pytest.mark.cases(1)
def test_a_core_around_calls(vertex, backends):
    torch.manual_seed(1)
    parts = {
        "u": nn.Linear(SIZE, SIZE),
        "table": nn.Parameter(torch.randn(SIZE, SIZE)),
        "identity": torch.eye(2),
    }
    model = FromCode(vertex, {"h": SIZE, "c": SIZE}, **parts).double()
    check_cut(Case(model, PARTS, given()), backends=backends)


@pytest.mark.slow
def test_against_the_edges():
    model = FromCode(at_two_levels, {"h": SIZE, "c": SIZE}, u=nn.Linear(SIZE, SIZE)).double()
    check_cut(Case(model, PARTS, given(), reverse=True))


def of_edges(self, v):
    kids = v.children
    values = (self.u(kids.h) * kids.expand(v.pull("x"))).sort(-1).values
    finish(v, v.sum(torch.tanh(values) * kids.c) + v.max(values) + v.pull("x"))


def of_a_sum_over_edges(self, v):
    kids = v.children
    values = self.u(v.sum(kids.h)).sort(-1).values
    finish(v, v.sum(torch.sigmoid(kids.expand(values)) * kids.c) + v.pull("x"))


@pytest.mark.parametrize("vertex", [of_edges, of_a_sum_over_edges], ids=lambda vertex: vertex.__name__)
@pytest.mark.slow
def test_a_core_around_calls_on_edges(vertex):
    torch.manual_seed(1)
    check_cut(Case(FromCode(vertex, {"h": SIZE, "c": SIZE}, u=nn.Linear(SIZE, SIZE)).double(), PARTS, given()))


@pytest.mark.slow
def test_what_vertices_with_children_alone_need_pytorch_for():
    """The variant for leaves is cut in other places than the core, or nowhere."""

    def only_inner(self, v):
        h, c, x = both(v)
        finish(v, self.u(h).sort(-1).values * torch.sigmoid(c) + torch.tanh(x * c))

    u = nn.Linear(SIZE, SIZE, bias=False)
    check_cut(Case(FromCode(only_inner, {"h": SIZE, "c": SIZE}, u=u).double(), PARTS, given()))


@pytest.mark.slow
def test_an_error_of_a_call_names_the_line():
    def factor(self, v):
        h, c, x = both(v)
        a = torch.diag_embed(torch.tanh(x) + h)
        finish(v, torch.linalg.cholesky(a).sum(-1) * torch.sigmoid(self.u(c)))

    model = FromCode(factor, {"h": SIZE, "c": SIZE}, u=nn.Linear(SIZE, SIZE)).double()
    for backend in BACKENDS:
        model.backend = backend
        with pytest.raises(vf.VertexFlowError, match=r"not positive-definite(.|\n)*torch\.linalg\.cholesky\(a\)"):
            model([part.graph() for part in PARTS], x=-torch.ones(ROWS, SIZE, dtype=torch.float64))


@pytest.mark.slow
def test_a_product_in_another_dtype_than_the_states():
    """Native products are of one dtype, that of the widest state; those of float32 beside it are calls, weight gradients, too."""

    def vertex(self, v):
        h, c, x = both(v)
        narrow = self.narrow(torch.tanh(h).float()).double()
        finish(v, narrow * torch.sigmoid(self.u(c + x)) + torch.exp(-c * c) * x)

    narrow = nn.Linear(SIZE, SIZE)
    outs = {}
    for backend in ("torch", "native"):
        torch.manual_seed(0)
        model = FromCode(vertex, {"h": SIZE, "c": SIZE}, u=nn.Linear(SIZE, SIZE).double(), narrow=narrow)
        model.backend = backend
        model.state_dtype = torch.float64
        inputs = given()
        out = model([part.graph() for part in PARTS], **inputs)
        outs[backend] = [out.h, *torch.autograd.grad(out.h.square().sum(), [*model.parameters(), inputs["x"]])]
    torch.testing.assert_close(outs["native"], outs["torch"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_random_numbers_are_the_same_on_both_sides_of_a_call(backend):
    def vertex(self, v):
        h, c, x = both(v)
        drawn = torch.rand_like(h)
        called = (drawn + 0 * h)[:, :, None].sort(-1).values[:, :, 0]  # of one each, which is that one
        difference = called - drawn
        finish(v, torch.tanh(self.u(c + x)) + difference, difference=difference)

    model = FromCode(vertex, {"h": SIZE, "c": SIZE}, u=nn.Linear(SIZE, SIZE)).double()
    model.backend = backend
    out = model([part.graph() for part in PARTS], **given())
    assert not out.difference.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_what_leaves_the_loops_is_said_once(backend):
    model = FromCode(in_the_middle, {"h": SIZE, "c": SIZE}, u=nn.Linear(SIZE, SIZE)).double()
    model.backend = backend
    graphs = [part.graph() for part in PARTS]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            model(graphs, **given())
    said = [str(one.message) for one in caught if one.category is vf.SlowCoreWarning]
    assert len(said) == (backend in LOOPS), said
    assert all("leave the generated code for PyTorch: sort is made by aten.sort.default" in one for one in said), said
