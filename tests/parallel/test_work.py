"""What is counted of a batch: rows of its steps, and work, as counted by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf
from vertexflow.parallel.calibration import ALWAYS_FRESH
from vertexflow.parallel.cluster import Cluster, Link
from vertexflow.parallel.levels import levels_of
from vertexflow.parallel.observe import observe
from vertexflow.parallel.predict import place, plain_work, step_seconds, work_of_ranks
from vertexflow.parallel.work import COUNTED

from ..models import BinaryTreeLSTM, TreeRNN
from ..scheduler.random_graphs import graphs as random_graphs

TREES = [vf.tree(((0, 1), 2)), vf.chain(4), vf.tree((0, 1))]


def whole(observation) -> dict[str, float]:
    rank = np.zeros(observation.num_graphs, np.int64)
    return dict(zip(COUNTED, sum(work_of_ranks(part, rank, 1)[0] for part in observation.parts), strict=True))


@given(graphs=st.lists(random_graphs(), min_size=1, max_size=4))
@settings(max_examples=30)
def test_levels_are_the_steps_of_the_schedule(graphs):
    batch = vf.pack(graphs)
    rows, edges = levels_of(batch).of_ranks(np.zeros(len(graphs), np.int64), 1)
    steps = vf.schedule(batch).steps
    assert sorted(rows[rows > 0]) == sorted(stop - start for start, stop in steps)
    assert edges.sum() == batch.num_edges
    # Alone and side by side, graphs have the same rows.
    apart, _ = levels_of(batch).of_ranks(np.arange(len(graphs)), len(graphs))
    np.testing.assert_array_equal(apart.sum(0), rows[0])
    for number, graph in enumerate(graphs):
        alone, _ = levels_of(vf.pack([graph])).of_ranks(np.zeros(1, np.int64), 1)
        assert sorted(apart[number][apart[number] > 0]) == sorted(alone[alone > 0])


def test_products_of_a_tree_lstm_as_counted_by_hand():
    batch = vf.pack(TREES)
    leaves, count = len(batch.leaves), batch.num_vertices
    inner, n, m = count - leaves, 8, 6
    total = whole(observe(BinaryTreeLSTM(m, n), (batch, {"x": torch.empty(count, m, device="meta")})))
    before = 2 * m * 3 * n * count  # of w
    step = 2 * 2 * n * 5 * n * inner  # of u
    assert total["flops"] == 2 * before + 3 * step  # the inputs need no gradient
    steps = int((levels_of(batch).of_ranks(np.zeros(3, np.int64), 1)[0] > 0).sum()) - 1
    assert total["weights"] == 4 * (m * 3 * n + 2 * steps * 2 * n * 5 * n)
    # i, o, u and tanh(c) of all, two forget gates of inner ones; tanh(c) is made again for the derivative.
    assert total["slow"] == 5 * n * count + 2 * n * inner


@pytest.mark.slow
def test_where_pytorch_is_called_its_calls_are_counted(monkeypatch):
    batch = vf.pack(TREES)
    x = {"x": torch.empty(batch.num_vertices, 4, device="meta")}
    native = whole(observe(BinaryTreeLSTM(4, 4), (batch, x)))
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")
    torch_calls = whole(observe(BinaryTreeLSTM(4, 4), (batch, x)))
    assert native["calls"] == torch_calls["launches"] == torch_calls["small"] == 0
    assert torch_calls["calls"] > native["launches"] + native["small"] > 0
    assert torch_calls["flops"] == native["flops"]


def test_ranks_have_together_what_one_has():
    batch = vf.pack(TREES * 4)
    (part,) = observe(BinaryTreeLSTM(4, 4), (batch, {"x": torch.empty(batch.num_vertices, 4, device="meta")})).parts
    one, four = (work_of_ranks(part, np.arange(12) % ranks, ranks) for ranks in (1, 4))
    rows = [COUNTED.index(name) for name in ("flops", "slow")]
    np.testing.assert_allclose(four.sum(0)[rows], one[0][rows])
    half = work_of_ranks(part, np.zeros(12, np.int64), 1, share=0.5)
    np.testing.assert_allclose(half[0][rows], one[0][rows] / 2)
    launches = [COUNTED.index(name) for name in ("launches", "small")]
    assert half[0][launches].sum() == one[0][launches].sum()  # there are as many steps


@pytest.mark.slow
def test_parts_of_a_batch_compute_their_forward_pass_twice():
    model, batch = BinaryTreeLSTM(4, 4), vf.pack(TREES)
    x = {"x": torch.empty(batch.num_vertices, 4, device="meta")}
    once = whole(observe(model, (batch, x)))
    model.max_vertices = 6
    twice = whole(observe(model, (batch, x)))
    made_again = 4 * batch.num_vertices  # tanh(c), in the backward pass
    assert twice["slow"] == 2 * once["slow"] - made_again
    assert once["flops"] < twice["flops"] < 2 * once["flops"]


@pytest.mark.parametrize("num_graphs", [300, 5000])
@pytest.mark.cases(1)
def test_graphs_are_given_out_evenly(num_graphs):
    batch = vf.pack([vf.chain(1 + 7 * number % 40) for number in range(num_graphs)])
    observation = observe(BinaryTreeLSTM(4, 4), (batch, {"x": torch.empty(batch.num_vertices, 4, device="meta")}))
    cluster = Cluster(1, 4, 1e9, 1e9, 1e9, {"devices": Link(0, 1e9)}, launch=1e-6)
    rank = place(observation, cluster, 4)
    (part,) = observation.parts
    seconds = work_of_ranks(part, rank, 4) @ cluster.seconds_of()
    assert seconds.max() / seconds.mean() < 1.02


def test_a_step_costs_what_its_work_costs():
    batch = vf.pack(TREES)
    observation = observe(BinaryTreeLSTM(4, 4), (batch, {"x": torch.empty(batch.num_vertices, 4, device="meta")}))
    total = whole(observation)
    only = Cluster(1, 1, 2.0, 1e30, 1e9, launch=0, call=3)
    assert step_seconds(observation, only) == pytest.approx(total["flops"] / 2 + 3)
    launches = Cluster(1, 1, 1e30, 1e30, 1e9, launch=2, small=1, call=0)
    assert step_seconds(observation, launches) == pytest.approx(2 * total["launches"] + total["small"])


class WithLarge(nn.Module):
    """Something of PyTorch's own beside a vertex function."""

    def __init__(self):
        super().__init__()
        self.tree = TreeRNN(3, 4)

    def forward(self, batch, x, y):
        return self.tree(batch, x=x).h, (y * 2).sum(1)


def test_large_tensors_are_got_from_the_system_anew():
    """As large a part of them as of `ALWAYS_FRESH` bytes they are; and of a rank's share of them less."""
    batch = vf.pack([vf.chain(4)] * 2)
    size = ALWAYS_FRESH // 2
    y = torch.empty(8, size // 32, device="meta")
    (part,) = (part for part in observe(WithLarge(), (batch, torch.ones(8, 3), y)).parts if part.plain.any())
    fresh = COUNTED.index("fresh")
    of_product, of_sum = 3 * 2 * size, 3 * (size + 32)  # read and written, forward and twice as much backward
    one, half, none = plain_work(part, np.array([1.0, 0.5, 0.0]))[:, fresh]
    assert one == pytest.approx(0.5 * (of_product + of_sum))
    assert half == pytest.approx(0.25 * 0.5 * (of_product + of_sum))
    assert none == 0
    assert plain_work(part, np.array([4.0]))[0, fresh] == pytest.approx(
        4 * (of_product + of_sum)
    )  # all of it, not more


def test_what_is_got_anew_costs_what_it_takes_longer_than_what_is_there():
    cluster = vf.parallel.Cluster(1, 1, flops=1e9, bandwidth=4e9, memory=1e9, fresh=1e9)
    assert cluster.seconds_of()[COUNTED.index("fresh")] == pytest.approx(1e-9 - 0.25e-9)
    faster = dataclasses.replace(cluster, fresh=8e9)
    assert faster.seconds_of()[COUNTED.index("fresh")] == 0
    assert dataclasses.replace(cluster, fresh=None).seconds_of()[COUNTED.index("fresh")] == 0
