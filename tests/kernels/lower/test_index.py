"""Places as sums of variables: whatever is simplified, the value is the same."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from vertexflow.kernels.lower.index import ZERO, Index, Var, linear, of, unravel

VARIABLES = [Var("a", 7), Var("b", 12), Var("m")]


@st.composite
def places(draw):
    """A place made in some steps, with the same steps for Python to follow."""
    at = of(draw(st.sampled_from(VARIABLES)))
    text = str(at)
    for _ in range(draw(st.integers(0, 6))):
        operation, number = draw(st.sampled_from(["+", "*", "//", "%", "+ v"])), draw(st.integers(1, 9))
        if operation == "+ v":
            other = draw(st.sampled_from(VARIABLES))
            at, text = at + of(other), f"({text}) + {other}"
        else:
            at = {"+": at.__add__, "*": at.__mul__, "//": at.__floordiv__, "%": at.__mod__}[operation](number)
            text = f"({text}) {operation} {number}"
    return at, text


@given(places(), st.integers(0, 6), st.integers(0, 11), st.integers(0, 100))
def test_simplified_places_are_the_same(place, a, b, m):
    at, text = place
    values = {"a": a, "b": b, "m": m}
    found = eval(str(at), values)
    assert found == eval(text, values)
    assert at.least <= found <= at.most


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_unravelling_undoes_linear_places(shape, data):
    coords = tuple(of(Var(f"i{dim}", extent)) for dim, extent in enumerate(shape))
    flat = linear(coords, shape)
    values = {f"i{dim}": data.draw(st.integers(0, extent - 1)) for dim, extent in enumerate(shape)}
    assert [eval(str(at), dict(values)) for at in unravel(flat, shape)] == list(values.values())
    if 1 not in shape:
        assert unravel(flat, shape) == coords
    strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
    assert eval(str(flat), dict(values)) == sum(values[f"i{dim}"] * stride for dim, stride in enumerate(strides))


def test_what_is_left_of_chunks():
    """The second of three chunks of 8 columns begins at column 8."""
    j = Var("j", 8)
    assert (of(j) + 8).offset_from(j) == 8
    assert str((of(j) + 8) // 8) == "1"
    assert (of(j) + 8) % 8 == of(j)
    assert Index(constant=3) == ZERO + 3
