"""Random numbers of Python and NumPy in a vertex function."""

from __future__ import annotations

import random
import threading

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
        (lambda: np.random.rand(), "np.random"),
        (lambda: random.gauss(0, 1), "Python's random"),
    ],
    ids=["random", "numpy", "gauss"],
)
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside a thread"])
@pytest.mark.cases(1)
def test_what_is_drawn_once_is_refused(draw, name, others):
    end = threading.Event()
    threads = [threading.Thread(target=end.wait) for _ in range(others)]
    for thread in threads:
        thread.start()
    try:
        with pytest.raises(
            vf.VertexFunctionError, match=f"draws random numbers of {name}, or seeds it, which would happen"
        ):
            Scaled(draw)([vf.chain(2)], x=torch.ones(2, 2))
    finally:
        end.set()
    assert isinstance(np.random.rand.__self__, np.random.RandomState)  # as before


def test_the_method_itself_may_draw():
    model = Scaled(random.random)
    model.backend = "eager"
    assert model([vf.chain(2)], x=torch.ones(2, 2)).h.shape == (2, 2)


def test_other_threads_get_their_numbers_and_nothing_is_refused_for_them():
    random.seed(0)
    expected = [random.random() for _ in range(3)]
    random.seed(0)
    drawn, begin, end = [], threading.Event(), threading.Event()

    def draw():
        begin.wait()
        drawn.append(random.random())
        end.set()

    thread = threading.Thread(target=draw)
    thread.start()

    def traced():
        begin.set()
        end.wait()
        return "a trace"

    assert draws.refused(traced, "model.py:1") == "a trace"
    thread.join()
    assert [*drawn, random.random(), random.random()] == expected


def test_a_generator_that_is_seeded_is_one_that_moves():
    with pytest.raises(vf.VertexFunctionError, match="draws random numbers of Python's random, or seeds it"):
        Scaled(lambda: random.seed(1) or 2.0)([vf.chain(2)], x=torch.ones(2, 2))
