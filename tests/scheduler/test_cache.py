"""Equal structures are scheduled once, and no more is kept than a bound allows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given

from tests.scheduler.random_graphs import batches
from vertexflow.graph.inputs.build import chain, graph, tree
from vertexflow.graph.inputs.pack import GraphBatch, pack, replaced
from vertexflow.scheduler import FSM, cache, cached_schedule, schedule


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    cache.clear_cache()
    yield
    cache.clear_cache()


def test_the_same_structure_is_scheduled_once() -> None:
    assert cached_schedule(pack([chain(3), chain(5)])) is cached_schedule(pack([chain(3), chain(5)]))


@given(batches())
def test_what_is_found_is_what_would_be_made(batch: GraphBatch) -> None:
    for _ in range(2):
        assert cached_schedule(batch).arrays.tolist() == schedule(batch).arrays.tolist()


def test_the_same_edges_in_other_graphs_have_rows_of_their_own() -> None:
    apart, together = pack([chain(1), chain(2), chain(1)]), pack([graph(4, [(1, 2)])])
    cached_schedule(apart)
    assert cached_schedule(together).arrays.tolist() == schedule(together).arrays.tolist()


def test_what_differs_is_scheduled_anew() -> None:
    batch = pack([tree(((0, 1), 2))])
    machine = FSM()
    schedules = [
        cached_schedule(batch),
        cached_schedule(batch, "height"),
        cached_schedule(batch, num_slots=3),
        cached_schedule(batch, machine),
        cached_schedule(batch, FSM()),
        cached_schedule(pack([tree((0, (1, 2)))])),
        cached_schedule(pack([graph(3, [(0, 2), (1, 2)], kind=["a", "a", "b"])])),
        cached_schedule(pack([graph(3, [(0, 2), (1, 2)], kind=["a", "c", "b"])])),
        cached_schedule(pack([graph(3, [(0, 2), (1, 2)], kind=["a", "c", "d"])])),
    ]
    assert len({id(one) for one in schedules}) == len(schedules)
    assert cached_schedule(batch, machine) is schedules[3]


def test_a_hash_that_is_equal_by_chance_deceives_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache._core, "hash", lambda array, seed: 7)
    one, other = pack([graph(3, [(0, 2), (1, 2)])]), pack([graph(3, [(0, 1), (1, 2)])])
    assert cached_schedule(one).num_steps == 2
    assert cached_schedule(other).num_steps == 3


def test_the_least_recently_used_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [10, 11, 12]
    first = cached_schedule(pack([chain(10)]))
    size = cache._bytes
    monkeypatch.setattr(cache, "MAX_BYTES", int(2.5 * size))
    cached_schedule(pack([chain(11)]))
    assert cached_schedule(pack([chain(10)])) is first
    cached_schedule(pack([chain(12)]))
    assert cached_schedule(pack([chain(10)])) is first
    assert cache._bytes <= cache.MAX_BYTES
    assert len(cache._kept) == len(lengths) - 1


def test_a_policy_that_cannot_be_told_from_others_is_asked_every_time() -> None:
    class Counting:
        __hash__ = None  # type: ignore[assignment]
        calls = 0

        def steps(self, structure: GraphBatch) -> np.ndarray:
            self.calls += 1
            return np.arange(structure.num_vertices)

    policy = Counting()
    batch = pack([chain(3)])
    assert cached_schedule(batch, policy).num_steps == cached_schedule(batch, policy).num_steps == 3
    assert policy.calls == 2


@given(batches())
def test_the_hash_sees_every_element(batch: GraphBatch) -> None:
    before = cache._core.hash(batch.offset, 0)
    for at in range(len(batch.offset)):
        changed = batch.offset.copy()
        changed[at] ^= 1 << (at % 31)
        assert cache._core.hash(changed, 0) != before
    assert cache._core.hash(replaced(batch).offset, 0) == before
    assert cache._core.hash(batch.offset, 1) != before
