"""What mixes rows, or asks how many or where they are, is refused with the user's line; what does not is accepted."""

from __future__ import annotations

import pytest
import torch
import torch.distributions as D
import torch.nn.functional as F
from torch import nn

import vertexflow as vf

from ....agreement import check
from ....models import FromCode
from ....strategies import Case, Structure

SIZE = 4
# A tree, a single vertex, and one with three children: none, one and many edges.
PARTS = [
    Structure(5, [(0, 3, 0), (1, 3, 1), (3, 4, 0), (2, 4, 1)]),
    Structure(1, []),
    Structure(4, [(0, 3, 0), (1, 3, 1), (2, 3, 2)]),
]
ROWS = 10


@pytest.fixture(autouse=True)
def _backend(monkeypatch):
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")


def inputs_of(*names: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(ROWS, SIZE, SIZE, generator=generator, dtype=torch.float64)
    values = torch.randn(ROWS, SIZE, generator=generator, dtype=torch.float64)
    given = {
        "x": torch.randn(ROWS, SIZE, generator=generator, dtype=torch.float64).requires_grad_(),
        "ones": torch.ones(ROWS, 1, dtype=torch.float64),
        "zeros": torch.zeros(ROWS, SIZE, dtype=torch.float64),
        "token": torch.randint(1, 7, (ROWS, 2), generator=generator).double(),  # a token id in a column of floats
        "p": torch.rand(ROWS, SIZE, generator=generator, dtype=torch.float64) * 0.9 + 0.05,
        "words": torch.randn(ROWS, 3, SIZE, generator=generator, dtype=torch.float64).requires_grad_(),
        "covariance": matrix @ matrix.transpose(1, 2) + torch.eye(SIZE),
        "holes": torch.where(torch.arange(ROWS)[:, None] == 2, torch.nan, values),
    }
    return {name: given[name] for name in ("x", *names)}


def model_of(expression, **parts) -> FromCode:
    """A vertex function that scatters and pushes what `expression(v, x, module)` makes, `x` being an input and a child."""

    def vertex(self, v):
        x = v.pull("x") + v.sum(v.children.h)
        h = expression(v, x, self)
        v.scatter(h=h)
        v.push(h=h)

    return FromCode(vertex, {"h": SIZE}, **parts).double()


def run(expression, *names: str, **parts) -> torch.Tensor:
    model = model_of(expression, **parts)
    out = model([part.graph() for part in PARTS], **inputs_of(*names)).h
    out.sum().backward()
    return out


def hooked(x):
    y = x * 2
    y.register_hook(lambda grad: grad / grad.norm())
    return y


def hooked_weight(weight):
    weight = weight * 1
    weight.register_hook(lambda grad: grad / (1 + grad.norm()))
    return weight


def each_row(x):
    return sum(row for row in x)


IF_VERTICES = {
    "one": lambda v, x, m: x * 2 if x.shape[0] == 1 else x,
    "many": lambda v, x, m: x * 2 if x.shape[0] > 3 else x,
    "listed": lambda v, x, m: x * 2 if x.size(0) in (1, 7) else x,
    "len": lambda v, x, m: x * 2 if len(x) > 2 else x,
    "range": lambda v, x, m: x * sum(range(len(x))),
    "iteration": lambda v, x, m: x + each_row(x),
    "min": lambda v, x, m: x * min(x.shape[0], 3),
    "float": lambda v, x, m: x / float(x.shape[0]),
    "tensor": lambda v, x, m: x * torch.tensor(x.shape[0]),
    "unbind": lambda v, x, m: torch.stack(x.unbind(0)),
}
IF_EDGES = {
    "many": lambda v, x, m: x * 2 if v.children.h.shape[0] > 3 else x,
    "any": lambda v, x, m: x * 2 if v.children.h.shape[0] > 0 else x,
    "empty": lambda v, x, m: x * 2 if v.children.h.numel() == 0 else x,
    "one": lambda v, x, m: x * 2 if v.children.h.size(0) == 1 else x,
    "truth": lambda v, x, m: x * 2 if v.children.h.shape[0] else x,
    "len": lambda v, x, m: x * len(v.children.h),
}


@pytest.mark.parametrize("expression", IF_VERTICES.values(), ids=IF_VERTICES)
@pytest.mark.cases(1)
def test_python_that_asks_for_the_number_of_vertices_is_refused(expression):
    with pytest.raises(
        vf.VertexFunctionError, match=r"(?s)number of vertices in a step as a plain number.*test_rows\.py:\d+"
    ):
        run(expression)


@pytest.mark.parametrize("expression", IF_EDGES.values(), ids=IF_EDGES)
def test_python_that_asks_for_the_number_of_edges_is_refused(expression):
    match = r"(?s)number of edges in a step as a plain number.*v\.num_children.*test_rows\.py:\d+"
    with pytest.raises(vf.VertexFunctionError, match=match):
        run(expression)


def test_python_may_ask_what_every_step_answers_alike():
    def expression(v, x, m):
        assert x.shape[0] > 0
        assert x.numel() == SIZE * x.shape[0]
        assert x.shape == v.pull("x").shape
        return x.view(x.shape[0], 2, 2).flatten(1) + x.new_zeros(len(x) if False else x.shape[0], 1)

    check(Case(model_of(expression), PARTS, inputs_of()))


SIZES = {
    "factor": lambda v, x, m: x * x.shape[0],
    "divisor": lambda v, x, m: x / x.size(0),
    "numel": lambda v, x, m: x * x.numel(),
    "root": lambda v, x, m: x / x.shape[0] ** 0.5,
    "full": lambda v, x, m: x + torch.full((x.shape[0], 1), x.shape[0]),
    "filling": lambda v, x, m: x.masked_fill(x > 0, x.shape[0]),
    "at least 64": lambda v, x, m: x * torch.sym_max(x.shape[0], 64),
    "condition": lambda v, x, m: x * (x.shape[0] > 3),
    "random": lambda v, x, m: x * torch.randint(0, x.shape[0], (x.shape[0], 1)),
}


@pytest.mark.parametrize("expression", SIZES.values(), ids=SIZES)
@pytest.mark.cases(1)
def test_the_number_of_vertices_is_no_value(expression):
    with pytest.raises(vf.VertexFunctionError, match=r"values of the number of vertices[^\n]*\n.*test_rows\.py:\d+"):
        run(expression)


def test_the_number_of_edges_is_no_value_and_num_children_is_named():
    with pytest.raises(
        vf.VertexFunctionError, match=r"number of edges[^\n]*v\.num_children[^\n]*\n.*test_rows\.py:\d+"
    ):
        run(lambda v, x, m: x + v.sum(v.children.h) / v.children.h.shape[0])


def along_rows(x, weights):
    """A convolution along the vertices."""
    return F.conv1d(x.t()[:, None], weights[None, None].to(x.dtype), padding=1)[:, 0].t()


MIXES = {
    "mean": lambda v, x, m: x - x.mean(0),
    "mean of ones": lambda v, x, m: x - v.pull("ones").mean(0),
    "mean of zeros": lambda v, x, m: x - v.pull("zeros").mean(0),
    "share of a mask of ones": lambda v, x, m: x * v.pull("ones") / v.pull("ones").sum(0),
    "softmax of ones": lambda v, x, m: x * v.pull("ones").softmax(0),
    "maximum": lambda v, x, m: x / x.max(),
    "norm": lambda v, x, m: x / x.norm(),
    "index of the maximum": lambda v, x, m: x + x.argmax(0),
    "batch statistics": lambda v, x, m: F.batch_norm(x, None, None, training=True),
    "cumsum": lambda v, x, m: x.cumsum(0),
    "softmax": lambda v, x, m: x.softmax(0),
    "sort": lambda v, x, m: x.sort(0).values,
    "flip": lambda v, x, m: x.flip(0),
    "roll": lambda v, x, m: x.roll(1, 0),
    "halves": lambda v, x, m: torch.cat([x[x.shape[0] // 2 :], x[: x.shape[0] // 2]]),
    "first": lambda v, x, m: x + x[0],
    "first expanded": lambda v, x, m: x + x[:1].expand_as(x),
    "first entries": lambda v, x, m: x + x.view(-1)[:SIZE],
    "transposed": lambda v, x, m: x.t().reshape(-1, SIZE),
    "place": lambda v, x, m: x + torch.arange(x.shape[0])[:, None],
    "line": lambda v, x, m: x + torch.linspace(0, 1, x.shape[0])[:, None],
    "eye": lambda v, x, m: x + torch.eye(x.shape[0], SIZE),
    "square eye": lambda v, x, m: torch.eye(x.shape[0], dtype=x.dtype) @ x,
    "tril": lambda v, x, m: x.tril(),
    "triu": lambda v, x, m: x.triu(),
    "permutation": lambda v, x, m: x[torch.randperm(x.shape[0])],
    "distances": lambda v, x, m: torch.cdist(x, x) @ x,
    "index_add": lambda v, x, m: torch.zeros_like(x).index_add(0, torch.zeros(x.shape[0], dtype=torch.long), x),
    "random of a mean": lambda v, x, m: x * torch.bernoulli(x.sigmoid().mean(0)),
    "gradient": lambda v, x, m: hooked(x),
    "gradient of a parameter": lambda v, x, m: x @ hooked_weight(m.weight),
    "edges": lambda v, x, m: x + v.children.h.mean(0),
    "flipped edges": lambda v, x, m: x + v.sum(v.children.h.flip(0)),
    "any": lambda v, x, m: torch.where((x > 0).any(), x, -x),
    "all in a column": lambda v, x, m: torch.where((x < 1e9).all(0), x, -x),
    "flipped mask of outliers": lambda v, x, m: x * (1 + (x > 100).flip(0)),
    "running number of outliers": lambda v, x, m: x + (x.abs() > 100).cumsum(0),
    "flipped numbers of children": lambda v, x, m: x * (1 + (v.num_children > 10).flip(0)[:, None]),
    "flipped tokens that are one": lambda v, x, m: x + F.one_hot(v.pull("ones").long().flip(0)[:, 0], SIZE),
    "neighbours of weight 0": lambda v, x, m: along_rows(x, torch.tensor([0.0, 1.0, 0.0])),
    "neighbours of little weight": lambda v, x, m: along_rows(x, torch.tensor([1e-9, 1.0, 0.0])),
    "neighbours of weight 0 by now": lambda v, x, m: along_rows(x, F.relu(m.weight.detach()[0, :3] - 100)),
    "far places": lambda v, x, m: torch.where(torch.arange(x.shape[0])[:, None] > 100, -x, x),
}


@pytest.mark.parametrize("expression", MIXES.values(), ids=MIXES)
@pytest.mark.cases(1)
def test_mixing_is_refused_whatever_the_first_inputs(expression):
    with pytest.raises(vf.VertexFunctionError, match=r"mixes rows[^\n]*\n.*test_rows\.py"):
        run(expression, "ones", "zeros", weight=nn.Parameter(torch.randn(SIZE, SIZE)))


def test_boolean_masks_over_rows_are_refused():
    with pytest.raises(vf.VertexFunctionError, match=r"test_rows\.py:\d+"):
        run(lambda v, x, m: x + x[x[:, 0] > 0].sum(0))


def test_places_are_no_outputs():
    def vertex(self, v):
        v.push(place=torch.arange(v.pull("x").shape[0]))

    with pytest.raises(vf.VertexFunctionError, match="mixes rows"):
        FromCode(vertex, {})([vf.chain(3)], x=torch.randn(3, 2))


def test_places_that_a_derivative_keeps_are_not_cut_into_steps():
    with pytest.raises(vf.VertexFunctionError, match=r"keeps the places of rows[^\n]*\n.*test_rows\.py:\d+"):
        run(lambda v, x, m: x + m.bag((x.detach().abs() * 2).long().clamp(max=4)), bag=nn.EmbeddingBag(5, SIZE))


def test_batch_norm_in_training_is_refused():
    with pytest.raises(vf.VertexFunctionError, match=r"test_rows\.py"):
        run(lambda v, x, m: m.norm(x), norm=nn.BatchNorm1d(SIZE))


EXACT = {
    "token": lambda v, x, m: x + m.embed(v.pull("token")[:, 0].long()),
    "token from one": lambda v, x, m: x + m.embed(v.pull("token")[:, 0].long() - 1),
    "one_hot": lambda v, x, m: x + F.one_hot(v.pull("token")[:, 0].long(), 7)[:, :SIZE],
    "place of a maximum": lambda v, x, m: x + x[torch.arange(x.shape[0]), x.argmax(1)][:, None],
    "several queries": lambda v, x, m: x + m.attention(*[v.pull("words")] * 3)[0].sum(1),
    "transformer": lambda v, x, m: m.layer(torch.cat([x[:, None], v.pull("words")], 1)).mean(1),
    "Cholesky": lambda v, x, m: x + torch.linalg.cholesky(v.pull("covariance")).sum(-1),
    "distribution": lambda v, x, m: x + D.Categorical(logits=x).log_prob(v.pull("token")[:, 0].long().clamp(max=3))[:, None],
    "divergence": lambda v, x, m: x + D.kl_divergence(D.Normal(x, v.pull("p")), D.Normal(0.0, 1.0)),
    "NaN": lambda v, x, m: x + v.pull("holes").nan_to_num() + v.pull("zeros").log().clamp(min=-3) + v.pull("p").log(),
    "masked": lambda v, x, m: x + x.masked_fill(v.pull("p") > 0.9, -torch.inf).softmax(-1).nan_to_num(),
    "norms": lambda v, x, m: F.group_norm(x, 2) + F.instance_norm(x[:, None])[:, 0],
    "number of children": lambda v, x, m: x / v.num_children.clamp(min=1)[:, None].sqrt() + (v.num_children == 2)[:, None],
}  # fmt: skip


# Before, PyTorch tells a wrong dtype of what attention keeps in float64 on a CPU, and its own derivative refuses that.
ATTENDS = pytest.mark.skipif(torch.__version__ < (2, 13), reason="attention in float64 needs PyTorch 2.13")


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param(function, marks=ATTENDS if name == "transformer" else (), id=name)
        for name, function in EXACT.items()
    ],
)
@pytest.mark.cases(2)
def test_what_treats_rows_alike_is_accepted_and_right(expression):
    parts = {
        "embed": nn.Embedding(7, SIZE),
        "attention": nn.MultiheadAttention(SIZE, 2, batch_first=True),
        "layer": nn.TransformerEncoderLayer(SIZE, 2, 8, dropout=0.0, batch_first=True),
    }
    names = [name for name in inputs_of(*ALL) if name in expression.__code__.co_consts]
    check(Case(model_of(expression, **parts), PARTS, inputs_of(*names)))


@pytest.mark.slow
@ATTENDS
def test_the_fast_path_of_transformers_in_eval_is_not_taken():
    layer = nn.TransformerEncoderLayer(SIZE, 2, 8, batch_first=True)
    model = model_of(lambda v, x, m: m.layer(torch.cat([x[:, None], v.pull("words")], 1)).mean(1), layer=layer).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    check(Case(model, PARTS, inputs_of("words")))


ALL = ("ones", "zeros", "token", "p", "words", "covariance", "holes")
RANDOM = {
    "bernoulli": lambda v, x, m: x + torch.bernoulli(v.pull("p")),
    "multinomial": lambda v, x, m: x + torch.multinomial(v.pull("p"), 1),
    "with replacement": lambda v, x, m: x + torch.multinomial(v.pull("p"), 3, True).sum(-1, keepdim=True),
    "normal": lambda v, x, m: x + torch.normal(x, v.pull("p")),
    "poisson": lambda v, x, m: x + torch.poisson(v.pull("p")),
    "rrelu": lambda v, x, m: m.rrelu(x),
    "dropout": lambda v, x, m: F.dropout(x, 0.5) + F.dropout1d(x[:, None], 0.5)[:, 0] + F.alpha_dropout(x, 0.5),
    "noise": lambda v, x, m: x + torch.randn_like(x) + torch.rand(x.shape[0], 1),
    "gumbel": lambda v, x, m: x + F.gumbel_softmax(x),
    "Normal": lambda v, x, m: D.Normal(x, v.pull("p")).rsample(),
    "Bernoulli": lambda v, x, m: x + D.Bernoulli(v.pull("p")).sample(),
    "Categorical": lambda v, x, m: x + D.Categorical(v.pull("p")).sample()[:, None],
    "transformer": lambda v, x, m: x + m.layer(v.pull("words")).sum(1),  # and the attention in it
}


@pytest.mark.parametrize("expression", RANDOM.values(), ids=RANDOM)
@pytest.mark.cases(2)
def test_random_numbers_of_each_row_are_accepted(expression):
    """Drawn for each row: no two vertices have the same, as nine of ten would if one were drawn for all."""
    parts = {
        "rrelu": nn.RReLU(),
        "layer": nn.TransformerEncoderLayer(SIZE, 2, 8, dropout=0.2, batch_first=True),
    }
    names = [name for name in inputs_of(*ALL) if name in expression.__code__.co_consts]
    out = run(expression, *names, **parts)
    assert torch.isfinite(out).all()
    assert len(out.unique(dim=0)) == ROWS


def test_distributions_check_their_arguments_again_afterwards(monkeypatch):
    monkeypatch.setattr(D.Distribution, "_validate_args", True)  # importing torch._dynamo turns it off
    run(lambda v, x, m: D.Normal(x, v.pull("p")).rsample(), "p")
    with pytest.raises(ValueError, match="scale"):
        D.Normal(0.0, -1.0)
    with pytest.raises(vf.VertexFunctionError, match="value of a tensor"):
        run(lambda v, x, m: D.Normal(x, v.pull("p"), validate_args=True).rsample(), "p")


def test_the_check_runs_on_states_as_the_function_makes_them():
    """A state that is an index, of which only some numbers are in range, and one that must be positive definite."""

    def vertex(self, v):
        index = v.gather(0).k[:, 0].long()
        covariance = v.gather(0).s + torch.eye(SIZE, dtype=v.gather(0).s.dtype)
        factor = torch.linalg.cholesky(covariance)
        h = self.embed(index) + v.pull("x") + factor.sum(-1)
        v.scatter(k=h.argmax(-1, keepdim=True).to(h.dtype) + 1, s=factor @ factor.transpose(1, 2) / 2)
        v.push(h=h)

    model = FromCode(vertex, {"k": 1, "s": (SIZE, SIZE)}, embed=nn.Embedding(SIZE + 1, SIZE)).double()
    parts = [Structure(ROWS, [(i, i + 1, 0) for i in range(ROWS - 1)])]
    check(Case(model, parts, inputs_of()))


def test_the_check_leaves_random_numbers_alone():
    x = torch.randn(ROWS, SIZE, dtype=torch.float64)
    model = model_of(lambda v, x, m: F.dropout(x, 0.5))
    state = torch.get_rng_state()
    model.eval()([part.graph() for part in PARTS], x=x[:0].new_zeros(ROWS, SIZE))
    again = model_of(lambda v, x, m: x * 2)
    torch.set_rng_state(state)
    again([part.graph() for part in PARTS], x=x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_cancels_but_for_rounding_is_no_mixing(dtype):
    """Deviations of rows that are all alike, and the gradient of a bias to which a softmax is indifferent."""

    def vertex(self, v):
        h = torch.tanh(self.linear(v.pull("x")))
        score = torch.softmax((h + self.bias) + v.gather(0).h, -1)
        v.scatter(h=score)
        v.push(std=(torch.tanh(100 * h.abs() + 100) + v.gather(0).h * 0).std(-1), score=score)

    model = FromCode(vertex, {"h": 4}, linear=nn.Linear(3, 4), bias=nn.Parameter(torch.zeros(1))).to(dtype)
    model([vf.chain(3)], x=torch.randn(3, 3, dtype=dtype)).score.sum().backward()


LITTLE = {torch.float32: 0.02, torch.float16: 0.2, torch.bfloat16: 1}  # less than what rounding makes of sums


class NearlyTheSame(vf.VertexFunction):
    """Rows that differ by little before `function` sees them."""

    def __init__(self, dtype, function):
        super().__init__(state={"h": SIZE}, state_dtype=dtype)
        self.attend = nn.MultiheadAttention(2, 1, batch_first=True)
        self.function, self.little = function, LITTLE[dtype]
        self.to(dtype).eval()

    def vertex(self, v):
        x = v.pull("x") + v.gather(0).h
        entropy = torch.special.entr(F.softmax(x * self.little, -1)).sum(-1)
        h = self.function(self, entropy[:, None].expand(-1, SIZE)) + x * 0
        v.scatter(h=h)
        v.push(h=h)


@pytest.mark.parametrize("dtype", LITTLE)
@pytest.mark.cases(1)
def test_rows_that_differ_by_little_are_told_apart(dtype):
    model = NearlyTheSame(dtype, lambda self, x: x.roll(1, 0))
    with pytest.raises(vf.VertexFunctionError, match="mixes rows"):
        model([vf.chain(3)], x=torch.randn(3, SIZE).to(dtype))


@pytest.mark.parametrize(
    ("dtype", "has_bits"),
    [(torch.float32, False), (torch.float16, True), (torch.bfloat16, False), (torch.bfloat16, True)],
)
@pytest.mark.slow
def test_attention_over_rows_that_differ_by_little(dtype, has_bits):
    """Its batch is not in front meanwhile: the rows of one vertex lie between others'."""

    def attention(self, x):
        pairs = x.reshape(-1, 2, 2)
        attended = self.attend(pairs, pairs, pairs, need_weights=False)[0].flatten(1)
        return attended + torch.frexp(x.float())[0].to(dtype) if has_bits else attended

    torch.manual_seed(1)
    model, x, results = NearlyTheSame(dtype, attention), torch.randn(4, SIZE).to(dtype), []
    for backend in ("eager", "torch"):
        model.backend = backend
        results.append(model([vf.chain(3), vf.chain(1)], x=x).h)
    torch.testing.assert_close(*results, rtol=8 * torch.finfo(dtype).eps, atol=0)


@torch.library.custom_op("vertexflow_test::mixes_halves", mutates_args=())
def mixes_halves(x: torch.Tensor) -> torch.Tensor:
    """Of somebody who wrote two kernels, one of which is wrong."""
    return x.roll(1, 0) if x.dtype == torch.bfloat16 else x.sin()


@torch.library.custom_op("vertexflow_test::in_single", mutates_args=())
def in_single(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A product that is computed in float32, whatever it is given; added up in another order where there are other rows."""
    columns = range(len(weight)) if len(x) > 1 else reversed(range(len(weight)))
    return sum(x[:, k, None].float() * weight[k].float() for k in columns).to(x.dtype)


for operator in (mixes_halves, in_single):
    operator.register_fake(lambda x, *others: torch.empty_like(x))


def of_operator(function, dtype):
    def vertex(self, v):
        h = function(self, v.pull("x") + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)

    return FromCode(vertex, {"h": 64}, weight=nn.Parameter(torch.randn(64, 64)), state_dtype=dtype).to(dtype)


def test_an_operator_of_somebody_else_is_tried_in_the_dtype_that_it_is_given():
    """What it does in another one says nothing."""
    x = torch.randn(3, 64)
    of_operator(lambda self, x: mixes_halves(x), torch.float32)([vf.chain(3)], x=x)
    with pytest.raises(vf.VertexFunctionError, match="mixes rows: `vertexflow_test"):
        of_operator(lambda self, x: mixes_halves(x), torch.bfloat16)([vf.chain(3)], x=x.bfloat16())


@pytest.mark.parametrize("dtype", LITTLE)
@pytest.mark.cases(1)
def test_an_operator_of_somebody_else_may_round_as_its_dtype_allows(dtype):
    model, results = of_operator(lambda self, x: torch.tanh(in_single(x, self.weight.detach())), dtype), []
    for backend in ("eager", "torch"):
        model.backend = backend
        results.append(model([vf.chain(3)], x=torch.ones(3, 64, dtype=dtype)).h)
    torch.testing.assert_close(*results)


EIGHT_BITS = [torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz]


@pytest.mark.parametrize("narrow", EIGHT_BITS, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.cases(2)
def test_numbers_of_eight_bits_on_the_way(narrow):
    """PyTorch does not even tell which of them are finite."""
    model, x = of_operator(lambda self, x: torch.tanh(x).to(narrow).to(x.dtype), torch.float32), torch.randn(3, 64)
    results = []
    for backend in ("eager", "torch"):
        model.backend = backend
        results.append(model([vf.chain(3)], x=x).h)
    assert torch.equal(*results)
    mixing = of_operator(lambda self, x: x.to(narrow).view(torch.uint8).roll(1, 0).to(x.dtype), torch.float32)
    with pytest.raises(vf.VertexFunctionError, match=r"mixes rows: `aten\.roll"):
        mixing([vf.chain(3)], x=x)
