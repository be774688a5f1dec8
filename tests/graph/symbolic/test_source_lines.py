"""A trace that fails names the user's lines and shows the tensors that were there, in terms of n vertices and e edges."""

from __future__ import annotations

import functools
import inspect
import linecache

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.graph.symbolic.source_lines import is_users

from ...models import FromCode


class Cell(nn.Module):
    """A module of the user's: the failure is in PyTorch, called from here."""

    def __init__(self):
        super().__init__()
        self.w = nn.Linear(5, 4)

    def forward(self, x, h):
        both = torch.cat([x, h], -1)
        return self.w(both)


def refused(vertex, **modules):
    """The message for a vertex function with inputs x [n, 3] and the states h 4, m [2, 2]."""
    model = FromCode(vertex, {"h": 4, "m": (2, 2)}, **modules)
    with pytest.raises(vf.VertexFunctionError) as caught:
        model([vf.chain(3)], x=torch.randn(3, 3))
    return str(caught.value).splitlines()


def line_of(function, text):
    """Where a piece of the source stands, as messages say it."""
    source, first = inspect.getsourcelines(function)
    at, line = next((first + at, line.strip()) for at, line in enumerate(source) if text in line)
    return f"{__file__}:{at}: `{line}`"


def test_a_failure_inside_a_library_names_the_deepest_line_of_the_user():
    def vertex(self, v):
        left, kids, x = v.gather(0), v.children, v.pull("x")
        v.scatter(m=v.sum(kids.m))
        v.scatter(h=self.cell(x, left.h))

    said, *lines = refused(vertex, cell=Cell())
    assert "RuntimeError" in said
    assert "[n, 7]" in said
    assert lines == [
        f"  in the vertex function, {line_of(vertex, 'self.cell')}",
        "  where left.h: float32[n, 4], left.m: float32[n, 2, 2], "
        "kids.h: float32[e, 4], kids.m: float32[e, 2, 2], x: float32[n, 3]",
        f"  there in {line_of(Cell, 'self.w(both)')}",
        "  where x: float32[n, 3], h: float32[n, 4], both: float32[n, 7]",
        "  traced with inputs x: float32[n, 3]; parameters float32",
    ]


def test_a_failure_in_pytorch_called_by_the_method_itself_has_one_line():
    def vertex(self, v):
        x = v.pull("x")
        v.scatter(h=nn.functional.linear(x, x.new_zeros(4, 5)), m=x)

    lines = refused(vertex)
    assert lines[1:3] == [f"  in the vertex function, {line_of(vertex, 'linear')}", "  where x: float32[n, 3]"]
    assert not any("there in" in line for line in lines)


def test_sizes_are_letters_in_what_pytorch_says():
    def edges_and_vertices(self, v):
        v.scatter(h=torch.cat([v.pull("x"), v.children.h], -1), m=v.gather(0).m)

    assert "Expected n in dimension 0 but got e" in refused(edges_and_vertices)[0]


def test_numbers_that_stand_for_sizes_are_explained():
    def vertex(self, v):
        rows = v.pull("x").shape[0]
        raise ValueError(f"what a library says of {rows.node.hint} rows, not of 113 or 131")

    def of_no_size(self, v):
        raise ValueError("not of 1131")

    said = refused(vertex)[0]
    assert said.endswith("rows, not of 113 or 131 (13 is n, unless it is a size of your own)")
    assert refused(of_no_size)[0].endswith("ValueError: not of 1131")


def test_values_in_python_in_a_helper_of_the_user():
    def is_large(values):
        return bool(values.sum() > 3)

    def vertex(self, v):
        x = v.pull("x")
        v.scatter(h=x if is_large(x) else -x, m=v.gather(0).m)

    said, *lines = refused(vertex)
    assert "torch.where" in said
    assert line_of(vertex, "is_large(x)") in lines[0]
    assert lines[2] == f"  there in {line_of(is_large, 'bool(')}"


def test_rows_that_a_helper_mixes():
    def normalised(values):
        return values - values.mean(0)

    def vertex(self, v):
        v.scatter(h=normalised(v.gather(0).h), m=v.gather(0).m)
        v.push(h=normalised(v.pull("x")))

    text = "\n".join(refused(vertex))
    assert line_of(vertex, "v.scatter") in text
    assert f"there in {line_of(normalised, 'mean(0)')}" in text


def test_whose_code_it_is():
    assert is_users(__file__)
    for other in (torch.__file__, nn.functional.__file__, pytest.__file__, functools.__file__, vf.__file__):
        assert not is_users(other)
    assert not is_users(linecache.__file__)
    assert not is_users("<string>")
    assert is_users("<stdin>")
