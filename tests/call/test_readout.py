"""What only outputs need is computed for the vertices that were asked for, and for no others."""

from __future__ import annotations

import collections

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import vertexflow as vf
from vertexflow.call import readouts
from vertexflow.kernels import native
from vertexflow.kernels.prepared import windows

from ..models import FromCode

aten = torch.ops.aten
needs_native = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")
GRAPHS = [vf.tree(((0, 1), (2, 3))), vf.chain(4), vf.tree(((0, 1), 2)), vf.chain(1)]
CHAINS = [vf.chain(5), vf.chain(4), vf.chain(7), vf.chain(1)]
CLASSES = 17


@pytest.fixture(autouse=True)
def always_apart(monkeypatch):
    """However little is saved."""
    monkeypatch.setattr(readouts, "_RUN", 0)
    monkeypatch.setattr(readouts, "_MOVED", 0)


class Tagger(vf.VertexFunction):
    """A tree RNN whose outputs are classes, a loss of each vertex, and what an embedding tells that the recurrence reads too."""

    def __init__(self, size=4):
        super().__init__(state={"h": size})
        self.w = nn.Linear(3, size)
        self.u = nn.Linear(2 * size, size, bias=False)
        self.mlp = nn.Sequential(nn.Linear(size + 3, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, CLASSES))

    def vertex(self, v):
        x, left, right = v.pull("x"), v.gather(0).h, v.gather(1).h
        h = torch.tanh(self.w(x) + self.u(torch.cat([left, right], -1)))
        logits = self.mlp(torch.cat([h, x], -1))
        loss = F.cross_entropy(logits, v.pull("label"), reduction="none")
        again = F.linear(left - h.detach() * 2, self.w.weight.t())
        v.scatter(h=h)
        v.push(h=h, logits=logits, loss=loss, again=again, count=v.num_children)


def tagger(backend, **settings):
    torch.manual_seed(0)
    model = Tagger().double()
    model.backend = backend
    for name, value in settings.items():
        setattr(model, name, value)
    return model


def inputs_of(batch, label_dim=CLASSES):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch.num_vertices, 3, dtype=torch.float64, generator=generator).requires_grad_()
    return {"x": x, "label": torch.randint(label_dim, (batch.num_vertices,), generator=generator)}


def losses(outputs):
    """A number that weighs each entry of each output differently."""
    real = [value for value in outputs.values() if value.requires_grad]
    return sum((value * torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)).sum() for value in real)


def picked(whole, outputs):
    """Of outputs of all vertices, those of some."""
    by_name = outputs if isinstance(outputs, dict) else dict.fromkeys(whole, outputs)
    return {name: value[by_name[name]] if name in by_name else value for name, value in whole.items()}


def check(model, batch, outputs, leaves, **given):
    """What a call gives for some vertices, and the gradients, are what the call for all gives of these."""
    whole = picked(model(batch, **given), outputs)
    some = model(batch, outputs=outputs, **given)
    assert some.keys() == whole.keys()
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    for name, value in whole.items():
        torch.testing.assert_close(some[name], value, rtol=1e-12, atol=1e-12)
        assert value.requires_grad or not some[name].requires_grad, name
    for _ in range(2):  # the second is recalled
        some = model(batch, outputs=outputs, **given)
        slopes = [torch.autograd.grad(losses(value), wanted, allow_unused=True) for value in (some, whole)]
        for ours, expected in zip(*slopes, strict=True):
            if ours is None:  # no output of the two depends on it
                assert expected is None or not expected.any()
            else:
                torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)
        whole = picked(model(batch, **given), outputs)


def is_apart(model):
    """Whether the last call computed a readout apart."""
    return ".readout." in model.explain()


@pytest.mark.cases(1)
@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_same_as_picked_from_all(backend, reverse, monkeypatch):
    monkeypatch.setattr(windows, "rows_of_a_window", lambda *_: 2)
    batch, model = vf.pack(GRAPHS), tagger(backend)
    given = inputs_of(batch)
    leaves = [given["x"], *model.parameters()]
    for outputs in (batch.roots, batch.leaves.flip(0), torch.tensor([6]), torch.tensor([3, 3, 0, 3])):
        check(model, batch, outputs, leaves, reverse=reverse, **given)
        model(batch, reverse=reverse, outputs=outputs, **given)
        assert is_apart(model)
    for outputs in (torch.arange(0), torch.arange(batch.num_vertices).flip(0)):
        check(model, batch, outputs, leaves, reverse=reverse, **given)
        model(batch, reverse=reverse, outputs=outputs, **given)
        assert not is_apart(model)  # of none nothing is to be computed, of all there is nothing to be saved


@pytest.mark.cases(1)
@pytest.mark.parametrize("max_vertices", [None, 6])
def test_one_readout_where_all_that_it_makes_is_wanted_of_the_same_vertices(max_vertices):
    batch, model = vf.pack(GRAPHS), tagger("torch", max_vertices=max_vertices)
    given = inputs_of(batch)
    leaves, some = [given["x"], *model.parameters()], torch.tensor([5, 0, 5])
    model(batch, outputs=some, **given)
    made = ("logits", "loss", "again")  # `h` is a state, and `count` is no product of rows
    for others in ({}, {"h": batch.leaves}, {"h": torch.arange(0)}):
        outputs = {**dict.fromkeys(made, some), **others}
        check(model, batch, outputs, leaves, **given)
        model(batch, outputs=outputs, **given)
        assert is_apart(model)
    for outputs in ({"logits": some}, {**dict.fromkeys(made, some), "loss": batch.roots}, {"h": some}):
        check(model, batch, outputs, leaves, **given)
        model(batch, outputs=outputs, **given)
        assert not is_apart(model)


class Products(TorchDispatchMode):
    """Counts the rows that products with so many columns, or of them, are computed for."""

    def __init__(self, columns):
        super().__init__()
        self.columns, self.rows = columns, collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (aten.mm.default, aten.addmm.default, aten.mm.out, aten.addmm.out):
            first, second = args[-2:]
            sizes = {*first.shape, *second.shape}
            if self.columns in sizes:
                self.rows.update([size for size in sizes if size not in (self.columns, 6)])
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
def test_products_have_the_rows_that_were_asked_for():
    batch, model = vf.pack([vf.chain(11)] * 3), tagger("torch")
    given = inputs_of(batch)
    for outputs, rows in ((batch.roots, 3), (None, 33)):
        losses(model(batch, outputs=outputs, **given)).backward()  # traces
        with Products(CLASSES) as products:
            losses(model(batch, outputs=outputs, **given)).backward()
        assert products.rows == {rows: 3}  # forward, the gradient of the rows, that of the weight


@needs_native
@pytest.mark.slow
def test_memory_is_that_of_the_rows_that_were_asked_for():
    batch, model = vf.pack([vf.chain(50)] * 20), tagger("native")
    given = inputs_of(batch)
    whole, some = (model.estimate_memory(batch, outputs=outputs, **given) for outputs in (None, batch.roots))
    row = CLASSES * 8
    assert whole.kept - some.kept > 900 * row  # logits, which the derivative of the loss reads


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
def test_whose_gradients_are_wanted(backend):
    """Of the trunk alone, of the readout alone, of an input alone; and none."""
    batch, model = vf.pack(GRAPHS), tagger(backend)
    given = inputs_of(batch)
    for wanted in (("w", "u"), ("mlp",), (), ("x",)):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.split(".")[0] in wanted)
        given["x"].requires_grad_("x" in wanted)
        if wanted:
            check(model, batch, batch.roots, [given["x"], *model.parameters()], **given)
    with torch.no_grad():
        some, whole = (model(batch, outputs=outputs, **given) for outputs in (batch.roots, None))
        assert is_apart(model) is False
        model(batch, outputs=batch.roots, **given)
        assert is_apart(model)
    for name, value in some.items():
        torch.testing.assert_close(value, whole[name][batch.roots], rtol=1e-12, atol=1e-12)
        assert not value.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
def test_in_parts_with_initial_states_and_shared_tensors(backend):
    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h @ v.shared("W"))
        v.scatter(h=h)
        v.push(y=h @ v.shared("W") + v.gather(1).h, h=h)

    batch, model = vf.pack(GRAPHS), FromCode(vertex, {"h": 3}).double()
    x, initial = inputs_of(batch)["x"], torch.randn(len(batch.leaves), 3, dtype=torch.float64).requires_grad_()
    weight, model.backend = torch.randn(3, 3, dtype=torch.float64).requires_grad_(), backend
    for model.max_vertices in (None, 1, 4):
        for states in ({}, {"initial": {"h": initial}}):
            leaves = [x, weight, *([initial] if states else [])]
            check(model, batch, torch.tensor([9, 0, 4, 4]), leaves, x=x, shared={"W": weight}, **states)
            model(batch, x=x, shared={"W": weight}, outputs=torch.tensor([9, 0]), **states)
            assert is_apart(model)


class Sentence(vf.VertexFunction):
    """Words and phrases; both push classes, each by weights of its own, and phrases another output."""

    def __init__(self):
        super().__init__(state={"h": 3})
        self.join, self.of_word, self.of_phrase = nn.Linear(6, 3), nn.Linear(3, 5), nn.Linear(3, 5)

    @vf.vertex("word")
    def word(self, v):
        h = torch.tanh(v.pull("x"))
        v.scatter(h=h)
        v.push(y=self.of_word(h), x=h)

    @vf.vertex("phrase")
    def phrase(self, v):
        h = torch.tanh(self.join(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
        v.scatter(h=h)
        v.push(y=self.of_phrase(h), score=self.of_phrase(h * h).sum(-1))

    @vf.vertex("end")
    def end(self, v):
        v.scatter(h=v.gather(0).h)


@pytest.mark.cases(1)
@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize("outputs", [[4, 2], [0, 1, 3], [4], [2, 4, 0, 2], [8], [8, 4]])
def test_kinds(backend, outputs):
    """Kinds that were not asked for give parameters gradients of zero, as they do where all rows are computed."""
    kind = ["word", "word", "phrase", "word", "phrase"]
    graphs = [
        vf.graph(5, [(0, 2), (1, 2), (2, 4), (3, 4)], kind=kind),
        vf.graph(4, [(1, 0), (2, 0), (0, 3)], kind=[*kind[2::-1], "end"]),
    ]
    batch, kinds = vf.pack(graphs), [*kind, *kind[2::-1], "end"]
    torch.manual_seed(0)
    model, x = Sentence().double(), torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    model.backend = backend
    pushing = {"y": ("word", "phrase"), "x": ("word",), "score": ("phrase",)}
    for model.max_vertices in (None, 5):
        whole, some = model(batch, x=x), model(batch, x=x, outputs=torch.tensor(outputs))
        assert is_apart(model)
        assert some.keys() == whole.keys()
        expected = {}
        for name, value in whole.items():
            vertices = [vertex for vertex, each in enumerate(kinds) if each in pushing[name]]
            expected[name] = value[[vertices.index(vertex) for vertex in outputs if vertex in vertices]]
            torch.testing.assert_close(some[name], expected[name], rtol=1e-12, atol=1e-12)
        leaves = [x, *model.parameters()]
        slopes = [torch.autograd.grad(losses(each), leaves, allow_unused=True) for each in (some, expected)]
        for ours, slope in zip(*slopes, strict=True):
            torch.testing.assert_close(ours, slope, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
def test_gradients_of_gradients(backend):
    batch, model = vf.pack(GRAPHS), tagger(backend)
    given = inputs_of(batch)
    leaves = [given["x"], *model.parameters()]

    def second(outputs):
        slopes = torch.autograd.grad(losses(outputs), leaves, create_graph=True)
        return torch.autograd.grad(sum(slope.square().sum() for slope in slopes), leaves)

    for _ in range(2):  # the second time both are replayed from the start
        some = second(model(batch, outputs=batch.roots, **given))
        whole = second({name: value[batch.roots] for name, value in model(batch, **given).items()})
        for ours, expected in zip(some, whole, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
def test_dropout(backend):
    """The backward pass has the mask of the forward pass; the same seed gives the same mask, and rows have masks of their own."""

    def vertex(self, v):
        h = F.dropout(torch.tanh(v.pull("x") + v.gather(0).h), 0.5, self.training)
        v.scatter(h=h)
        v.push(y=F.dropout(self.linear(h), 0.5, self.training), h=h)

    batch, model = vf.pack([vf.chain(3)] * 40), FromCode(vertex, {"h": 3}, linear=nn.Linear(3, 50)).double()
    model.backend, x = backend, torch.ones(batch.num_vertices, 3, dtype=torch.float64)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(model(batch, x=x, outputs=batch.roots))
        assert is_apart(model)
    assert torch.equal(runs[0].y, runs[1].y)
    assert not torch.equal(runs[0].y, runs[2].y)
    out = runs[0]
    mask = out.y != 0
    assert 0.4 < mask.double().mean() < 0.6
    assert len(mask.unique(dim=0)) == 40
    torch.testing.assert_close(out.y, torch.where(mask, 2 * model.linear(out.h), 0), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(out.y.sum(), model.linear.bias)
    torch.testing.assert_close(slope, 2 * mask.double().sum(0), rtol=1e-12, atol=1e-12)


def test_noise_that_all_vertices_share_is_drawn_once():
    def vertex(self, v):
        weight = F.dropout(self.linear.weight, 0.5, True)
        h = torch.tanh(v.pull("x") @ weight + v.gather(0).h)
        v.scatter(h=h)
        v.push(y=h @ weight, x=v.pull("x") @ weight)

    batch, model = vf.pack([vf.chain(1)] * 4), FromCode(vertex, {"h": 3}, linear=nn.Linear(3, 3)).double()
    for model.backend in ("torch", "auto"):
        x = torch.eye(4, 3, dtype=torch.float64)
        out = model(batch, x=x, outputs=torch.tensor([0, 1, 2]))  # whose `x` is the weight
        torch.testing.assert_close(out.y, torch.tanh(out.x) @ out.x, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_the_line_of_an_error_is_the_users(backend):
    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h)
        v.scatter(h=h)
        square = self.linear(h).reshape(-1, 3, 3)
        v.push(y=torch.linalg.cholesky(square @ square.mT - v.pull("shift")[:, None, None] * torch.eye(3).double()))

    batch, model = vf.pack(CHAINS), FromCode(vertex, {"h": 3}, linear=nn.Linear(3, 9)).double()
    x, model.backend = inputs_of(batch)["x"], backend
    shift = torch.full((batch.num_vertices,), -1, dtype=torch.float64)
    out = model(batch, x=x, shift=shift, outputs=batch.roots)
    assert is_apart(model)
    torch.testing.assert_close(out.y, model(batch, x=x, shift=shift).y[batch.roots], rtol=1e-12, atol=1e-12)
    with pytest.raises(vf.VertexFlowError, match=r"test_readout\.py:\d+: `v\.push\(y=torch\.linalg\.cholesky"):
        model(batch, x=x, shift=-100 * shift, outputs=batch.roots)


@pytest.mark.cases(1)
@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize("is_cast", [True, False])
def test_autocast_and_half_precision(backend, is_cast):
    batch = vf.pack(GRAPHS)
    given, model = inputs_of(batch), tagger(backend).to(torch.float32 if is_cast else torch.bfloat16)
    x = given["x"].detach().to(model.w.weight.dtype).requires_grad_()
    results = []
    for outputs in (batch.roots, None):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_cast):
            out = model(batch, x=x, label=given["label"], outputs=outputs)
        picked = {name: value if outputs is not None else value[batch.roots] for name, value in out.items()}
        results.append((picked, torch.autograd.grad(losses(picked), [x, *model.parameters()])))
    (some, ours), (whole, expected) = results
    for name, value in whole.items():
        assert some[name].dtype == value.dtype
        torch.testing.assert_close(some[name], value, rtol=2e-2, atol=2e-2)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=5e-2, atol=5e-2)


@pytest.mark.slow
def test_runs_of_as_many_vertices_have_one_structure():
    """Whichever the batch: the roots of as many graphs are read out by what is written down once."""
    model, x = tagger("torch"), torch.randn(8, 3, dtype=torch.float64)
    label = torch.zeros(8, dtype=torch.int64)
    readouts._vertices.cache_clear()
    for graphs in ([vf.chain(4)] * 2, [vf.chain(5), vf.chain(3)]):
        batch = vf.pack(graphs)
        model(batch, x=x, label=label, outputs=batch.roots)
        assert is_apart(model)
    assert readouts._vertices.cache_info().misses == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
def test_operations_whose_derivative_pytorch_writes_as_code(backend):
    """The names of what is read are in that code."""

    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h / 2)
        v.scatter(h=h)
        v.push(y=torch.linalg.vector_norm(self.linear(h), 3, dim=-1))

    model = FromCode(vertex, {"h": 4}, linear=nn.Linear(4, 4)).double()
    model.backend = backend
    batch, x = vf.pack(CHAINS), torch.randn(17, 4, dtype=torch.float64)
    expected = model(batch, x=x).y[batch.roots]
    torch.testing.assert_close(model(batch, x=x, outputs=batch.roots).y, expected)
    assert is_apart(model)


@pytest.mark.slow
def test_an_input_of_kinds_without_a_vertex_that_was_asked_for_has_a_gradient_of_zero():
    class Kinds(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={"h": 4})
            self.linear, self.row = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

        @vf.vertex("word")
        def word(self, v):
            h = torch.tanh(v.pull("x") + v.gather(0).h)
            v.scatter(h=h)
            v.push(y=self.linear(h))

        @vf.vertex("end")
        def end(self, v):
            h = v.gather(0).h
            v.scatter(h=h)
            v.push(y=self.row.expand(h.shape[0], 4))

    model, batch = Kinds(), vf.pack([vf.chain(3).with_kind(["word", "word", "end"])])
    x = torch.randn(2, 4, requires_grad=True)
    y = model(batch, x=x, outputs=torch.tensor([2])).y
    y.mul_(2).sum().backward()  # as any output, it may be changed in place
    assert is_apart(model)
    assert model.row.grad.eq(2).all()
    assert x.grad is not None
    assert not x.grad.any()
