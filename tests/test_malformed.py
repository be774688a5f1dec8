"""Malformed input, in streams: a right result or a clear error, never a crash, a hang or an error of another sort."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vertexflow as vf
from tests.scheduler.random_graphs import batches, graphs
from vertexflow.scheduler import POLICIES, edge_lists

NUMBERS = st.one_of(
    st.integers(-3, 8),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), 2**32, 2**63 - 1, -(2**63)]),
)
DTYPES = st.sampled_from(["int8", "int32", "int64", "uint8", "uint64", "float32", "bool", "complex64", "str", "object"])


@st.composite
def arrays(draw, max_size: int = 8) -> np.ndarray:
    """An array of any dtype, shape and strides."""
    values = np.array(draw(st.lists(NUMBERS, max_size=max_size)), dtype=np.int64)
    array = values.astype(draw(DTYPES))
    shape = draw(st.sampled_from(["plain", "reversed", "every other", "column", "twice", "read-only"]))
    if shape == "reversed":
        return array[::-1]
    if shape == "every other":
        return np.repeat(array, 2)[::2]
    if shape == "column":
        return array[:, None]
    if shape == "twice":
        return np.stack([array, array])
    array.flags.writeable = shape != "read-only"
    return array


def clear(error: Exception) -> None:
    """A message says something, and is no copy of the core's signature."""
    assert len(str(error)) > 20
    assert "pybind" not in str(error)
    assert "incompatible function arguments" not in str(error)


@given(NUMBERS.filter(lambda count: count != 2**31 - 1), arrays(), arrays(), st.none() | arrays())
def test_graph_of_any_arrays(count, child, parent, slots):
    try:
        made = vf.graph(
            count, [child, parent] if child.shape != parent.shape else np.stack([child, parent]), slots=slots
        )
    except vf.VertexFlowError as error:
        return clear(error)
    except MemoryError:
        pytest.fail("memory was asked for before the arguments were looked at")
    assert made.num_vertices == count
    return None


@given(st.integers(1, 6), st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6), st.none() | st.lists(NUMBERS, max_size=6))
def test_graph_of_any_pairs(count, pairs, slots):
    try:
        made = vf.graph(count, pairs, slots=slots)
    except vf.VertexFlowError as error:
        return clear(error)
    assert made.num_edges == len(pairs)
    assert vf.schedule(vf.pack([made])).num_vertices == count
    return None


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint64"])
def test_strides_do_not_matter(dtype):
    table = np.array([[1, 2], [0, 2], [0, 1]], dtype=dtype)  # pairs, the last first
    made = vf.graph(3, table[::-1].T)
    assert made.child.tolist() == [0, 0, 1]
    assert made.offset.tolist() == [0, 0, 1, 3]


def test_more_edges_than_can_be_counted_are_refused_before_they_are_read():
    many = np.broadcast_to(np.int64(0), (2, 2**31 + 1))
    with pytest.raises(vf.GraphError, match="2147483649 of them"):
        vf.graph(2, many)
    with pytest.raises(vf.GraphError, match="2147483649 of them"):
        vf.tree_from_parents(many[0])


def test_more_vertices_than_can_be_counted():
    for count in (2**31, 2**63, 10**30):
        with pytest.raises(vf.GraphError, match="a graph has at most 2147483647 vertices"):
            vf.graph(count, [])
        with pytest.raises(vf.GraphError, match="at most 2147483647 vertices"):
            vf.chain(count)


def test_a_batch_of_more_vertices_than_can_be_counted():
    """The arrays are never made: their sizes are summed first."""
    large = vf.chain(2**20)
    with pytest.raises(vf.GraphError, match=r"2147483648 vertices or edges in one batch; .* pack fewer graphs"):
        vf.pack([large] * 2**11)


@given(graphs(with_kinds=True), st.data())
def test_pack_of_damaged_graphs(graph, data):
    """Whatever stands in a graph's array, what comes of it is refused by then or is a schedule."""
    damaged = graph.structure.copy()
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(-(2**31), 2**31 - 1))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.integers(0, 4)) == 0 else damaged
    try:
        batch = vf.pack([vf.InputGraph(damaged, graph.kinds), graph])
        vf.schedule(batch, num_slots=8)
    except vf.VertexFlowError as error:
        clear(error)


@given(graphs(), arrays(max_size=20))
def test_pack_of_any_array(graph, array):
    try:
        vf.pack([graph, vf.InputGraph(array)])
    except vf.VertexFlowError as error:
        clear(error)


@given(batches(), st.sampled_from(["child", "slot", "offset", "kind_index", "graph_offset"]), st.data())
def test_schedule_of_damaged_arrays(batch, name, data):
    array = getattr(batch, name)
    if array is None or not len(array) or data.draw(st.booleans()):
        array = data.draw(arrays())
    else:
        array = array.copy()
        array[data.draw(st.integers(0, len(array) - 1))] = data.draw(st.integers(-(2**31), 2**31 - 1))
    damaged = replace(batch, **{name: array})
    policy = data.draw(st.sampled_from([*POLICIES, "fsm"]))
    try:
        made = vf.schedule(damaged, policy, num_slots=8)
        edge_lists(damaged, made)
    except (vf.VertexFlowError, ValueError) as error:
        clear(error)


@given(batches(), st.sampled_from([-1, -(2**40), 2**31, 2**64]))
def test_impossible_numbers_of_slots(batch, slots):
    try:
        vf.schedule(batch, num_slots=slots)
    except vf.VertexFlowError as error:
        return clear(error)
    assert batch.num_edges == 0 or slots >= batch.num_slots
    return None


@given(batches(), arrays())
def test_policies_that_answer_nonsense(batch, answer):
    try:
        vf.schedule(batch, SimpleNamespace(steps=lambda structure: answer))
    except vf.VertexFlowError as error:
        clear(error)


LONG = {
    "schedule": "vf.schedule(batch)",
    "policy": "vf.scheduler.POLICIES['agenda'].steps(batch)",
    "reverse": "[replace(batch, cache={}).reversed() for _ in range(50)]",
}


@pytest.mark.parametrize("what", LONG)
def test_ctrl_c_stops_a_long_call(what):
    code = f"""
        import sys, time
        from dataclasses import replace
        import vertexflow as vf
        batch = vf.pack([vf.chain(10_000_000)])
        print("ready", flush=True)
        start = time.perf_counter()
        try:
            while True:
                {LONG[what]}
        except KeyboardInterrupt:
            print("stopped", flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        asked = time.perf_counter()
        assert re.match("stopped", process.stdout.readline())
        assert time.perf_counter() - asked < 5
    finally:
        process.kill()
        process.wait()
