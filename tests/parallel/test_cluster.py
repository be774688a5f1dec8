"""A cluster that is described, kept, measured; and what is fitted to times."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch

import vertexflow as vf
from vertexflow.parallel import Cluster, Link
from vertexflow.parallel.calibration import LEAST, Elements, OneProduct, Task, tasks
from vertexflow.parallel.measure import Timed, fit, time_tasks
from vertexflow.parallel.work import COUNTED

LINKS = {"devices": Link(2e-6, 300e9), "nodes": Link(8e-6, 25e9)}


def a_cluster(**changed) -> Cluster:
    return Cluster(
        **{"nodes": 4, "devices": 8, "flops": 1e14, "bandwidth": 1e12, "memory": 8e10, "links": LINKS, **changed}
    )


def test_a_cluster_is_kept_as_json(tmp_path):
    for cluster in (a_cluster(), a_cluster(small=1e-6, cache=3e12, slow=1e11), a_cluster(nodes=1, devices=1, links={})):
        cluster.save(tmp_path / "cluster.json")
        assert Cluster.load(tmp_path / "cluster.json") == cluster


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"format": "other"}, "is no cluster"),
        ({"speed": 1}, "has speed, which no cluster has"),
        ({"links": {"devices": {"latency": 1}}}, "a link has a latency and a bandwidth"),
        ({"flops": "fast"}, "flops=...\\) is 'fast'; give a number"),
    ],
)
def test_another_file_is_refused(tmp_path, changed, wanted):
    path = tmp_path / "cluster.json"
    a_cluster().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(vf.VertexFlowError, match=wanted):
        Cluster.load(path)
    path.write_text("{")
    with pytest.raises(vf.InputError, match="is no JSON"):
        Cluster.load(path)


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"nodes": 0}, "nodes=0"),
        ({"devices": 1.5}, "give an integer"),
        ({"flops": 0}, "flops=0"),
        ({"bandwidth": float("nan")}, "bandwidth=nan"),
        ({"launch": -1}, "launch=-1"),
        ({"links": {"devices": LINKS["devices"]}}, 'no links\\["nodes"\\]'),
        ({"links": {"devices": 3, "nodes": 4}}, "to vf.parallel.Link"),
    ],
)
def test_what_no_cluster_has_is_refused(changed, wanted):
    with pytest.raises(vf.VertexFlowError, match=wanted):
        a_cluster(**changed)


def test_collectives_are_counted_in_rounds_and_bytes():
    cluster = a_cluster()
    assert cluster.collective("all_reduce", 1e6, 1) == 0
    assert cluster.collective("all_gather", 8e6, 8) == pytest.approx(3 * 2e-6 + 7e6 / 300e9)
    assert cluster.collective("all_reduce", 8e6, 8) == pytest.approx(2 * (3 * 2e-6 + 7e6 / 300e9))
    assert cluster.collective("all_reduce", 8e6, 32) == pytest.approx(2 * (5 * 8e-6 + 31 / 32 * 8e6 / 25e9))
    assert cluster.collective("all_reduce", 8e6, 4, stride=8) == pytest.approx(2 * (2 * 8e-6 + 6e6 / 25e9))
    assert cluster.collective("all_to_all", 8e6, 4) == pytest.approx(3 * 2e-6 + 8e6 / 300e9)
    faster = a_cluster(links={**LINKS, "devices.all_gather": Link(0, 600e9)})
    assert faster.collective("all_gather", 8e6, 8) == pytest.approx(7e6 / 600e9)
    assert faster.collective("reduce_scatter", 8e6, 8) == cluster.collective("reduce_scatter", 8e6, 8)


def test_what_is_fitted_is_what_the_times_were_made_of():
    rng = np.random.default_rng(0)
    costs = np.array([1e-4, 1e-11, 2e-11, 5e-11, 0, 0, 1e-6, 2e-7, 0])
    work = np.concatenate([np.ones((60, 1)), rng.lognormal(12, 2, (60, len(COUNTED)))], 1)
    work[:, 6:] /= 1e4
    work[:, [5, 8]] = 0  # no task has operations of PyTorch
    found = fit(Timed(work, work @ costs))
    np.testing.assert_allclose(found, costs, rtol=1e-3, atol=1e-14)


def test_tasks_are_timed_and_their_work_is_counted():
    batch = vf.pack([vf.chain(3)] * 2)
    made = [Task(make(4), batch, torch.randn(6, 4)) for make in (OneProduct, Elements)]
    timed = time_tasks(made, 0.001)
    assert (timed.seconds > 0).all()
    one, elements = (dict(zip(("one", *COUNTED), row, strict=True)) for row in timed.work)
    # 4 inner rows: forward, gradient of the state, gradient of the weight.
    assert one["flops"] == 3 * 4 * 2 * 4 * 4
    assert elements["flops"] == 0
    assert elements["slow"] == 6 * 3 * 4


@pytest.mark.slow
def test_a_slow_machine_prepares_fewer_tasks_and_times_fewer_rounds(monkeypatch):
    made = list(itertools.islice(tasks(), LEAST))
    assert len({(type(task.model), task.x.shape[1]) for task in made}) == LEAST  # of each kind a small and a large one
    assert max(task.x.numel() for task in made) == max(task.x.numel() for task in tasks())
    batch, times, now = vf.pack([vf.chain(3)]), Counter(), [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    class Slow(Task):
        def step(self) -> None:
            times[id(self)] += 1
            now[0] += 1
            super().step()

    timed = time_tasks((Slow(OneProduct(4), batch, torch.randn(3, 4)) for _ in range(50)), 3.0)
    assert len(timed.seconds) == LEAST
    assert list(times.values()) == [6] * LEAST  # two to prepare it, and a round
