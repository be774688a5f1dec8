"""A vertex function does not ask for what is switched on around a call: it is traced once, whatever that is."""

from __future__ import annotations

import pytest
import torch

import vertexflow as vf
from tests.models import FromCode

BATCH, X = vf.pack([vf.chain(3)]), torch.ones(3, 4)


def model_that_asks(question):
    def vertex(self, v):
        x = v.pull("x")
        h = torch.tanh((1 if question(x) else 2) * x + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)

    return FromCode(vertex, {"h": 4})


@pytest.mark.parametrize(
    "question",
    [
        lambda x: torch.is_grad_enabled(),
        lambda x: torch.is_inference_mode_enabled(),
        lambda x: torch.are_deterministic_algorithms_enabled(),
        lambda x: torch.get_float32_matmul_precision() == "high",
        lambda x: torch.get_num_threads() > 1,
        lambda x: torch.initial_seed() == 0,
        lambda x: x.requires_grad,
        lambda x: x.is_leaf,
        lambda x: x.grad_fn is None,
        lambda x: x.is_inference(),
    ],
)
def test_a_question_is_refused_with_its_line(question):
    with pytest.raises(
        vf.VertexFunctionError, match=r"the vertex function asks (.|\n)*test_switches\.py:\d+: `lambda x"
    ):
        model_that_asks(question)(BATCH, x=X)
    assert torch.is_grad_enabled()
    assert type(torch.is_grad_enabled).__name__ == "builtin_function_or_method"


def test_libraries_may_ask():
    def vertex(self, v):
        x = v.pull("x")
        h = torch.utils.checkpoint.checkpoint(torch.tanh, x + v.gather(0).h, use_reentrant=False)
        v.scatter(h=h)
        v.push(h=h)

    assert FromCode(vertex, {"h": 4})(BATCH, x=X).h.shape == (3, 4)


def test_what_is_set_is_not_asked_for():
    def vertex(self, v):
        with torch.no_grad():
            scale = v.pull("x").abs().amax(-1, keepdim=True)
        h = torch.tanh(v.pull("x") / scale + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)

    assert FromCode(vertex, {"h": 4})(BATCH, x=X).h.shape == (3, 4)
