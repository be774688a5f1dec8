"""What people write in a vertex function: modules and idioms of PyTorch, each on every backend against the reference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vertexflow as vf

from .agreement import check
from .models import FromCode
from .strategies import PARTS, ROWS, Case, Structure

SIZE = 4


def model_of(vertex, state=None, **parts) -> FromCode:
    return FromCode(vertex, {"h": SIZE, "c": SIZE} if state is None else state, **parts).double()


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(ROWS, *shape, dtype=torch.float64, requires_grad=True)


def finish(v, h, **outputs):
    v.scatter(h=torch.tanh(h), c=torch.sin(h))
    v.push(h=h, **outputs)


# Triton's interpreter takes as long as all else together.
LOOPS = [("torch", "native"), pytest.param(("triton",), marks=pytest.mark.slow)]


def check_on(backends, request, case):
    if "triton" in backends:
        request.getfixturevalue("interpreter")
    check(case, *backends)


# Modules: each computes `h` from the input and two children.


def lstm_cell(self, v):
    left, right = v.gather(0), v.gather(1)
    h, c = self.cell(v.pull("x"), (left.h + right.h, left.c))
    v.scatter(h=h, c=c)
    v.push(h=h)


def recurrent_cell(self, v):
    finish(v, self.cell(v.pull("x"), v.gather(0).h + v.gather(1).c))


def of_concatenation(self, v):
    finish(v, self.cell(torch.cat([v.gather(0).h, v.gather(1).c], -1)) + v.pull("x"))


def of_stack(self, v):
    finish(v, self.cell(torch.stack([v.pull("x"), v.gather(0).h, v.gather(1).c], 1)).sum(1))


def of_image(self, v):
    finish(v, self.cell(torch.stack([v.pull("x"), v.gather(0).h, v.gather(1).c], 1)[:, None])[:, 0, 0])


def of_two(self, v):
    finish(v, self.cell(v.gather(0).h, v.gather(1).c) + v.pull("x"))


def of_sum(self, v):
    finish(v, self.cell(v.pull("x") + v.gather(0).h - v.gather(1).c))


def attention(self, v):
    query = v.pull("x").view(-1, 1, 2, 2).transpose(1, 2)
    keys = torch.stack([v.gather(0).h, v.gather(1).c], 1).view(-1, 2, 2, 2).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(query, keys, keys)
    finish(v, self.cell(mixed.transpose(1, 2).reshape(-1, SIZE)) + v.pull("x"))


def of_attention(self, v):
    children = torch.stack([v.gather(0).h, v.gather(1).c], 1)
    finish(v, self.cell(v.pull("x")[:, None], children, children)[0][:, 0])


def layers_in_a_row() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 6), nn.LayerNorm(6), nn.ELU(), nn.Linear(6, 8), nn.GELU(), nn.GLU(), nn.Softplus()
    )


ATTENDS = pytest.mark.skipif(torch.__version__ < (2, 13), reason="attention in float64 needs PyTorch 2.13")


@pytest.mark.parametrize(
    ("vertex", "cell"),
    [
        (lstm_cell, nn.LSTMCell(SIZE, SIZE)),
        (recurrent_cell, nn.GRUCell(SIZE, SIZE)),
        (recurrent_cell, nn.RNNCell(SIZE, SIZE)),
        (recurrent_cell, nn.RNNCell(SIZE, SIZE, bias=False, nonlinearity="relu")),
        (of_concatenation, layers_in_a_row()),
        (of_stack, nn.Conv1d(3, 2, 3, padding=1)),
        (of_image, nn.Conv2d(1, 1, 3, padding=(0, 1))),
        (of_two, nn.Bilinear(SIZE, SIZE, SIZE)),
        (of_two, nn.Bilinear(SIZE, SIZE, SIZE, bias=False)),
        (of_sum, nn.RMSNorm(SIZE)),
        (of_sum, nn.GroupNorm(2, SIZE)),
        (of_sum, nn.BatchNorm1d(SIZE).eval()),
        (of_sum, nn.PReLU(SIZE)),
        pytest.param(attention, nn.Linear(SIZE, SIZE), marks=ATTENDS),
        (of_attention, nn.MultiheadAttention(SIZE, 2, batch_first=True)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
@pytest.mark.parametrize("backends", LOOPS)
@pytest.mark.cases(1)
def test_modules(vertex, cell, backends, request):
    check_on(backends, request, Case(model_of(vertex, cell=cell), PARTS, {"x": rows(SIZE)}))


def of_sequence(self, v):
    mixed, _ = self.cell(torch.stack([v.gather(0).h - v.gather(1).c, v.pull("x")], 1))
    finish(v, mixed[:, -1])


def of_queries(self, v):
    children = torch.stack([v.gather(0).h, v.gather(1).c, v.pull("x")], 1)
    finish(v, self.cell(children, children, children)[0].sum(1))


def push_of_a_view(self, v):
    rows_second = torch.stack([v.gather(0).h, v.gather(1).c, v.pull("x")])
    mixed = self.cell(rows_second.reshape(-1, SIZE)).view(3, -1, SIZE)
    finish(v, mixed.sum(0), first=mixed[0])


@pytest.mark.parametrize(
    ("vertex", "cell"),
    [
        (of_sequence, nn.LSTM(SIZE, SIZE, batch_first=True)),
        (of_sequence, nn.GRU(SIZE, SIZE, batch_first=True)),
        (of_queries, nn.MultiheadAttention(SIZE, 2, batch_first=True)),
        (push_of_a_view, nn.Linear(SIZE, SIZE)),
    ],
    ids=["LSTM", "GRU", "MultiheadAttention", "Linear"],
)
@pytest.mark.parametrize("backends", LOOPS)
@pytest.mark.slow
def test_vertices_that_lie_interleaved_are_put_side_by_side(vertex, cell, backends, request):
    """These flatten a value whose vertices are the second dimension, so that a step's rows are no slice of it."""
    check_on(backends, request, Case(model_of(vertex, cell=cell), PARTS, {"x": rows(SIZE)}))


def test_vertices_that_cannot_be_put_side_by_side_are_refused(backends):
    def vertex(self, v):
        rows_second = torch.stack([v.gather(0).h, v.gather(1).c, v.pull("x")])
        mixed = self.cell(torch.sort(rows_second.reshape(-1, SIZE), 1).values).view(3, -1, SIZE)
        finish(v, mixed.sum(0))

    model = model_of(vertex, cell=nn.Linear(SIZE, SIZE))
    for backend in backends:
        with pytest.raises(vf.VertexFunctionError, match=r"interleaved[^\n]*\n.*test_pytorch_code\.py"):
            check(Case(model, PARTS, {"x": rows(SIZE)}), backend)


# Idioms: what is pulled, gathered, scattered and pushed.


def only_what_is_there(self, v):
    left, right = v.gather(0), v.gather(1)
    v.scatter(h=v.pull("x"), c=left.c + right.h)
    v.push(x=v.pull("x"), left=left.h, again=left.h, right=right.c)


def states_that_pass_on(self, v):
    v.scatter(h=v.gather(0).h, c=v.gather(1).c + v.pull("x"))
    v.push(h=v.gather(0).h + v.gather(1).c)


def one_value_twice(self, v):
    h = torch.sin(v.pull("x") + v.gather(0).h - v.gather(1).c)
    v.scatter(h=h, c=h)
    v.push(a=h, b=h)


def the_same_gradient_for_all(self, v):
    h = v.pull("x") + v.gather(0).h + v.gather(1).h
    v.scatter(h=h, c=h.cos())
    v.push(h=h)


def a_state_nobody_reads(self, v):
    h = torch.tanh(v.pull("x") + v.gather(0).h)
    v.scatter(h=h, c=h * 2)
    v.push(h=h, right=v.gather(1).h)


def a_parameter_as_state(self, v):
    x = v.pull("x")
    v.scatter(h=self.p.expand(x.shape[0], -1), c=x)
    v.push(p=self.p.expand(x.shape[0], -1), h=v.gather(0).h * x + v.gather(1).c)


def in_place(self, v):
    x, left = v.pull("x"), v.gather(0).h
    x += left
    left.mul_(2)
    h = torch.zeros_like(x)
    h[:, : SIZE // 2] = x[:, SIZE // 2 :]
    h[:, 1:] += left[:, 1:]
    finish(v, h + v.gather(1).h, x=x, left=left)


def in_place_in_new_values(self, v):
    x, y = v.pull("x") + v.gather(0).h, v.gather(1).c
    first = x * 2
    view = first.view(-1, 2, 2)  # which sees what is written later
    first.mul_(y)
    flags = (x > 0).to(x.dtype).logical_and_(y < 0.5)  # which stays of that dtype
    twice = x.sin()
    before = twice + y
    twice.add_(x).tanh_()
    finish(v, view.mT.flatten(1) + flags * twice + before, twice=twice)


def without_gradient(self, v):
    with torch.no_grad():
        gate = torch.sigmoid(v.gather(0).h)
    finish(v, v.pull("x") * gate + v.gather(1).c.detach())


def a_root_under_where(self, v):
    x = v.pull("x")
    finish(v, torch.where(x > 0, x.clamp(min=1e-3).sqrt() + v.gather(0).h, v.gather(1).c))


def constants(self, v):
    x = v.pull("x") + v.gather(0).h - v.gather(1).c
    ones = x.new_ones(x.shape[0], 1)
    finish(v, x * torch.arange(SIZE).to(x) + ones, picked=x[:, [0, 2]], fixed=x @ torch.eye(SIZE, dtype=x.dtype)[:, :2])


def weights_of_weights(self, v):
    weight = self.p[:, None] * self.p / self.p.norm()
    finish(v, v.pull("x") + (v.gather(0).h + v.gather(1).c) @ weight.t())


def attention_over_slots(self, v):
    children = torch.stack([v.gather(0).h, v.gather(1).h], 1)
    weights = torch.softmax((children * v.pull("x")[:, None]).sum(-1), 1)
    finish(v, v.pull("x") + (weights[..., None] * children).sum(1), weights=weights)


def outer_products(self, v):
    left, right = v.gather(0).h, v.gather(1).c
    forms = torch.einsum("bi,bj,i->bj", left, right, self.p)
    finish(v, (left[:, :, None] * right[:, None]).flatten(1)[:, ::4] + v.pull("x"), forms=forms)


def mixture_of_experts(self, v):
    x = v.pull("x") + v.gather(0).h - v.gather(1).c
    weights = torch.softmax(self.p * x, -1)[:, :3]
    finish(v, torch.einsum("nk,koi,ni->no", weights, self.p[:3, None, None] * self.p[:, None] * self.p, x))


def gate_of_a_number(self, v):
    gate = torch.sigmoid(v.gather(0).h @ self.p)[:, None]
    finish(
        v, F.log_softmax(gate * v.gather(0).h + (1 - gate) * v.gather(1).c, -1).clamp(min=-2) + v.pull("x"), gate=gate
    )


def reductions(self, v):
    h = v.pull("x") + v.gather(0).h + v.gather(1).c
    outputs = {"std": h.std(-1), "var": h.var(-1), "max": h.amax(-1), "prod": h.prod(-1), "sorted": h.sort(-1).values}
    finish(v, F.normalize(h, dim=-1), at=h.argmax(-1), positive=h > 0, lse=h.logsumexp(-1), **outputs)


def padded(self, v):
    finish(v, F.pad(v.gather(0).h[:, 1:], (1, 0)) + F.pad(v.pull("x"), (0, 2), value=2.0)[:, 2:] + v.gather(1).h)


@pytest.mark.parametrize(
    "vertex",
    [
        only_what_is_there, states_that_pass_on, one_value_twice, the_same_gradient_for_all, a_state_nobody_reads,
        a_parameter_as_state, in_place, in_place_in_new_values, without_gradient, a_root_under_where,
        constants, weights_of_weights, attention_over_slots, outer_products, mixture_of_experts, gate_of_a_number, reductions,
        padded,
    ],
)  # fmt: skip
@pytest.mark.parametrize("backends", LOOPS)
@pytest.mark.cases(2)
def test_idioms(vertex, backends, request):
    check_on(backends, request, Case(model_of(vertex, p=nn.Parameter(torch.randn(SIZE))), PARTS, {"x": rows(SIZE)}))


@pytest.mark.slow
def test_a_module_under_two_names_and_two_modules_of_one_weight(backends):
    def vertex(self, v):
        h = self.one(v.gather(0).h) + self.same(v.gather(1).h)
        finish(v, h + self.tied(v.pull("x")))

    shared, tied = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
    tied.weight = shared.weight
    model = model_of(vertex, one=shared, same=shared, tied=tied)
    before = dict(model.named_parameters())
    check(Case(model, PARTS, {"x": rows(SIZE)}), *backends)
    assert before.keys() == {"one.weight", "one.bias", "tied.bias"}
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert model.same is model.one
    assert model.tied.weight is model.one.weight


@pytest.mark.slow
def test_tokens(backends):
    def vertex(self, v):
        k = v.pull("k")
        h = self.embed(k).sum(1) + self.bag(k) + v.gather(0).h * v.pull("known")[:, None]
        finish(v, h - v.gather(1).c, k=k, counts=F.one_hot(k, 5).sum(1))

    model = model_of(vertex, embed=nn.Embedding(5, SIZE, padding_idx=0), bag=nn.EmbeddingBag(5, SIZE))
    inputs = {"k": torch.randint(0, 5, (ROWS, 3)), "known": torch.rand(ROWS) > 0.5}
    check(Case(model, PARTS, inputs), *backends)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 13, 26])  # 13 is the number of rows while tracing
def test_widths(size, backends):
    def vertex(self, v):
        finish(v, self.linear(torch.cat([v.pull("x"), v.gather(0).h, v.gather(1).c], -1)))

    model = model_of(vertex, {"h": size, "c": size}, linear=nn.Linear(3 * size, size))
    check(Case(model, PARTS, {"x": rows(size)}), *backends)


@pytest.mark.parametrize("side", [1, 13])
@pytest.mark.cases(1)
def test_matrices(side, backends):
    def vertex(self, v):
        m = torch.tanh(v.gather(0).m @ self.w + self.w @ v.gather(1).m.transpose(1, 2) + v.pull("x"))
        v.scatter(m=m)
        v.push(diagonal=m.diagonal(dim1=1, dim2=2), m=m, turned=m.transpose(1, 2))

    model = model_of(vertex, {"m": (side, side)}, w=nn.Parameter(torch.randn(side, side) / side))
    check(Case(model, PARTS, {"x": rows(side, side)}), *backends)


def test_a_number_as_state(backends):
    def vertex(self, v):
        total = v.gather(0).total + v.gather(1).total * v.pull("x")
        v.scatter(total=total + 1)
        v.push(total=total)

    check(Case(model_of(vertex, {"total": ()}), PARTS, {"x": rows()}), *backends)


def test_no_state(backends):
    def vertex(self, v):
        v.push(y=self.linear(v.pull("x")))

    parts = [Structure(1, [])] * ROWS
    check(Case(model_of(vertex, {}, linear=nn.Linear(SIZE, 2)), parts, {"x": rows(SIZE)}), *backends)


def test_inputs_of_any_layout(backends):
    def vertex(self, v):
        finish(v, self.linear(v.pull("x")) + v.gather(0).h + v.gather(1).h)

    layouts = {
        "transposed": torch.randn(SIZE, ROWS, dtype=torch.float64).t(),
        "strided": torch.randn(ROWS, 2 * SIZE, dtype=torch.float64)[:, ::2],
        "expanded": torch.randn(1, SIZE, dtype=torch.float64).expand(ROWS, -1),
    }
    model = model_of(vertex, linear=nn.Linear(SIZE, SIZE))
    for layout, x in layouts.items():
        print(layout)
        check(Case(model, PARTS, {"x": x.requires_grad_()}), *backends)


@pytest.mark.slow
def test_operators_that_refuse_gaps_read_pieces_of_rows(backends):
    """`nn.GroupNorm` copies what has gaps, as its kernels do not."""

    def vertex(self, v):
        x, h = v.pull("x"), v.gather(0).h
        piece = self.norm(x[:, :4])
        joined = self.norm(torch.cat([h, h * x[:, :4]], 1)[:, 1:5])
        spread = self.norm(x[:, 4:].expand(-1, 4) * h)
        turned = F.instance_norm((x[:, 1:5] * h).view(-1, 2, 2).mT, eps=0.1).flatten(1)
        v.scatter(h=torch.tanh(piece + joined))
        v.push(piece=piece[:, ::2], joined=joined, spread=spread, turned=turned)

    model = FromCode(vertex, {"h": 4}, norm=nn.GroupNorm(2, 4)).double()
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    check(Case(model, [Structure(4, [(0, 1, 0), (1, 2, 0)])], {"x": x}), *backends)


@pytest.mark.parametrize("pushed", [lambda y: y, lambda y: y.view(-1, 2, 2)], ids=["as it is", "as a view"])
@pytest.mark.cases(1)
def test_the_gradient_of_a_group_norm_whose_output_is_not_used_is_zero(pushed, backends):
    """PyTorch's kernel reads the gradients of all rows, of which there is one, of zeros."""

    def vertex(self, v):
        v.push(normed=pushed(self.norm(v.pull("x"))), used=v.pull("x") * self.scale)

    model = FromCode(vertex, {}, norm=nn.GroupNorm(2, 4), scale=nn.Parameter(torch.ones(1))).double()
    x = torch.randn(50, 4, dtype=torch.float64, requires_grad=True)
    for backend in backends:
        model.backend = backend
        model.zero_grad()
        x.grad = None
        model([vf.chain(1)] * 50, x=x).used.sum().backward()
        assert not model.norm.weight.grad.any(), backend
        assert torch.equal(x.grad, torch.ones_like(x)), backend
