"""What `help` shows first is what a user needs first."""

from __future__ import annotations

import pydoc

import pytest
import torch

import vertexflow as vf

from .models import TreeRNN


def shown(thing: object) -> list[str]:
    return pydoc.plain(pydoc.render_doc(thing)).splitlines()


def test_a_model_without_a_docstring_says_how_it_is_called():
    class Plain(vf.VertexFunction):
        def vertex(self, v):
            v.push(x=v.pull("x"))

    first = "\n".join(shown(Plain({"h": 2}))[:24])  # a screen; Python 3.13 gives each argument a line
    for words in (
        "out = model(batch, x=x)",
        "model.explain()",
        'model.backend = "eager"',
        "model.start(x=x)",
        "help(vf.Vertex)",
    ):
        assert words in first
    assert all(hasattr(Plain, name) for name in ("explain", "estimate_memory", "start", "symbolic_graph"))


def test_a_docstring_of_the_user_stays():
    assert "which any function of two children will do" in "\n".join(shown(TreeRNN)[:12])
    assert TreeRNN.__doc__.startswith("For tests")


def test_the_vertex_says_what_can_be_read_and_written():
    first = "\n".join(shown(vf.Vertex)[:24])
    assert "Vertex(state" not in first  # how it is made is nobody's business
    for words in (
        "v.gather(0).h",
        'v.pull("x")',
        "kids = v.children",
        "v.scatter(h=h)",
        "v.push(h=h)",
        "v.softmax(e)",
        "v.num_children",
    ):
        assert words in first


@pytest.mark.parametrize("backend", ["torch", "eager"])
def test_every_line_about_the_vertex_is_true(backend):
    """Of what the docstring lists, each is there and has the shape that it says."""

    class All(vf.VertexFunction):
        def __init__(self):
            super().__init__({"h": 4}, backend=backend)

        def vertex(self, v):
            kids, x = v.children, v.pull("x")
            edges, rows = kids.h.shape[0], x.shape[0]
            assert kids.pull("weight").shape[0] == kids.slot.shape[0] == kids.expand(x).shape[0] == edges
            reduced = [reduce(kids.h) for reduce in (v.sum, v.mean, v.max, v.min)]
            assert all(value.shape == (rows, 4) for value in [*reduced, v.logsumexp(kids.h)])
            assert v.num_children.shape == (rows,)
            h = torch.tanh(x + sum(reduced) @ v.shared("W"))
            v.scatter(h=h)
            v.push(h=h, attention=v.softmax(kids.pull("weight")))

    out = All()([vf.tree((0, 1, 2))], x=torch.randn(4, 4), weight=torch.zeros(3), shared={"W": torch.eye(4)})
    assert out.attention.tolist() == pytest.approx([1 / 3] * 3)
