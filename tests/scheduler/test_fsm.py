"""The learned policy: never worse than the agenda, close to the best there is, and the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import vertexflow as vf
from benchmarks import structures
from tests.models import TreeRNN
from vertexflow.graph.inputs.build import InputGraph, chain
from vertexflow.graph.inputs.pack import GraphBatch, pack
from vertexflow.scheduler import FSM

WORKLOADS = [structures.kind_trees, structures.tagged_trees, structures.lattice, structures.encoder_decoder]
Workload = Callable[[np.random.Generator], InputGraph]


def samples(workload: Workload, seed: int, count: int, size: int) -> list[GraphBatch]:
    random = np.random.default_rng(seed)
    return [pack([workload(random) for _ in range(size)]) for _ in range(count)]


def count(batch: GraphBatch, policy: str | FSM) -> int:
    """Steps that a policy takes, whether its vertices have children or not."""
    steps = policy.steps(batch) if isinstance(policy, FSM) else vf.scheduler.POLICIES[policy].steps(batch)
    return len(np.unique(steps))


@pytest.mark.parametrize("workload", WORKLOADS)
def test_no_more_steps_than_the_agenda_on_batches_that_it_has_not_seen(workload: Workload) -> None:
    machine = FSM.learn(samples(workload, seed=0, count=4, size=16))
    for batch in samples(workload, seed=1, count=8, size=16):
        assert count(batch, machine) <= count(batch, "agenda")


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("size", [1, 2, 4, 16])
@pytest.mark.cases(1)
def test_within_a_tenth_of_the_best_where_that_can_be_found(workload: Workload, size: int) -> None:
    machine = FSM.learn(samples(workload, seed=0, count=4, size=size))
    ours = best = 0
    for batch in samples(workload, seed=2, count=4, size=size):
        ours += count(batch, machine)
        best += count(batch, "optimal")
    assert ours <= 1.1 * best


def test_the_same_seed_gives_the_same_machine() -> None:
    batches = samples(structures.lattice, seed=3, count=2, size=4)
    assert FSM.learn(batches, seed=5).dump() == FSM.learn(batches, seed=5).dump()


def test_a_machine_is_read_back_as_it_was_written() -> None:
    machine = FSM({("a", "b"): "b", ("c", "a"): "a"})
    assert FSM.load(machine.dump()).actions == machine.actions


def test_without_kinds_there_is_nothing_to_learn() -> None:
    machine = FSM.learn([pack([chain(4)])])
    assert machine.actions == {}
    assert machine.steps(pack([chain(4)])).tolist() == [0, 1, 2, 3]


def test_it_is_saved_with_the_model() -> None:
    model, other = TreeRNN(2, 3), torch.nn.ModuleDict({"tree": TreeRNN(2, 3)})
    model.policy = FSM({("node", "leaf"): "leaf"})
    saved = model.state_dict()
    fresh = TreeRNN(2, 3)
    assert fresh.load_state_dict(saved).missing_keys == []
    assert isinstance(fresh.policy, FSM)
    assert fresh.policy.actions == model.policy.actions
    other.load_state_dict({f"tree.{name}": value for name, value in saved.items()})
    assert other["tree"].policy.actions == model.policy.actions
    assert "policy" not in TreeRNN(2, 3).state_dict()


class TwoKinds(vf.VertexFunction):
    def __init__(self) -> None:
        super().__init__(state={"h": 2})

    @vf.vertex("a")
    def a(self, v: vf.Vertex) -> None:
        v.scatter(h=v.gather(0).h + 1)
        v.push(h=v.gather(0).h + 1)

    @vf.vertex("b")
    def b(self, v: vf.Vertex) -> None:
        v.scatter(h=2 * v.gather(0).h)
        v.push(h=2 * v.gather(0).h)


def test_vertices_that_were_computed_before_are_learned_around() -> None:
    """Initial states, and earlier vertices of a run that grows."""
    model, h0 = TwoKinds(), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    model.policy, model.backend = "fsm", "torch"
    graphs = [vf.graph(2, [(0, 1)], kind=["a", "b"]), vf.graph(2, [(0, 1)], kind=["b", "a"])]
    expected = [[2, 3], [4, 6], [6, 8], [7, 9]]
    assert model(graphs, initial={"h": h0}).h.tolist() == expected
    run = model.start(graphs)
    run.extend([[1], [3], [5]], kind=["a", "b", "b"])
    assert run[:].h.tolist() == [[1, 1], [2, 2], [0, 0], [1, 1], [3, 3], [2, 2], [4, 4]]
