"""Operations that PyTorch has no derivative of: computed, and refused where a gradient that is not zero reaches them."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vertexflow as vf

from .models import FromCode
from .versions import IS_OLD

GRAPHS = [vf.tree(((0, 1), 2)), vf.chain(3)]
CHAIN = [vf.chain(8)]


def helper(h):
    return torch.heaviside(h, torch.zeros(()).to(h))


def floored(self, h):
    h = h * self.p
    h //= 2
    return h


OPERATIONS = {
    "heaviside": (lambda self, h: helper(h) + self.p, r"return torch\.heaviside"),
    "floor_divide": (lambda self, h: torch.floor_divide(h, 2.0) * self.p, r"torch\.floor_divide\(h"),
    "igamma": (lambda self, h: torch.igamma(h, self.p), r"torch\.igamma\(h"),
    "in place": (floored, r"h //= 2"),
    "ldl_solve": (
        lambda self, h: torch.linalg.ldl_solve(*torch.linalg.ldl_factor(self.p.diag()), h[:, :, None])[:, :, 0],
        r"torch\.linalg\.ldl_solve",
    ),
}
BACKENDS = ["torch", "native"]


@pytest.mark.slow
@pytest.mark.skipif(IS_OLD, reason="before PyTorch 2.13, a weighted binary_cross_entropy cannot be traced: refused")
def test_operands_that_may_not_require_grad():
    """PyTorch refuses them at once; whether they do is not known in a trace."""

    def vertex(self, v):
        h = torch.tanh(v.pull("x") * self.p + v.gather(0).h)
        v.scatter(h=h)
        loss = F.binary_cross_entropy(
            h.sigmoid(), v.pull("y").sigmoid(), weight=v.pull("weight").abs(), reduction="none"
        )
        v.push(loss=loss + F.soft_margin_loss(h, v.pull("y"), reduction="none"))

    inputs = {name: rows() for name in ("x", "y", "weight")}
    losses, grads = [], []
    model = FromCode(vertex, {"h": 4}, p=slopes())
    for model.backend in ("eager", *BACKENDS):
        losses.append(model(CHAIN, **inputs).loss)
        grads.append(torch.autograd.grad(losses[-1].sum(), model.p)[0])
    for at in (1, 2):
        torch.testing.assert_close((losses[at], grads[at]), (losses[0], grads[0]))
    weight = rows().requires_grad_()
    with pytest.raises(vf.VertexFunctionError, match=r"argument 'weight'(?s:.*)F\.binary_cross_entropy"):
        model(CHAIN, **{**inputs, "weight": weight}).loss.sum().backward()


@pytest.mark.slow
def test_states_that_nothing_wanted_was_made_into_get_no_gradient():
    """What a state is made of wants no gradient, so that none reaches the operation: as in plain PyTorch."""

    def vertex(self, v):
        count = torch.floor_divide(v.gather(0).count + v.pull("x"), 0.3)
        h = torch.tanh(v.gather(0).h + count * self.p)
        v.scatter(count=count, h=h)
        v.push(h=h)

    grads = []
    model = FromCode(vertex, {"count": 4, "h": 4}, p=slopes())
    for model.backend in ("eager", *BACKENDS):
        grads.append(torch.autograd.grad(model(CHAIN, x=rows() - 1.5).h.sum(), model.p)[0])
    for grad in grads[1:]:
        torch.testing.assert_close(grad, grads[0])


def build(function, backend):
    def vertex(self, v):
        h = v.pull("x") + v.gather(0).h + v.gather(1).h
        h = function(self, h)
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 4}, p=slopes())
    model.backend = backend
    return model


@functools.cache
def traced(name):
    """One model of each operation, as it is traced with and without gradients."""
    return build(OPERATIONS[name][0], "torch")


def slopes():
    return nn.Parameter(torch.linspace(1, 2, 4, dtype=torch.float64))


def rows():
    return torch.rand(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.cases(1)
def test_without_gradients_there_is_nothing_to_refuse(name):
    x, function = rows(), OPERATIONS[name][0]
    expected = build(function, "eager")(GRAPHS, x=x).h
    model = traced(name)
    for model.backend in BACKENDS:
        for how in ("frozen", "no_grad", "no backward"):
            model.requires_grad_(how != "frozen")
            with torch.set_grad_enabled(how != "no_grad"):
                actual = model(GRAPHS, x=x).h
            torch.testing.assert_close(actual, expected, msg=lambda said, how=how: f"{model.backend}, {how}: {said}")


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.cases(2)
def test_a_gradient_is_refused_with_the_line_of_the_operation(name):
    function, line = OPERATIONS[name]
    model = traced(name)
    for model.backend in BACKENDS:
        print(model.backend)
        h = model(GRAPHS, x=rows().requires_grad_()).h
        with pytest.raises(
            vf.VertexFunctionError, match=rf"no derivative(?s:.*){line}(?s:.*)|no derivative(?s:.*){name}"
        ):
            h.sum().backward()
    with pytest.raises((RuntimeError, NotImplementedError), match="not implemented"):
        build(function, "eager")(GRAPHS, x=rows().requires_grad_()).h.sum().backward()


def test_other_gradients_are_right():
    """Of the operand that has a derivative, and of outputs that are made without the operation."""

    def vertex(self, v):
        h = torch.tanh(v.pull("x") * self.p + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h + torch.igamma(h.detach() + 2, h.abs()), floored=torch.floor_divide(h, 0.1))

    model, x = FromCode(vertex, {"h": 4}, p=slopes()), rows().requires_grad_()

    def gradients(backend):
        model.backend = backend
        out = model(CHAIN, x=x)
        return out, torch.autograd.grad(out.h.square().sum(), [x, model.p], retain_graph=True)

    _, expected = gradients("eager")
    for backend in BACKENDS:
        print(backend)
        out, actual = gradients(backend)
        torch.testing.assert_close(actual, expected)
        with pytest.raises(vf.VertexFunctionError, match=r"`floor_divide`"):
            out.floored.sum().backward()


def test_what_has_no_rows_and_is_needed_after_the_steps_is_refused():
    two = torch.library.custom_op(
        "vertexflow_tests::two", lambda x, w: (x + w, w * 2), mutates_args=(), schema="(Tensor x, Tensor w) -> (Tensor, Tensor)"
    )  # fmt: skip
    two.register_fake(lambda x, w: (torch.empty_like(x), torch.empty_like(w)))

    def vertex(self, v):
        h = v.pull("x") + v.gather(0).h
        new, twice = two(h, self.w)
        v.scatter(h=new * twice)
        v.push(h=h * twice.sum())

    with pytest.raises(
        vf.VertexFunctionError, match=r"two\.default.*shape \[4\] without a row(?s:.*)two\(h, self\.w\)"
    ):
        FromCode(vertex, {"h": 4}, w=torch.ones(4))(CHAIN, x=torch.randn(8, 4))


def test_symbols_of_pytorch_are_shown_as_numbers_of_vertices():
    def vertex(self, v):
        h = v.pull("x") + v.gather(0).h
        two = torch.cat([h, h])
        v.scatter(h=h)
        v.push(h=(two[:, None] * two[None]).sum((1, 2))[: h.shape[0]])

    with pytest.raises(vf.VertexFunctionError, match=r"shape \[2\*n, 2\*n, 4\] \(n vertices\)"):
        FromCode(vertex, {"h": 4})(GRAPHS, x=torch.randn(8, 4))


@pytest.mark.skipif(IS_OLD, reason="PyTorch before 2.13 differentiates index_fill without looking at the index")
def test_a_derivative_that_depends_on_values_cannot_be_traced():
    """PyTorch finds the different numbers in the index, to differentiate with respect to what is filled in."""

    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h).index_fill(1, self.index, self.p[0])
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 4}, p=nn.Parameter(torch.ones(1)), index=torch.tensor([1, 3]))
    for model.backend in BACKENDS:
        print(model.backend)
        out = model(CHAIN, x=torch.zeros(8, 4))
        assert out.h[:, [1, 3]].eq(1).all()
        with pytest.raises(
            vf.VertexFlowError,
            match=r"`index_fill`, whose derivative cannot be traced.*\.detach\(\)(.|\n)*index_fill\(1",
        ):
            out.h.sum().backward()
