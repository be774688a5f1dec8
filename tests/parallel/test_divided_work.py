"""What ranks are predicted to do that share the vertices of graphs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.parallel import Cluster, Link
from vertexflow.parallel import divided_work as divided
from vertexflow.parallel.divide_graph import levels_of
from vertexflow.parallel.observe import observe
from vertexflow.parallel.options import Mesh, loads_of
from vertexflow.parallel.predict import work_of_ranks
from vertexflow.parallel.work import COUNTED

from ..models import TreeRNN
from .cases import KINDS, TREES
from .test_divide import random_dag

pytestmark = pytest.mark.usefixtures("_without_compiler")
CALLS = COUNTED.index("calls")


def a_cluster(**changed) -> Cluster:
    links = {"devices": Link(1e-3, 1e6)}
    return Cluster(1, 4, **{"flops": 1e6, "bandwidth": 1e6, "memory": 1e9, "links": links, **changed})


def seen(graphs, model=None):
    batch = vf.pack(graphs)
    return batch, observe(model or TreeRNN(4, 4), (batch, {"x": torch.empty(batch.num_vertices, 4, device="meta")}))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_what_ranks_have_is_what_they_are_given(ranks):
    """Rows, edges, and what crosses in each exchange, beside the parts that ranks compute."""
    rng = np.random.default_rng(ranks)
    for graphs in [[random_dag(rng, 30), random_dag(rng, 9)], KINDS]:
        batch = vf.pack(graphs)
        rank_of = rng.integers(0, ranks, batch.num_vertices)
        kinds = len(batch.kinds or [None])
        for turned, name in ((batch, "upward"), (batch.reversed(), "downward")):
            shares = divided.shares_of(turned, rank_of, ranks, kinds)
            level = levels_of(turned)
            for part in vf.parallel.divide(batch, ranks, reverse=True, rank_of=rank_of):
                local = getattr(part, name)
                of_kind = np.zeros(part.num_vertices, int) if batch.kinds is None else batch.kind_index[part.own]
                rows = np.zeros(shares.rows.shape[1:])
                np.add.at(rows, (level[part.own], of_kind), 1)
                assert shares.rows[part.rank].tolist() == rows.tolist()
                assert shares.edges[part.rank].sum() == len(local.edges)
                assert shares.sent[:, part.rank].tolist() == local.sent.sum(1).tolist()
                assert np.maximum(shares.moved[:, part.rank], 1).tolist() == np.bincount(local.exchange).tolist()
                assert len(shares.points) == local.num_exchanges


def test_one_rank_has_what_one_has():
    _, observation = seen(TREES)
    everything = np.zeros(len(TREES), np.int64)
    (whole,) = loads_of(observation, a_cluster(), 1, everything).loads
    (load,) = divided.divided_loads(observation, a_cluster(), 1, everything, 1).loads
    np.testing.assert_allclose(load.work, whole.work)
    assert (load.exchanged, load.sent, load.held, load.share) == (0, 0, 0, 1)


def predicted(graphs, rank_of, monkeypatch, **cluster):
    """The load of the slowest ranks, of a division by hand."""
    monkeypatch.setattr(divided, "partition", lambda *_: np.asarray(rank_of))
    batch, observation = seen(graphs)
    ranks = int(np.max(rank_of)) + 1
    found = divided.divided_loads(observation, a_cluster(**cluster), 1, np.zeros(len(graphs), np.int64), ranks)
    return found.loads[0], found.imbalance, observation.parts[0].calls[0], batch


def test_ranks_wait_for_each_other_between_exchanges(monkeypatch):
    """Two chains of four: side by side, ranks work at the same time; one after the other, they do not."""
    only_flops = {"bandwidth": 1e30, "launch": 0.0, "call": 0.0, "python": 0.0}
    graphs = [vf.chain(4), vf.chain(4)]
    beside, even, call, batch = predicted(graphs, [0] * 4 + [1] * 4, monkeypatch, **only_flops)
    after, uneven, *_ = predicted(graphs, [0, 0, 1, 1] * 2, monkeypatch, **only_flops)
    assert beside.exchanged == 0
    assert even == pytest.approx(1)
    # One exchange, of the states of both chains, and back of their gradients.
    assert after.exchanged == pytest.approx(2 * (1e-3 + 2 * call.state_bytes / 1e6))
    assert after.sent == 2 * 2 * call.state_bytes
    assert after.held == 2 * 2 * call.state_bytes
    assert after.work[CALLS] - beside.work[CALLS] >= 2 * divided.CALLS_AROUND
    assert uneven > 1.2
    for load, rank_of, at_once in ((beside, [0] * 4 + [1] * 4, 2), (after, [0, 0, 1, 1] * 2, 1)):
        shares = divided.shares_of(batch, np.array(rank_of), 2, 1)
        once, of_depths = divided.work_by_depth(call, shares.rows, shares.edges)
        # So many ranks work at the same time, on as much, in the steps of a depth.
        assert load.work[0] == pytest.approx(once[:, 0].max() + of_depths[:, :, 0].sum() / at_once)


@pytest.mark.slow
def test_the_most_loaded_data_rank_is_divided():
    """Of three graphs on two data ranks, those of the rank that has more."""
    graphs = [vf.chain(40), vf.chain(3), vf.chain(3)]
    batch, observation = seen(graphs)
    rank = np.array([1, 0, 0])
    found = divided.divided_loads(observation, a_cluster(), 2, rank, 2)
    assert found.loads[0].share == pytest.approx(20 / 46, abs=0.05)
    assert divided.least_share(observation, rank, Mesh(2, 2)) == pytest.approx(20 / 46)
    part = divided.of_graphs(batch, rank == 0)
    wanted = vf.pack(graphs[1:])
    for name in ("child", "slot", "offset", "graph_offset"):
        assert getattr(part, name).tolist() == getattr(wanted, name).tolist()


@pytest.mark.slow
def test_what_is_not_divided_is_said():
    model = TreeRNN(4, 4)
    _, observation = seen(TREES, model)
    assert divided.why_not(observation) is None
    model.max_vertices = 6
    _, observation = seen(TREES, model)
    assert "max_vertices" in divided.why_not(observation)
    assert divided.divided_loads(observation, a_cluster(), 1, np.zeros(len(TREES), np.int64), 2) is None


def a_circuit():
    """Twenty levels of twelve gates, each of which reads two of the level before: to share levels takes an exchange a level."""
    rng = np.random.default_rng(0)
    edges = [
        (12 * (at // 12 - 1) + int(child), at) for at in range(12, 240) for child in rng.choice(12, 2, replace=False)
    ]
    return vf.graph(240, edges)


def test_a_step_cost_is_what_things_cost_beside_a_row():
    _, observation = seen([a_circuit()])
    (call,) = observation.parts[0].calls
    only_flops = {"bandwidth": 1e30, "launch": 0.0, "call": 0.0, "python": 0.0}
    cost = divided.step_cost([observation], a_cluster(**only_flops), 2)
    (work,) = work_of_ranks(observation.parts[0], np.zeros(1, np.int64), 1)
    row = work[0] / 1e6 / 240
    assert cost.step == 0
    assert cost.exchange == pytest.approx(2 * 1e-3 / row)  # forward and backward: the link's latency
    assert cost.crossing == pytest.approx(2 * call.state_bytes / 1e6 / row)
    with_calls = divided.step_cost([observation], a_cluster(**{**only_flops, "python": 1e-2}), 2)
    assert with_calls.exchange == pytest.approx(2 * (1e-3 + divided.CALLS_AROUND * 1e-2) / row)
    assert with_calls.step == pytest.approx(
        1e-2 * work[CALLS] / 20 / row, rel=0.05
    )  # four of the 121 calls are made once


@pytest.mark.slow
def test_a_plan_divides_by_what_its_cluster_costs():
    """A quick link lets ranks share each level; a slow one does not. So `divide` does, with the plan's cost."""
    graph = a_circuit()
    batch = vf.pack([graph])
    model, x = TreeRNN(4, 4), torch.empty(240, 4, device="meta")
    exchanges = []
    for latency in (1e-9, 1.0):
        cluster = Cluster(
            1, 2, flops=1e6, bandwidth=1e9, memory=1e9, links={"devices": Link(latency, 1e9)}, launch=1e-9, python=1e-9
        )
        like = vf.parallel.Plan({"vertices": 2}, {"": "whole"})
        plan = vf.parallel.plan(model, [(batch, {"x": x})], cluster, like=like)
        assert "divide(graphs, 2, cost=plan.step_cost)" in str(plan)
        part, _ = vf.parallel.divide(batch, 2, cost=plan.step_cost)
        exchanges.append(part.upward.num_exchanges)
        given = dataclasses.replace(like, step_cost=plan.step_cost)
        assert vf.parallel.plan(model, [(batch, {"x": x})], cluster, like=given).prediction == plan.prediction
    assert exchanges[0] > exchanges[1]


@pytest.mark.parametrize("nodes", [1, 2])
def test_ranks_of_columns_exchange_the_columns_that_they_have(nodes, monkeypatch):
    """Two parts of two chains, one after the other, each on two ranks of columns, which are neighbours: parts may be on two
    nodes. Half of each state crosses, and columns are gathered in each step of the rank that works."""
    monkeypatch.setattr(divided, "partition", lambda *_: np.array([0, 0, 1, 1] * 2))
    links = {"devices": Link(1e-3, 1e6), "nodes": Link(2e-3, 1e5)}
    cluster = Cluster(nodes, 4 // nodes, flops=1e6, bandwidth=1e6, memory=1e9, links=links)
    batch, observation = seen([vf.chain(4)] * 2)
    (part,), (call,) = observation.parts, observation.parts[0].calls
    model, x = TreeRNN(4, 4), torch.empty(8, 4, device="meta")
    like = vf.parallel.Plan({"vertices": 2, "hidden": 2}, {"": "hidden"})
    found = vf.parallel.plan(model, [(batch, {"x": x})], cluster, like=like).prediction
    between, row = links["devices" if nodes == 1 else "nodes"], call.state_bytes
    exchanged = 2 * (between.latency + 2 * row / 2 / between.bandwidth)
    assert found.seconds * found.shares["exchanges"] == pytest.approx(exchanged)
    gathered = 4 * 2 * (1e-3 + 2 * row / 2 / 1e6)  # four steps of two rows, forward and backward
    averaged = 2 * (between.latency + part.trained_bytes / 2 / 2 / between.bandwidth)
    assert found.seconds * found.shares["communication"] == pytest.approx(gathered + averaged)
    assert found.traffic == pytest.approx(4 * 2 * row + 2 * 2 * row / 2 + part.trained_bytes / 2)


class UpAndDown(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = TreeRNN(3, 4), TreeRNN(4, 2)

    def forward(self, batch, x):
        return self.down(batch, x=self.up(batch, x=x).h, reverse=True).h


def test_stages_of_parts_come_one_after_the_other(monkeypatch):
    """What two ranks of vertices take for all parts, and what goes from one stage to the next; each stage averages its own."""
    monkeypatch.setattr(divided, "partition", lambda *_: np.array([0, 0, 1, 1] * 2))
    batch, link = vf.pack([vf.chain(4)] * 2), Link(1e-3, 1e6)
    batches, model = [(batch, torch.empty(8, 3, device="meta"))], UpAndDown()
    parts = dict.fromkeys(("up", "down"), "whole")
    found = []
    for mesh, stages in (({"vertices": 2}, {}), ({"vertices": 2, "stages": 2}, {"up": 0, "down": 1})):
        cluster = Cluster(1, 2 * len(mesh), flops=1e6, bandwidth=1e6, memory=1e9, links={"devices": link})
        like = vf.parallel.Plan(mesh, parts, stages)
        found.append(vf.parallel.plan(model, batches, cluster, like=like).prediction)
    up, down, *_ = observe(model, batches[0]).parts
    averaged = [2 * (link.latency + part.trained_bytes / 2 / link.bandwidth) for part in (up, down)]
    sent = 2 * (link.latency + up.output_bytes / 2 / link.bandwidth)
    together, staged = found
    assert staged.seconds == pytest.approx(together.seconds + sent - min(averaged))
    assert sum(staged.shares.values()) == pytest.approx(1)
    exchanged = 2 * (link.latency + 2 * up.calls[0].state_bytes / link.bandwidth)  # of the stage that takes longest
    assert staged.seconds * staged.shares["exchanges"] == pytest.approx(exchanged)
    assert staged.memory < together.memory


def test_a_plan_keeps_its_step_cost(tmp_path):
    plan = vf.parallel.Plan({"vertices": 2}, {"": "whole"}, step_cost=vf.parallel.StepCost(1.5, 330.25, 0.1))
    plan.save(tmp_path / "plan.json")
    assert vf.parallel.Plan.load(tmp_path / "plan.json") == plan


def test_costs_that_are_none_are_refused():
    for wrong, error in (
        (-1, vf.InputError),
        (np.inf, vf.InputError),
        ("8", vf.InputTypeError),
        (True, vf.InputTypeError),
    ):
        with pytest.raises(error, match="StepCost"):
            vf.parallel.StepCost(exchange=wrong)
    with pytest.raises(vf.InputTypeError, match="cost is a int; give a"):
        vf.parallel.divide([vf.chain(3)], 2, cost=3)
