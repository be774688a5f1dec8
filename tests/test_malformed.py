"""Malformed input, in streams: a right result or a clear error, never a crash, a hang or an error of another sort."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vertexflow as vf
from tests.scheduler.random_graphs import batches, graphs
from vertexflow.graph.inputs.pack import replaced
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
        graph = vf.graph(
            count, [child, parent] if child.shape != parent.shape else np.stack([child, parent]), slots=slots
        )
    except vf.VertexFlowError as error:
        return clear(error)
    except MemoryError:
        pytest.fail("memory was asked for before the arguments were looked at")
    assert graph.num_vertices == count
    return None


@given(st.integers(1, 6), st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6), st.none() | st.lists(NUMBERS, max_size=6))
def test_graph_of_any_pairs(count, pairs, slots):
    try:
        graph = vf.graph(count, pairs, slots=slots)
    except vf.VertexFlowError as error:
        return clear(error)
    assert graph.num_edges == len(pairs)
    assert vf.schedule(vf.pack([graph])).num_vertices == count
    return None


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint64"])
def test_strides_do_not_matter(dtype):
    table = np.array([[1, 2], [0, 2], [0, 1]], dtype=dtype)  # pairs, the last first
    graph = vf.graph(3, table[::-1].T)
    assert graph.child.tolist() == [0, 0, 1]
    assert graph.offset.tolist() == [0, 0, 1, 3]


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
    damaged = replaced(batch, **{name: array})
    policy = data.draw(st.sampled_from([*POLICIES, "fsm"]))
    try:
        schedule = vf.schedule(damaged, policy, num_slots=8)
        edge_lists(damaged, schedule)
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


# What is wrong is named, whatever it is.


@pytest.mark.parametrize(
    ("edges", "more", "match"),
    [
        (torch.zeros(2, 1, dtype=torch.bfloat16), {}, "edges cannot be read as an array: .*BFloat16"),
        (torch.zeros(2, 1, dtype=torch.int64, device="meta"), {}, "edges cannot be read as an array: .*meta"),
        (torch.zeros(2, 1, dtype=torch.int64).to_sparse(), {}, "edges cannot be read as an array: .*Sparse"),
        (np.array([[2**64 - 1], [1]], np.uint64), {}, "children of edges: 18446744073709551615 is out of range"),
        (np.array([[0.0], [np.nan]]), {}, "children of edges must be integers, not float64"),
        ([(0, 2**63)], {}, "must be integers"),
        ([(0, 1)], {"slots": np.array([2**63], np.uint64)}, "slots: 9223372036854775808 is out of range"),
        ([(0, 1)], {"slots": [[0], [0, 1]]}, "slots cannot be read as an array"),
        ([(0, 1)], {"slots": "left"}, "slots must be integers"),
        ([(0, 1)], {"slots": 0}, "slots must be one list of numbers"),
        ([(0, 1)], {"slots": np.broadcast_to(np.int64(0), 2**31 + 1)}, "slots: 2147483649 of them"),
        ([(0, 1)], {"kind": [[0], [0, 1]]}, "kinds cannot be read as an array"),
        ([(0, 1)], {"kind": [None, "a"]}, "kinds of several types cannot be sorted"),
        ([(0, 1)], {"kind": np.broadcast_to(np.int64(0), 2**31 + 1)}, "2147483649 kinds for 2 vertices"),
        (["ab"], {}, "children of edges must be integers"),
        ("ab", {}, r"edge 0 is \('a',\)"),
        (3, {}, "edges are pairs .* not int"),
    ],
)
def test_what_is_wrong_with_a_graph_is_named(edges, more, match):
    with pytest.raises(vf.VertexFlowError, match=match):
        vf.graph(2, edges, **more)


@pytest.mark.parametrize("count", [None, "2", 2.0, float("nan"), True, -1, 0])
def test_a_number_of_vertices_that_is_none(count):
    with pytest.raises(vf.VertexFlowError, match="num_vertices"):
        vf.graph(count, [])


def test_an_unsigned_parent_is_not_taken_for_a_root():
    with pytest.raises(vf.GraphError, match="parents: 18446744073709551615 is out of range"):
        vf.tree_from_parents(np.array([1, 2**64 - 1], np.uint64))


def misaligned(array):
    return np.frombuffer(b"." + array.tobytes(), np.uint8)[1:].view(array.dtype)


DAMAGE = {
    "list": np.ndarray.tolist,
    "int64": lambda array: array.astype(np.int64),
    "other bytes first": lambda array: array.astype(">i4"),
    "column": lambda array: array[:, None],
    "every other": lambda array: np.repeat(array, 2)[::2],
    "reversed": lambda array: array[::-1],
    "longer": lambda array: np.append(array, array[-1:]),
    "shorter": lambda array: array[:-1],
    "empty": lambda array: array[:0],
    "negative": lambda array: array - 9,
    "out of range": lambda array: array + 99,
    "misaligned": misaligned,
}
BATCH = vf.pack([vf.graph(4, [(0, 2), (1, 2), (2, 3)], kind=[*"abab"]), vf.graph(2, [(0, 1)], kind=[*"ab"])])


@pytest.mark.parametrize("policy", [*POLICIES, "fsm"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["child", "slot", "offset", "kind_index", "graph_offset"])
@pytest.mark.cases(1)
def test_what_is_wrong_with_a_batch_is_named(name, damage, policy):
    damaged = replaced(BATCH, **{name: DAMAGE[damage](getattr(BATCH, name))})
    with pytest.raises(vf.VertexFlowError, match=r"child|slot|offset|kind"):
        vf.schedule(damaged, policy)


@pytest.mark.parametrize("policy", [*POLICIES, "fsm"])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kinds": ()}, "kinds is empty"),
        ({"kinds": (), "kind_index": None}, "kinds is empty"),
        ({"kinds": 2}, "kinds must be a tuple or None, not int"),
        ({"kinds": ("a",)}, "kind_index of vertex 1 is 1, which is out of range; there are 1 kinds"),
        ({"num_vertices": 5}, "num_vertices is 5, but offset is that of 6 vertices"),
        ({"num_vertices": 0}, "num_vertices is 0"),
        ({"offset": None}, "offset: give NumPy arrays"),
        ({"num_slots": "2"}, "num_slots is '2'; give an integer"),
        ({"num_slots": 2.0}, "num_slots is 2.0; give an integer"),
        ({"num_slots": 2**63}, "num_slots is 9223372036854775808"),
    ],
)
def test_numbers_that_do_not_fit_the_arrays(change, match, policy):
    with pytest.raises(vf.VertexFlowError, match=match):
        vf.schedule(replaced(BATCH, **change), policy)


@pytest.mark.parametrize("damage", ["list", "int64", "column", "reversed", "longer", "shorter", "empty", "misaligned"])
def test_what_is_wrong_with_a_packed_graph_is_named(damage):
    with pytest.raises(vf.VertexFlowError, match="a graph's structure"):
        vf.pack([vf.chain(2), vf.InputGraph(DAMAGE[damage](vf.chain(3).structure))])


@pytest.mark.parametrize("answer", [None, "abc", [[1], [1, 2]], {}, [2**70] * 6, torch.zeros(6, device="meta")])
def test_a_policy_that_answers_no_numbers_is_named(answer):
    with pytest.raises(vf.GraphError, match="policy 'SimpleNamespace' must return one integer for each of 6 vertices"):
        vf.schedule(BATCH, SimpleNamespace(steps=lambda structure: answer))


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_what_a_policy_raises_is_its_own(error):
    def steps(structure):
        raise error("mine")

    with pytest.raises(error, match=r"^mine$"):
        vf.schedule(BATCH, SimpleNamespace(steps=steps))


LONG = {
    "schedule": "vf.schedule(batch)",
    "policy": "vf.scheduler.POLICIES['agenda'].steps(batch)",
    "reverse": "[replaced(batch, derived=Derived()).reversed() for _ in range(50)]",
}


@pytest.mark.slow
def test_ctrl_c_stops_a_long_call():
    code = """
        import signal
        from vertexflow.graph.inputs.derived import Derived
        from vertexflow.graph.inputs.pack import replaced
        import vertexflow as vf
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs in the background ignores it
        batch = vf.pack([vf.chain(10_000_000)])
    """
    calling = """
        print("ready", flush=True)
        try:
            while True:
                {call}
        except KeyboardInterrupt:
            print("stopped", flush=True)
    """
    code = "".join(map(textwrap.dedent, [code, *(calling.format(call=call) for call in LONG.values())]))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for what in LONG:
            assert process.stdout.readline() == "ready\n", what
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            sent = time.perf_counter()
            assert process.stdout.readline() == "stopped\n", what
            assert time.perf_counter() - sent < 5, what
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
