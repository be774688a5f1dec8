"""Checks that nothing depends on: the errors of torch.linalg, and assertions, are those of PyTorch."""

from __future__ import annotations

import pytest
import torch

import vertexflow as vf

from ....models import FromCode

GOOD = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
GRAPHS = [vf.chain(2), vf.chain(1)]


def factors(self, v):
    a = v.pull("a") + v.gather(0).m
    factor = torch.linalg.cholesky(a)
    inverse = torch.linalg.inv(v.pull("b"))  # before the steps
    solved = torch.linalg.solve(a, factor)
    v.scatter(m=a)
    v.push(factor=factor, inverse=inverse, solved=solved)


def test_matrices_that_have_factors():
    model = FromCode(factors, {"m": (2, 2)})
    a = torch.stack([GOOD, GOOD, 3 * GOOD]).double().requires_grad_()
    b = torch.randn(3, 2, 2, dtype=torch.float64)
    out = model(GRAPHS, a=a, b=b)
    zero = torch.zeros(2, 2, dtype=torch.float64)
    state = torch.stack([zero, a[0], zero])
    factor = torch.linalg.cholesky(a + state)
    solved = torch.linalg.solve(a + state, factor)
    torch.testing.assert_close(out.factor, factor)
    torch.testing.assert_close(out.inverse, torch.linalg.inv(b))
    torch.testing.assert_close(out.solved, solved)
    ours, wanted = (
        torch.autograd.grad((x + y.square()).sum(), a)[0] for x, y in ((out.factor, out.solved), (factor, solved))
    )
    torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"a": -torch.eye(2)}, r"(?s)linalg\.cholesky.*not positive-definite.*torch\.linalg\.cholesky\(a\)"),
        ({"b": torch.ones(2, 2)}, r"(?s)linalg\.inv.*singular.*torch\.linalg\.inv\(v\.pull"),
        ({"a": torch.diag(torch.tensor([-1.0, 2.0]))}, r"(?s)linalg\.cholesky"),
    ],
)
@pytest.mark.cases(1)
def test_a_matrix_that_has_none_is_an_error_of_torch_linalg(changed, match):
    model = FromCode(factors, {"m": (2, 2)})
    inputs = {name: GOOD.repeat(3, 1, 1) for name in ("a", "b")}
    model(GRAPHS, **inputs)
    wrong = {name: value.clone() for name, value in inputs.items()}
    for name, value in changed.items():
        wrong[name][0] = value
    with pytest.raises(torch.linalg.LinAlgError, match=match) as caught:
        model(GRAPHS, **wrong)
    assert isinstance(caught.value, vf.VertexFlowError)
    model(GRAPHS, **inputs)  # as before


def test_a_factor_that_nobody_reads_is_checked():
    def vertex(self, v):
        torch.linalg.cholesky(v.pull("a"))
        v.scatter(m=v.pull("a"))
        v.push(m=v.gather(0).m)

    model = FromCode(vertex, {"m": (2, 2)})
    model([vf.chain(2)], a=GOOD.repeat(2, 1, 1))
    with pytest.raises(vf.LinAlgError, match=r"linalg\.cholesky"):
        model([vf.chain(2)], a=torch.stack([GOOD, -GOOD]))


@pytest.mark.parametrize(
    "check",
    [torch._assert_async, lambda holds, message: torch._functional_assert_async(holds, message, torch.empty(0))],
    ids=["_assert_async", "_functional_assert_async"],
)
def test_assertions_hold_for_every_vertex(check):
    def vertex(self, v):
        h = v.pull("x") + v.gather(0).h
        check((h > 0).all(), "h must be positive")
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 2})
    assert model([vf.chain(2)], x=torch.ones(2, 2)).h[1, 0] == 2
    with pytest.raises(vf.VertexFunctionError, match=r"(?s)h must be positive.*check\(\(h > 0\)"):
        model([vf.chain(2)], x=torch.tensor([[1.0, 1.0], [1.0, -3.0]]))
