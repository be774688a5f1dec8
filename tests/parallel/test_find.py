"""Plans for goodput: how many graphs a batch has, and how many batches there are before a step."""

from __future__ import annotations

import math

import pytest
import torch

import vertexflow as vf
from vertexflow.parallel import Link, Plan
from vertexflow.parallel.observe import observe
from vertexflow.parallel.search import plan_of

from .test_plan import GRAPHS, Network, a_cluster

pytestmark = pytest.mark.usefixtures("_without_compiler")
PARTS = ["embed", "up", "down", "out"]
SIZES = (4, 8, 16)


@pytest.fixture(scope="module")
def model():
    return Network()


def batches():
    packed = [vf.pack(GRAPHS[:size]) for size in (*SIZES, 8)]
    return [(batch, torch.empty(batch.num_vertices, 3, device="meta")) for batch in packed]


@pytest.fixture(scope="module")
def seen(model):
    """What was seen of the model on each batch."""
    return [observe(model, batch) for batch in batches()]


def by_hand(seen, cluster, strategy, accumulate):
    plan = Plan({"data": 4}, dict.fromkeys(PARTS, strategy), accumulate=accumulate)
    return plan_of([seen], cluster, like=plan).prediction


@pytest.mark.parametrize("noise", [0.0, 6.0, 60.0, math.inf])
@pytest.mark.slow
def test_the_best_of_all_sizes_and_accumulations(model, seen, noise):
    cluster = a_cluster(links={"devices": Link(1e-3, 1e6), "nodes": Link(1e-3, 1e6)})
    plan = vf.parallel.plan(model, batches()[:3], cluster, objective="goodput", noise=noise, base=4)
    goodputs = {}
    for number, size in enumerate(SIZES):
        for accumulate in (1, 2, 4, 8, 16):
            rates = [
                by_hand(seen[number], cluster, strategy, accumulate).graphs_per_second
                for strategy in ("whole", "gathered", "sharded")
            ]
            worth = vf.parallel.efficiency(noise, size * accumulate, 4)
            goodputs[size, accumulate] = max(rates) * worth
    best = max(goodputs.values())
    assert plan.prediction.goodput == pytest.approx(best)
    assert goodputs[plan.batch_size, plan.accumulate] == pytest.approx(best)
    assert plan.prediction.goodput == pytest.approx(
        plan.prediction.graphs_per_second * vf.parallel.efficiency(noise, plan.batch_size * plan.accumulate, 4)
    )
    runners_up = sorted(4 / goodput for goodput in goodputs.values())[1:5]
    assert [seconds for _, seconds in plan.runners_up] == pytest.approx(runners_up)


@pytest.mark.slow
def test_noise_asks_for_large_steps_and_a_slow_network_for_accumulation(model):
    slow = a_cluster(links=dict.fromkeys(["devices", "nodes"], Link(1e-1, 1e4)))
    without_noise = vf.parallel.plan(model, batches(), slow, objective="goodput", noise=1e-3, base=4)
    assert without_noise.accumulate == 1
    noise_alone = vf.parallel.plan(model, batches(), slow, objective="goodput", noise=math.inf, base=4)
    assert (noise_alone.batch_size, noise_alone.accumulate) == (16, 16)
    assert ", 16 batches of 16 graphs a step" in noise_alone.shape
    assert "goodput" in str(noise_alone)
    assert "16 x 16" in noise_alone.compare(without_noise)
    alone = vf.parallel.plan(model, batches(), a_cluster(devices=1), objective="goodput", noise=math.inf, base=4)
    assert (alone.batch_size, alone.accumulate) == (16, 1)


def test_what_is_saved_is_the_average_of_gradients(seen):
    """Parameters that are divided are gathered and scattered in each batch."""
    cluster = a_cluster(links=dict.fromkeys(["devices", "nodes"], Link(1e-2, 1e5)))
    once, four = (by_hand(seen[2], cluster, "whole", times) for times in (1, 4))
    sent = once.shares["communication"] * once.seconds
    assert four.seconds == pytest.approx(4 * (once.seconds - sent) + sent)
    assert four.graphs_per_second == pytest.approx(4 * 16 / four.seconds)
    assert four.traffic == pytest.approx(once.traffic)
    assert four.memory == once.memory
    once, four = (by_hand(seen[2], cluster, "sharded", times) for times in (1, 4))
    assert four.seconds == pytest.approx(4 * once.seconds)
    assert four.traffic == pytest.approx(4 * once.traffic)


@pytest.mark.slow
def test_it_is_kept(model, tmp_path):
    plan = vf.parallel.plan(model, batches(), a_cluster(), objective="goodput", noise=10.0, base=4)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


@pytest.mark.slow
def test_nothing_fits(model):
    with pytest.raises(vf.InputError, match="no plan fits"):
        vf.parallel.plan(model, batches(), a_cluster(memory=10.0), objective="goodput", noise=10.0, base=4)
