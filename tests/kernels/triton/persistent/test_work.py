"""The stages of a persistent kernel: those that a launch a step would launch, and where programs meet between them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertexflow.kernels.triton.persistent.work import Kind, Work, most_sizes, sizes_at, work_of
from vertexflow.kernels.triton.source import Launch
from vertexflow.kernels.triton.tiles import Tile, choose


def launch(level=0, on_edges=False, columns=64, accumulators=0):
    return Launch("some", [], [], choose(columns, accumulators, 1), on_edges, set(), level, [])


def table(*lines):
    """Steps of (start, stop, edge_start, edge_stop)."""
    return np.array([(start, stop, -1, -1, 0, *edges) for start, stop, *edges in lines], np.int32)


def test_a_step_of_two_levels():
    steps = table((0, 4, 0, 0), (4, 7, 0, 5), (7, 8, 5, 7))
    inner = [launch(0, on_edges=True), launch(1), launch(1, columns=3)]
    work = work_of([Kind(inner, [launch()], num_leaves=4, group_start=100)], steps)
    assert work.lines.tolist() == [
        #  kernel, start, inner, absolute, edge_start, rows, meet
        [3, 0, -4, 100, 0, 4, 1, 0],
        [0, 4, 0, 104, 0, 5, 1, 0],
        [1, 4, 0, 104, 0, 3, 0, 0],  # of one level: they do not depend on each other
        [2, 4, 0, 104, 0, 3, 1, 0],
        [0, 7, 3, 107, 5, 2, 1, 0],
        [1, 7, 3, 107, 5, 1, 0, 0],
        [2, 7, 3, 107, 5, 1, 0, 0],
    ]


def test_steps_of_two_kinds_that_take_turns():
    """Kernels are numbered one kind after the other; steps stay in their order, and programs meet between all of them."""
    steps = table((0, 4, 0, 0), (0, 2, 0, 0), (4, 7, 0, 5), (2, 5, 0, 0))
    steps[:, 4] = [3, 1, 3, 1]
    kinds = [Kind([launch()], [launch()], 4, 100, number=3), Kind([launch(), launch(1)], [], 0, 200, number=1)]
    assert work_of(kinds, steps).lines.tolist() == [
        [1, 0, -4, 100, 0, 4, 1, 0],
        [2, 0, 0, 200, 0, 2, 1, 0],
        [3, 0, 0, 200, 0, 2, 1, 0],
        [0, 4, 0, 104, 0, 3, 1, 0],
        [2, 2, 2, 202, 0, 3, 1, 0],
        [3, 2, 2, 202, 0, 3, 0, 0],
    ]


@st.composite
def schedules(draw):
    """Kernels and steps, in any order."""
    kernels = st.builds(launch, st.integers(0, 2), st.booleans(), st.integers(1, 70), st.integers(0, 3))
    inner, leaf = (sorted(draw(st.lists(kernels, max_size=3)), key=lambda one: one.level) for _ in range(2))
    rows, edges = (np.cumsum([0, *draw(st.lists(st.integers(0, 90), min_size=4, max_size=4))]) for _ in range(2))
    steps = table(*zip(rows, rows[1:], edges, edges[1:], strict=False))
    return inner, leaf, steps[draw(st.permutations(range(4)))], int(draw(st.sampled_from(rows.tolist())))


@given(schedules())
def test_stages_are_the_launches_of_a_launch_a_step(case):
    inner, leaf, steps, num_leaves = case
    expected, places = [], []
    for number, (start, stop, _, _, _, edge_start, edge_stop) in enumerate(steps.tolist()):
        launches, first = (inner, 0) if start >= num_leaves else (leaf, len(inner))
        for at, one in enumerate(launches):
            rows = edge_stop - edge_start if one.on_edges else stop - start
            if rows > 0:
                expected.append([first + at, start, start - num_leaves, 7 + start, edge_start, rows])
                places.append((number, one.level))
    meets = [int(here != after) for here, after in itertools.pairwise(places)]
    work = work_of([Kind(inner, leaf, num_leaves, group_start=7)], steps)
    assert work.lines[:, :6].tolist() == expected
    assert work.lines[:-1, 6].tolist() == meets


def test_every_row_and_column_is_in_a_tile():
    work = work_of([Kind([launch(columns=70, accumulators=2)], [], 0, 0)], table((0, 65, 0, 0), (65, 66, 0, 0)))
    assert work.tiles(((64, 64),)).tolist() == [4, 2]
    assert work.tiles(((16, 16),)).tolist() == [25, 5]


@pytest.mark.parametrize(("rows", "size"), [(16, (16, 16)), (4096, (64, 32))])
def test_few_rows_take_small_tiles_and_many_rows_large_ones(rows, size):
    """With 132 multiprocessors and products of 256 columns."""
    steps = table(*((first * rows, (first + 1) * rows, 0, 0) for first in range(50)))
    one = launch(columns=256, accumulators=2)
    work = work_of([Kind([one], [], 0, 0)], steps)
    assert sizes_at(work.launches, work.size_number(132)) == (size,)


def test_kernels_with_fewer_sizes_keep_their_smallest():
    few = Launch("few", [], [], Tile(8, 16, ((4, 8),)), False, set(), 0, [])
    many = launch(columns=256, accumulators=1)
    assert most_sizes([few, many]) == len(many.tile.sizes) > 2
    assert sizes_at([few, many], 2) == ((4, 8), many.tile.sizes[2])
    assert isinstance(work_of([Kind([few], [many], 0, 0)], table((0, 3, 0, 0))), Work)
