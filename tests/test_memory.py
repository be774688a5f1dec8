"""Memory does not grow with what a process has seen: structures, states of a model, models."""

from __future__ import annotations

import gc
import linecache
import weakref

import numpy as np
import pytest
import torch
from torch.fx import graph_module

import vertexflow as vf
from vertexflow.call import programs
from vertexflow.call.programs import MOST_VERSIONS
from vertexflow.graph.symbolic.sizes import StepSizes
from vertexflow.kernels.compiled import Compiled
from vertexflow.kernels.memory import pool
from vertexflow.scheduler import cache

from .models import FromCode
from .promises import SHAPES, SIZE


def resident():
    """Bytes of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def vertex(self, v):
    h = v.gather(0).h + v.pull("x") * self.scale
    v.scatter(h=h)
    v.push(h=h)


def chained(scale=1.0):
    """A model that is traced anew whenever its scale changes, with PyTorch's operations, which is soon done."""
    model = FromCode(vertex, {"h": SIZE}, scale=scale)
    model.backend = "torch"
    return model


def programs_alive():
    gc.collect()
    return sum(type(each) is Compiled for each in gc.get_objects())


@pytest.mark.slow
def test_10_000_different_structures(monkeypatch):
    """With schedules of a megabyte at most, so that the cache is full soon."""
    monkeypatch.setattr(cache, "MAX_BYTES", 1 << 20)
    cache.clear_cache()
    shape, random = SHAPES["DAGs"], np.random.default_rng(0)
    model = shape.model()
    x, seen, before = torch.randn(32, SIZE), set(), 0
    for number in range(10_000):
        batch = vf.pack([shape.graph(random), shape.graph(random)])
        seen.add((batch.child.tobytes(), batch.offset.tobytes(), batch.slot.tobytes()))
        with torch.set_grad_enabled(number % 8 == 0):
            h = model(batch, x=x[: batch.num_vertices]).h
        if h.requires_grad:
            h.sum().backward()
        if number == 1_500:
            gc.collect()
            before = resident()
    gc.collect()
    assert len(seen) > 8_000
    assert resident() - before < 4 << 20
    assert len(cache._kept) < 600
    assert sum(cache._size(arrays, schedule) for arrays, schedule in cache._kept.values()) == cache._bytes <= 1 << 20
    assert len(model._programs.versions) == 1
    assert len(batch.derived.orders) < 8


@pytest.mark.slow
def test_the_cache_of_schedules_counts_all_that_it_holds():
    cache.clear_cache()
    gc.collect()
    before = resident()
    shape, random = SHAPES["DAGs"], np.random.default_rng(0)
    for _ in range(6_000):
        cache.cached_schedule(vf.pack([shape.graph(random), shape.graph(random)]), "depth", 2)
    gc.collect()
    held, counted = resident() - before, cache._bytes
    cache.clear_cache()
    assert held < 1.5 * counted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*was traced in")
def test_200_states_of_one_model_on_one_batch():
    before = programs_alive()
    model, batch, x = chained(), vf.pack([vf.chain(3)]), torch.randn(3, SIZE)
    sizes = []
    for number in range(200):
        model.scale = 1.0 + number
        model(batch, x=x)
        if number in (99, 199):
            assert programs_alive() - before <= MOST_VERSIONS
            sizes.append(resident())
    assert len(model._programs.versions) == MOST_VERSIONS
    assert sizes[1] - sizes[0] < 16 << 20
    del model
    assert programs_alive() == before  # though the batch is still there


def test_models_that_nobody_has_any_more_are_gone():
    batch, x, dead = vf.pack([vf.chain(3)]), torch.randn(3, SIZE), []
    for _ in range(5):
        model = chained()
        loss = model(batch, x=x).h.sum()
        dead += [weakref.ref(model), *map(weakref.ref, model._programs.latest.values())]
        del model, loss
    gc.collect()
    assert len(dead) == 10
    assert not [each for each in dead if each() is not None]


def test_large_pieces_of_memory_that_wait_are_limited(monkeypatch):
    pool.clear()
    monkeypatch.setattr(pool, "KEPT", 3 * pool.LARGE)
    for number in range(50):
        kept = [pool.empty((pool.LARGE + number,), torch.uint8, torch.device("cpu")) for _ in range(4)]
        del kept
    assert sum(piece.nbytes for piece in pool._free) <= 3 * pool.LARGE
    pool.clear()


@pytest.mark.filterwarnings("ignore:.*traced in 8 different states")
@pytest.mark.slow
def test_traces_that_nobody_has_any_more_are_gone(monkeypatch):
    """PyTorch would remember the sizes of each, and the text of its graph."""
    monkeypatch.setattr(programs, "MOST_VERSIONS", 2)
    model, x = chained(), torch.randn(2, SIZE)

    others = [
        value for value in gc.get_objects() if type(value) is StepSizes
    ]  # of other tests; kept here, so that none goes

    def trace_anew(count):
        for _ in range(count):
            model.scale += 1
            model([vf.chain(2)], x=x)
        gc.collect()
        sizes = sum(type(value) is StepSizes for value in gc.get_objects()) - len(others)
        return sizes, len(graph_module._loader.eval_cache), len(linecache.cache)

    before, after = trace_anew(15), trace_anew(15)
    assert after[0] < 23  # of 30: other caches, which are limited, hold the last ones
    assert after[1:] == before[1:]
