"""Plans: found, written by hand, compared, kept, and refused where they cannot be carried out."""

from __future__ import annotations

import itertools
import json
import time

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.parallel import Cluster, Link, Plan
from vertexflow.parallel import options as options_module
from vertexflow.parallel import search as search_module
from vertexflow.parallel.observe import observe

from ..models import TreeRNN

pytestmark = pytest.mark.usefixtures("_without_compiler")
GRAPHS = [vf.tree(((0, 1), 2)), vf.chain(4), vf.tree((0, 1))] * 8


class Network(nn.Module):
    def __init__(self, size=4):
        super().__init__()
        self.embed, self.out = nn.Linear(3, size), nn.Linear(size, 2)
        self.up, self.down = TreeRNN(size, size), TreeRNN(size, size)

    def forward(self, batch, x):
        up = self.up(batch, x=self.embed(x)).h
        return self.out(self.down(batch, x=up, reverse=True).h)


def a_batch():
    batch = vf.pack(GRAPHS)
    return batch, torch.empty(batch.num_vertices, 3, device="meta")


def a_cluster(nodes=1, devices=4, **changed) -> Cluster:
    links = {"devices": Link(1e-6, 1e9), "nodes": Link(1e-5, 1e8)}
    return Cluster(
        nodes, devices, **{"flops": 1e8, "bandwidth": 1e9, "memory": 1e9, "links": links, "call": 1e-5, **changed}
    )


@pytest.fixture(scope="module")
def model():
    return Network()


def test_a_plan_says_what_it_is(model):
    plan = vf.parallel.plan(model, [a_batch()], a_cluster())
    assert dict(plan.mesh) == {"data": 4}
    assert plan.parts == dict.fromkeys(["embed", "up", "down", "out"], "whole")
    told = str(plan)
    for piece in (
        "plan: data 4: whole",
        "embed  whole",
        "a step",
        "graphs a second",
        "memory",
        "traffic",
        "limited by",
    ):
        assert piece in told
    prediction = plan.prediction
    assert sum(prediction.shares.values()) == pytest.approx(1)
    assert prediction.limited_by == max(prediction.shares, key=prediction.shares.get)
    assert prediction.graphs_per_second == pytest.approx(len(GRAPHS) / prediction.seconds)


def test_a_plan_is_kept_as_json_and_written_by_hand(model, tmp_path):
    plan = vf.parallel.plan(model, [a_batch()], a_cluster(), strategies=options_module.STRATEGIES)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    path = tmp_path / "hand.json"
    path.write_text(
        json.dumps({"format": "vertexflow plan 1", "mesh": {"data": 4}, "parts": plan.parts | {"up": "sharded"}})
    )
    assert Plan.load(path).parts["up"] == "sharded"
    for text, wanted in (
        ("{", "no JSON"),
        ("{}", "is no plan"),
        ('{"format": "vertexflow plan 1", "mesh": {}}', "parts"),
    ):
        path.write_text(text)
        with pytest.raises(vf.InputError, match=wanted):
            Plan.load(path)


@pytest.mark.slow
def test_plans_are_compared(model):
    batches, cluster = [a_batch()], a_cluster()
    found = vf.parallel.plan(model, batches, cluster)
    by_hand = Plan({"data": 4}, {**dict.fromkeys(["embed", "up", "out"], "gathered"), "down": "sharded"})
    by_hand = vf.parallel.plan(model, batches, cluster, like=by_hand)
    assert by_hand.parts["down"] == "sharded"
    assert by_hand.prediction.seconds > found.prediction.seconds
    told = found.compare(by_hand).splitlines()
    assert any(line.split() == ["down", "whole", "sharded"] for line in told)
    assert any(line.startswith("seconds a step") for line in told)
    with pytest.raises(vf.InputTypeError, match="is compared with a plan"):
        found.compare("other")


@pytest.mark.slow
def test_memory_decides(model):
    batches = [a_batch()]
    free = vf.parallel.plan(model, batches, a_cluster())
    least = vf.parallel.plan(model, batches, a_cluster(), objective="memory")
    assert least.prediction.memory < free.prediction.memory
    assert least.prediction.seconds > free.prediction.seconds
    limit = (least.prediction.memory + free.prediction.memory) / 2
    tight = vf.parallel.plan(model, batches, a_cluster(memory=limit))
    assert tight.prediction.memory <= limit
    assert set(tight.parts.values()) <= {"gathered", "sharded"}
    with pytest.raises(vf.InputError, match="no plan fits"):
        vf.parallel.plan(model, batches, a_cluster(memory=least.prediction.memory * 0.99))


@pytest.mark.slow
def test_the_best_plan_is_the_best_of_all_by_hand(model):
    """Everything that can be written by hand for four ranks is predicted, one by one."""
    batch, x = a_batch()
    observations = [observe(model.up, (batch, {"x": torch.empty(len(x), 4, device="meta")}))]
    other = observe(model, (batch, x))
    observations[0].parts[:] = other.parts[:3]
    names = [part.name for part in observations[0].parts]
    meshes = [({"data": 4}, 1), ({"data": 2, "hidden": 2}, 1), ({"hidden": 4}, 1)]
    meshes += [({"data": 2, "vertices": 2}, 1), ({"vertices": 4}, 1)]
    meshes += [({"stages": 2, **rest}, pieces) for rest in ({"data": 2}, {"hidden": 2}) for pieces in (2, 8, 32)]
    strategies = ("whole", "sharded", "hidden", "stages", "vertices")
    for memory in (1e9, 9000.0):
        cluster = a_cluster(memory=memory, flops=2e7)
        search = search_module._Search(observations, cluster, "throughput", 2.0)
        made = [
            search.candidate(*shape, strategies, None) for shape in search_module._meshes(cluster, strategies, 3, None)
        ]
        found = min(search.key(each) for each in made if each is not None)
        best, fitting = float("inf"), 0
        for (mesh, pieces), cut in itertools.product(meshes, (1, 2)):
            stages = {name: int(at >= cut) for at, name in enumerate(names)} if "stages" in mesh else {}
            for choice in itertools.product(strategies[:3], repeat=3):
                by_hand = Plan(mesh, dict(zip(names, choice, strict=True)), stages, pieces)
                shape = search_module.Mesh(*map(by_hand.ranks, ("data", "vertices", "hidden", "stages")))
                try:
                    one = search.candidate(shape, pieces, (), by_hand)
                except vf.InputError:
                    continue  # no such strategy there
                fitting += one is not None
                best = min(best, one.prediction.seconds if one is not None else best)
        assert found[0] == pytest.approx(best)
        assert fitting > 10


@pytest.mark.slow
def test_a_graph_that_is_too_large_for_a_rank_is_divided(model):
    """What no other plan can have, vertices over ranks can; how they are called is told."""
    batch = vf.pack([vf.graph(400, [(child, child + 40) for child in range(360)])])
    batches = [(batch, torch.empty(400, 3, device="meta"))]
    free = vf.parallel.plan(model, batches, a_cluster())
    assert dict(free.mesh) == {"data": 4}
    limit = free.prediction.memory * 0.6
    found = vf.parallel.plan(model, batches, a_cluster(memory=limit))
    assert found.ranks("vertices") > 1
    assert found.prediction.memory <= limit
    assert f"vf.parallel.divide(graphs, {found.ranks('vertices')}, cost=plan.step_cost)" in str(found)
    assert sum(found.prediction.shares.values()) == pytest.approx(1)
    again = vf.parallel.plan(model, batches, a_cluster(memory=limit), like=found)
    assert again.prediction == found.prediction
    for ranks in (2, 4):
        by_hand = Plan({"data": 4 // ranks, "vertices": ranks}, found.parts)
        by_hand = vf.parallel.plan(model, batches, a_cluster(), like=by_hand)
        assert by_hand.prediction.seconds >= found.prediction.seconds or by_hand.prediction.memory > limit
    least = vf.parallel.plan(model, batches, a_cluster(), objective="memory", strategies=options_module.STRATEGIES)
    assert least.prediction.memory < free.prediction.memory / 2
    of_nodes = vf.parallel.plan(model, batches, a_cluster(4, 1, memory=limit))  # more ranks than a node has
    assert of_nodes.ranks("vertices") > 1
    lstm, batch = vf.nn.LSTM(3, 4), vf.pack([vf.chain(400)])
    batches = [(batch, torch.empty(400, 3, device="meta"))]
    with pytest.raises(vf.InputError, match=r"as the layers of vf\.nn\.LSTM and GRU are"):
        vf.parallel.plan(lstm, batches, a_cluster(), like=Plan({"vertices": 4}, {"": "whole"}))
    with pytest.raises(vf.InputError, match="no plan fits"):
        vf.parallel.plan(lstm, batches, a_cluster(memory=5e4))


@pytest.mark.slow
def test_what_any_model_can_do_is_searched_for_unless_more_is_asked_for(model):
    slow = a_cluster(flops=1e6, links={"devices": Link(1e-9, 1e12), "nodes": Link(1e-9, 1e12)})
    batches = [(vf.pack(GRAPHS[:1]), torch.empty(5, 3, device="meta"))]  # one graph: there is nothing to divide
    found = vf.parallel.plan(model, batches, slow)
    assert set(found.parts.values()) <= set(options_module.DATA)
    simulated = vf.parallel.plan(model, batches, slow, strategies=options_module.STRATEGIES)
    assert "hidden" in simulated.parts.values()
    assert simulated.prediction.seconds < found.prediction.seconds
    with pytest.raises(vf.InputError, match=r"torch\.distributed is not initialised"):
        simulated.apply(model)


def test_a_laptop_plans_for_1024_devices(model):
    batch = vf.pack(GRAPHS * 400)
    batches = [(batch, torch.empty(batch.num_vertices, 3, device="meta"))]
    begin = time.perf_counter()
    plan = vf.parallel.plan(model, batches, a_cluster(nodes=128, devices=8), strategies=options_module.STRATEGIES)
    assert time.perf_counter() - begin < 10
    assert plan.size == 1024
    assert plan.runners_up


@pytest.mark.slow
def test_what_cannot_be_planned_is_refused(model):
    batch, cluster = a_batch(), a_cluster()
    plan = vf.parallel.plan
    for arguments, named, wanted in [
        (([batch], "cluster"), {}, "give a vf.parallel.Cluster"),
        ((batch[0], cluster), {}, "batches is a list"),
        (([], cluster), {}, "batches is a list"),
        (([batch], cluster), {"objective": "speed"}, "choose one of 'throughput', 'memory', 'goodput'"),
        (([batch], cluster), {"objective": "goodput"}, "are given together"),
        (([batch], cluster), {"objective": "goodput", "noise": 10.0}, "are given together"),
        (([batch], cluster), {"noise": 10.0, "base": 8}, "are given together"),
        (([batch], cluster), {"objective": "goodput", "noise": -1.0, "base": 8}, "a number from 0 up"),
        (([batch], cluster), {"strategies": ("rows",)}, "no strategy 'rows'"),
        (([batch], cluster), {"strategies": ("vertices",)}, "has none for parameters"),
        (([batch], cluster), {"strategies": ("hidden",)}, "has none for parameters"),
        (([batch], cluster), {"like": Plan({"data": 2}, {})}, "for 2 ranks, the cluster has 4"),
        (([batch], cluster), {"like": Plan({"data": 4}, {"up": "whole"})}, "the plan by hand has the parts"),
    ]:
        with pytest.raises(vf.VertexFlowError, match=wanted):
            plan(model, *arguments, **named)
    for made, wanted in [
        (lambda: Plan({"rows": 2}, {}), "a dimension 'rows'"),
        (lambda: Plan({"data": 0}, {}), "0 ranks of 'data'"),
        (lambda: Plan({"data": 2}, {"up": "vertices"}), "strategy 'vertices'"),
        (lambda: Plan({"stages": 2}, {"up": "whole"}), "give the stage of each part"),
        (lambda: Plan({"data": 2}, {"up": "whole"}, {"up": 1}), "is in stage 1"),
        (lambda: Plan({"data": 2}, {}, micro_batches=0), "micro_batches is 0"),
        (lambda: Plan({"vertices": 2, "stages": 2}, {"up": "whole"}, {"up": 1}, 2), "through the stages in one piece"),
        (
            lambda: Plan({"vertices": 2, "stages": 2, "hidden": 4}, {"up": "whole"}, {"up": 1}),
            "not carried out all together",
        ),
        (lambda: Plan({"data": 2}, {}, accumulate=0), "accumulate is 0"),
        (lambda: Plan({"data": 2}, {}, batch_size=2.5), "batch_size is 2.5"),
        (lambda: Plan({"data": 2}, {"up": "whole", "other": "whole"}).apply(model), "no module of that name"),
        (lambda: Plan({"data": 2}, {"up": "whole", "out": "sharded"}).apply(model), "is whole and part 'out' sharded"),
        (lambda: Plan({"data": 2}, {"up.w": "whole"}).apply(model), "inside the vertex function 'up'"),
        (lambda: Plan({"data": 2}, {"up": "whole"}).apply(model), "torch.distributed is not initialised"),
        (lambda: Plan({"data": 2}, {"up": "whole"}).apply("model"), "no nn.Module"),
    ]:
        with pytest.raises(vf.VertexFlowError, match=wanted):
            made()
    parts, in_two = ["embed", "up", "down", "out"], {"embed": 0, "up": 0, "down": 1, "out": 1}
    tied = Network()
    tied.down.w = tied.up.w
    for plan_of, of, wanted in [
        (
            Plan({"stages": 2}, dict.fromkeys(parts[1:], "whole"), dict(list(in_two.items())[1:])),
            model,
            "module 'embed' has par",
        ),
        (
            Plan({"stages": 2}, dict.fromkeys(parts, "sharded"), in_two),
            model,
            "part '(embed|up|down|out)' is sharded on a mesh of stages 2",
        ),
        (Plan({"stages": 2}, dict.fromkeys(parts, "whole"), in_two), tied, "'up' and 'down' share a parameter"),
        (Plan({"stages": 2}, dict.fromkeys(parts, "whole"), in_two), model, r"torch\.distributed is not initialised"),
        (
            Plan({"stages": 2}, {"0": "whole", "0.up": "whole"}, {"0": 0, "0.up": 1}),
            nn.Sequential(model),
            "part '0.up' is in stage 1 and inside part '0', in stage 0",
        ),
    ]:
        with pytest.raises(vf.InputError, match=wanted):
            plan_of.apply(of)
    # What has no parameters of its own goes with both ways.
    with pytest.raises(vf.InputError, match=r"torch\.distributed is not initialised"):
        Plan({"data": 2}, {"": "whole", **dict.fromkeys(["embed", "up", "down", "out"], "sharded")}).apply(model)
    assert Plan({"data": 1}, {"up": "whole"}).apply(model) is model
