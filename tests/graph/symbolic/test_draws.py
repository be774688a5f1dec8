"""Random numbers of Python and NumPy in a vertex function."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

import vertexflow as vf
from vertexflow.graph.symbolic import draws


class Scaled(vf.VertexFunction):
    def __init__(self, draw):
        super().__init__({"h": 2})
        self.draw = draw

    def vertex(self, v):
        h = torch.tanh(v.pull("x") * self.draw() + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        (random.random, "Python's random"),
        (np.random.rand, "np.random"),
        (lambda: random.gauss(0, 1), "Python's random"),
    ],
    ids=["random", "numpy", "gauss"],
)
def test_what_is_drawn_once_is_refused_and_the_generators_stay_as_they_were(draw, name):
    random.seed(0)
    np.random.seed(0)
    states = random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]
    with pytest.raises(vf.VertexFunctionError, match=f"draws random numbers of {name}, which would happen once"):
        Scaled(draw)([vf.chain(2)], x=torch.ones(2, 2))
    assert (random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]) == states


def test_the_method_itself_may_draw():
    model = Scaled(random.random)
    model.backend = "eager"
    assert model([vf.chain(2)], x=torch.ones(2, 2)).h.shape == (2, 2)


def test_what_other_threads_draw_meanwhile_is_not_refused():
    counts = iter([1, 3])  # not the same numbers from the same state

    def traced():
        for _ in range(next(counts)):
            random.random()
        return "a trace"

    assert draws.refused(traced, "model.py:1") == "a trace"
    assert next(counts, None) is None
