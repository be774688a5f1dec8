"""The policy `optimal` against every schedule that there is, and against its lower bound."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertexflow.errors import GraphError
from vertexflow.scheduler.optimal import lower_bound, optimal

Arrays = tuple[int, np.ndarray, np.ndarray, "np.ndarray | None"]


def arrays(num_vertices: int, pairs: list[tuple[int, int]], kind: str | None = None) -> Arrays:
    """From (child, parent) pairs, and a letter for the kind of each vertex."""
    below = [[child for child, parent in pairs if parent == v] for v in range(num_vertices)]
    child = np.array([c for lower in below for c in lower], dtype=np.int32)
    offset = np.cumsum([0, *map(len, below)], dtype=np.int32)
    return num_vertices, child, offset, None if kind is None else np.array([ord(letter) for letter in kind])


@st.composite
def small(draw: st.DrawFn, max_vertices: int = 7) -> Arrays:
    """A DAG, numbered at random, that may have a child in two slots."""
    count = draw(st.integers(1, max_vertices))
    names = draw(st.permutations(range(count)))
    pairs = []
    for rank in range(1, count):
        pairs += [(names[low], names[rank]) for low in draw(st.lists(st.integers(0, rank - 1), max_size=3))]
    kind = draw(st.none() | st.text("abc", min_size=count, max_size=count))
    return arrays(count, pairs, kind)


def check(structure: Arrays, step: np.ndarray) -> int:
    """Check that it is a schedule in which each step is of one kind; returns how many steps it has."""
    num_vertices, child, offset, kind = structure
    assert step.dtype == np.int64
    assert step.shape == (num_vertices,)
    assert (step[child] < np.repeat(step, np.diff(offset))).all()
    num_steps = int(step.max()) + 1
    assert sorted(set(step.tolist())) == list(range(num_steps))
    if kind is not None:
        assert len({*zip(step.tolist(), kind.tolist(), strict=True)}) == num_steps
    return num_steps


def fewest(structure: Arrays) -> int:
    """By trying every subset of ready vertices of one kind at every step."""
    num_vertices, child, offset, kind = structure
    below = [frozenset(child[offset[v] : offset[v + 1]].tolist()) for v in range(num_vertices)]
    kinds = [0] * num_vertices if kind is None else kind.tolist()

    @lru_cache(None)
    def steps_left(done: frozenset[int]) -> int:
        if len(done) == num_vertices:
            return 0
        ready = [v for v in range(num_vertices) if v not in done and below[v] <= done]
        return 1 + min(
            steps_left(done | {v for at, v in enumerate(same) if subset >> at & 1})
            for same in ([v for v in ready if kinds[v] == k] for k in {kinds[v] for v in ready})
            for subset in range(1, 1 << len(same))
        )

    return steps_left(frozenset())


@given(small())
def test_no_schedule_has_fewer_steps(structure: Arrays) -> None:
    num_steps = check(structure, optimal(*structure))
    assert num_steps == fewest(structure)
    assert num_steps >= lower_bound(*structure)


@given(small(max_vertices=30))
def test_larger_graphs_never_fall_below_the_bound(structure: Arrays) -> None:
    num_steps = check(structure, optimal(*structure))
    assert num_steps >= lower_bound(*structure)
    if structure[3] is None:
        assert num_steps == lower_bound(*structure)


def test_one_kind_is_as_deep_as_its_longest_path() -> None:
    structure = arrays(5, [(0, 1), (1, 2), (0, 3), (2, 3)])
    assert optimal(*structure).tolist() == [0, 1, 2, 3, 0]
    assert lower_bound(*structure) == 4


def test_outputs_that_hang_on_every_vertex_wait_for_the_last() -> None:
    # A chain of five; every vertex of it has an output. By depth that takes nine steps.
    structure = arrays(10, [*((v, v + 1) for v in range(4)), *((v, v + 5) for v in range(5))], "nnnnnooooo")
    assert optimal(*structure).tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 5, 5]
    assert lower_bound(*structure) == 6


def test_the_ready_kind_that_waits_for_company() -> None:
    # b is ready at once, but a's chain of two leads to another b: run that chain first.
    structure = arrays(4, [(1, 2), (2, 3)], "baab")
    assert optimal(*structure).tolist() == [2, 0, 1, 2]


def test_two_chains_that_cannot_share_every_step() -> None:
    # a -> b beside b -> a: the bound is one step of each kind, but it takes three.
    structure = arrays(4, [(0, 1), (2, 3)], "abba")
    assert lower_bound(*structure) == 2
    assert check(structure, optimal(*structure)) == 3


def test_kinds_are_any_numbers() -> None:
    number, child, offset, _ = arrays(3, [(0, 2), (1, 2)])
    assert optimal(number, child, offset, np.array([7, 7, -3])).tolist() == [0, 0, 1]


def test_vertices_computed_already_are_no_children() -> None:
    number, child, offset, _ = arrays(2, [(0, 1), (2, 1), (5, 0)])
    assert optimal(number, child, offset, None).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("pairs", "step"),
    [
        ([(0, 0)], [-1, 0, 0, 0]),
        ([(0, 1), (1, 0), (0, 2)], [-1, -1, -1, 0]),
        ([(0, 1), (1, 2), (2, 1), (2, 3)], [0, -1, -1, -1]),
        ([(0, 1), (1, 2), (2, 3), (3, 0)], [-1, -1, -1, -1]),
    ],
)
def test_what_a_cycle_keeps_from_being_ready_gets_minus_one(pairs: list[tuple[int, int]], step: list[int]) -> None:
    for kind in (None, "aaaa"):
        structure = arrays(4, pairs, kind)
        assert optimal(*structure).tolist() == step
        assert lower_bound(*structure) == max(step) + 1


def test_a_search_that_is_too_long_says_what_to_do() -> None:
    rng = np.random.default_rng(0)
    pairs = [(int(rng.integers(v)), v) for v in range(1, 60) for _ in range(2)]
    structure = arrays(60, pairs, "".join(rng.choice([*"abcd"], 60)))
    with pytest.raises(GraphError, match=r"60 vertices of 4 kinds within 20 states; .* use 'agenda' or 'fsm'"):
        optimal(*structure, states=20)
    check(structure, optimal(*structure))
