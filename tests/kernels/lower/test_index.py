"""Places as sums of variables: whatever is simplified, the value is the same."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from vertexflow.kernels.lower.index import ANY, ZERO, Index, Var, index_of, linear, unravel

VARIABLES = [Var("a", 7), Var("b", 12), Var("m")]


@st.composite
def places(draw):
    """A place made in some steps, with the same steps for Python to follow."""
    at = index_of(draw(st.sampled_from(VARIABLES)))
    text = str(at)
    for _ in range(draw(st.integers(0, 6))):
        operation, number = draw(st.sampled_from(["+", "*", "//", "%", "+ v", "flip"])), draw(st.integers(1, 9))
        if operation == "flip":
            at, text = at * -1 + at.most, f"{at.most} - ({text})"
        elif operation == "+ v":
            other = draw(st.sampled_from(VARIABLES))
            at, text = at + index_of(other), f"({text}) + {other}"
        else:
            at = {"+": at.__add__, "*": at.__mul__, "//": at.__floordiv__, "%": at.__mod__}[operation](number)
            text = f"({text}) {operation} {number}"
    return at, text


@given(places(), st.integers(0, 6), st.integers(0, 11), st.integers(0, 100))
def test_simplified_places_are_the_same(place, a, b, m):
    at, text = place
    values = {"a": a, "b": b, "m": m}
    value = eval(str(at), values)
    assert value == eval(text, values)
    assert at.least <= value <= at.most


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_unravelling_undoes_linear_places(shape, data):
    coords = tuple(index_of(Var(f"i{dim}", extent)) for dim, extent in enumerate(shape))
    flat = linear(coords, shape)
    values = {f"i{dim}": data.draw(st.integers(0, extent - 1)) for dim, extent in enumerate(shape)}
    assert [eval(str(at), dict(values)) for at in unravel(flat, shape)] == list(values.values())
    if 1 not in shape:
        assert unravel(flat, shape) == coords
    strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
    assert eval(str(flat), dict(values)) == sum(values[f"i{dim}"] * stride for dim, stride in enumerate(strides))


@given(st.lists(st.sampled_from([[4], [2, 2], [1, 4], [2, 2, 1]]), max_size=6), st.data())
def test_what_is_turned_around_within_a_row_stays_in_its_row(shapes, data):
    """Whatever else a row is seen as meanwhile; also where a vertex has several entries in the first dimension."""
    row, shape = Var("i"), [ANY, 4]
    coords = (index_of(row), index_of(Var("j", 4)))
    for inner in shapes:
        coords = (coords[0], *(place * -1 + (extent - 1) for place, extent in zip(coords[1:], shape[1:], strict=True)))
        coords, shape = unravel(linear(coords, shape), [ANY, *inner]), [ANY, *inner]
        per_vertex = data.draw(st.sampled_from([1, 2, 4]))
        merged = [per_vertex * ANY, 4 // per_vertex]
        coords = unravel(linear(unravel(linear(coords, shape), merged), merged), shape)
        assert coords[0] == index_of(row)
    if not shapes:
        assert coords[0].is_row


def test_what_is_left_of_chunks():
    """The second of three chunks of 8 columns begins at column 8."""
    j = Var("j", 8)
    assert (index_of(j) + 8).offset_from(j) == 8
    assert str((index_of(j) + 8) // 8) == "1"
    assert (index_of(j) + 8) % 8 == index_of(j)
    assert Index(constant=3) == ZERO + 3


def test_the_one_place_that_there_is_needs_no_bounds():
    """So that a column that stands beside others is still read at its row."""
    row, j = index_of(Var("i")), index_of(Var("j", 3))
    assert linear((row, (j + -1).clipped(1)), [ANY, 1]) == row
