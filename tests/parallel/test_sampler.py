"""Each graph once, the same global batches for any number of ranks, in the middle of an epoch too, and ranks alike in cost."""

from __future__ import annotations

import functools
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import vertexflow as vf
from vertexflow.parallel import BalancedSampler, Cost
from vertexflow.parallel.balance import balance

from ..data import needs_data

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)


@st.composite
def settings(draw):
    """A data set, and settings of its samplers but for the ranks."""
    graphs = [vf.chain(length) for length in draw(LENGTHS)]
    return graphs, {
        "global_batch_size": draw(st.integers(1, 12)),
        "shuffle": draw(st.booleans()),
        "seed": draw(st.integers(0, 5)),
        "drop_last": draw(st.booleans()),
    }


def samplers(graphs, options, num_ranks):
    return [BalancedSampler(graphs, **options, num_replicas=num_ranks, rank=rank) for rank in range(num_ranks)]


def joined(ranks, take=None):
    """The global batches, each with the parts of its ranks."""
    iterators = [iter(sampler) for sampler in ranks]
    count = len(ranks[0]) if take is None else take
    return [[next(iterator) for iterator in iterators] for _ in range(count)]


def sets(batches):
    return [sorted(chain.from_iterable(parts)) for parts in batches]


@given(settings(), st.integers(1, 6), st.integers(0, 3))
def test_the_batches_are_those_of_one_process_and_every_graph_comes_once(case, num_ranks, epoch):
    graphs, options = case
    ranks = samplers(graphs, options, num_ranks)
    for sampler in ranks:
        sampler.set_epoch(epoch)
    batches = joined(ranks)
    assert all(next(iter(sampler), None) is not None for sampler in ranks) or not batches
    # DistributedSampler's order, cut into pieces.
    order = list(range(len(graphs)))
    if options["shuffle"]:
        generator = torch.Generator().manual_seed(options["seed"] + epoch)
        order = torch.randperm(len(graphs), generator=generator).tolist()
    size = options["global_batch_size"]
    pieces = [order[start : start + size] for start in range(0, len(order), size)]
    if options["drop_last"] and len(pieces[-1]) < size:
        pieces.pop()
    assert len(ranks[0]) == len(batches) == len(pieces)
    assert sets(batches) == [sorted(piece) for piece in pieces]
    for parts, piece in zip(batches, pieces, strict=True):
        for part in parts:
            assert part == [number for number in piece if number in part]  # in the order of one process


@given(settings(), st.integers(1, 4), st.integers(1, 4), st.data())
def test_an_epoch_is_continued_with_another_number_of_ranks(case, before, after, data):
    graphs, options = case
    ranks = samplers(graphs, options, before)
    for sampler in ranks:
        sampler.set_epoch(3)
    taken = data.draw(st.integers(0, len(ranks[0])))
    everything = sets(joined(samplers_at(graphs, options, 1, 3)))
    joined(ranks, taken)
    (state,) = [dict(entries) for entries in {tuple(sampler.state_dict().items()) for sampler in ranks}]
    assert state == samplers(graphs, options, 1)[0].state_dict() | {"epoch": 3, "batches": taken}
    again = samplers(graphs, {**options, "seed": 100}, after)  # the seed is the state's
    for sampler in again:
        sampler.load_state_dict(state)
        sampler.set_epoch(3)  # as a loop over epochs does, which begins with this one
        assert sampler.state_dict() == state
    assert sets(joined(again, len(again[0]) - taken)) == everything[taken:]
    assert sets(joined(again)) == everything  # the next pass is whole
    for sampler in again:
        sampler.set_epoch(4)
    assert sets(joined(again)) == sets(joined(samplers_at(graphs, options, 1, 4)))


def samplers_at(graphs, options, num_ranks, epoch):
    ranks = samplers(graphs, options, num_ranks)
    for sampler in ranks:
        sampler.set_epoch(epoch)
    return ranks


def slowly(costs, num_ranks, step):
    """The rule written down for one batch: the largest first, where the cost is least with it, of several where fewest are."""
    ranks = [[] for _ in range(num_ranks)]

    def total(part):
        return sum(costs[number][0] for number in part) + step * max((costs[number][1] for number in part), default=0)

    for number in sorted(range(len(costs)), key=lambda number: -(costs[number][0] + step * costs[number][1])):
        best = min(range(num_ranks), key=lambda rank: (total([*ranks[rank], number]), len(ranks[rank])))
        ranks[best].append(number)
    return ranks, [total(part) for part in ranks]


# Whole numbers, whose sums are exact in any order.
WORK = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=12)


@given(st.lists(WORK, min_size=1, max_size=4), st.integers(1, 5), st.sampled_from([0, 1, 8]))
def test_all_batches_at_once_are_balanced_as_each_is(batches, num_ranks, step):
    size = max(map(len, batches))
    added, steps = np.zeros((2, len(batches), size))
    for row, costs in enumerate(batches):
        added[row, : len(costs)], steps[row, : len(costs)] = np.transpose(costs)
    rank, predicted = balance(added, steps * step, num_ranks)
    for row, costs in enumerate(batches):
        parts, wanted = slowly(costs, num_ranks, step)
        assert predicted[row].tolist() == wanted
        for number, part in enumerate(parts):
            assert np.flatnonzero(rank[row, : len(costs)] == number).tolist() == sorted(part)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9), st.integers(1, 3))
def test_graham_s_bound(costs, num_ranks):
    """The largest sum is at most 4/3 - 1/(3 ranks) times the least that is possible, which is found by trying everything."""
    sampler = BalancedSampler([0] * len(costs), len(costs), cost=costs, num_replicas=num_ranks, rank=0)
    assignments = np.stack(np.meshgrid(*[np.arange(num_ranks)] * len(costs)), -1).reshape(-1, len(costs))
    sums = [np.where(assignments == rank, costs, 0).sum(1) for rank in range(num_ranks)]
    least = np.max(sums, axis=0).min()
    assert sampler.predicted_costs().max() <= least * (4 / 3 - 1 / (3 * num_ranks)) * (1 + 1e-9)


def test_costs_of_graphs():
    """By hand: a chain has as many steps as vertices, a tree as many as levels, a step is of one kind."""
    cost = Cost(vertex=1, edge=10, step=100)
    assert cost.of(vf.pack([vf.chain(3)])) == 3 + 20 + 300
    assert cost.of(vf.pack([vf.chain(3), vf.tree(((0, 1), 2))])) == 8 + 60 + 300
    assert cost.of(vf.pack([vf.graph(3, [(0, 2), (1, 2)], kind=["a", "b", "a"])])) == 3 + 20 + 300
    assert cost.of(vf.pack([])) == 0
    samples = [(vf.chain(3), 1), (vf.tree((0, 1)), 0)]
    sampler = BalancedSampler(samples, 2, cost=cost, shuffle=False, num_replicas=2, rank=1)
    assert sampler.predicted_costs().tolist() == [[323, 223]]
    assert list(sampler) == [[1]]
    pairs = [{"a": vf.chain(3), "b": {"more": vf.chain(2)}}]  # both are computed
    assert BalancedSampler(pairs, 1, cost=cost).predicted_costs().tolist() == [[323 + 212]]


def test_more_samples_than_are_packed_at_once():
    graphs = [vf.chain(1 + number % 5) for number in range(9000)]
    sampler = BalancedSampler(graphs, 1, shuffle=False, cost=Cost(step=0))
    assert sampler.predicted_costs()[:, 0].tolist() == [graph.num_vertices for graph in graphs]


@needs_data
@pytest.mark.slow
def test_ranks_are_alike_on_real_trees(data):
    graphs = vf.from_ptb(data / "sst" / "train.txt", num_labels=5)
    vertices = np.array([graph.num_vertices for graph in graphs])
    for num_ranks in (2, 4, 8):
        sampler = BalancedSampler(graphs, 64 * num_ranks, num_replicas=num_ranks, rank=0)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            costs = sampler.predicted_costs()
            assert (costs.max(1) / costs.mean(1)).max() <= 1.05
            # What a sampler without costs does.
            order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(epoch)).numpy()
            whole = order[: len(order) // (64 * num_ranks) * 64 * num_ranks].reshape(-1, num_ranks, 64)
            sums = vertices[whole].sum(-1)
            assert (sums.max(1) / sums.mean(1)).mean() > 1.02


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_without_graphs_in_the_last_batch(workers):
    samples = [(vf.chain(length), torch.ones(length, 2), length) for length in (3, 1, 2, 4, 1)]
    collate = functools.partial(vf.collate, like=samples[0], rows=(1,))
    sizes = []
    for rank in range(2):
        sampler = BalancedSampler(samples, 4, cost=Cost(step=0), shuffle=False, num_replicas=2, rank=rank)
        loader = DataLoader(samples, batch_sampler=sampler, collate_fn=collate, num_workers=workers)
        assert len(loader) == 2
        sizes.append([(batch.num_vertices, tuple(x.shape), label.tolist()) for batch, x, label in loader])
    assert sizes == [[(5, (5, 2), [1, 4]), (1, (1, 2), [1])], [(5, (5, 2), [3, 2]), (0, (0, 2), [])]]


def test_a_loader_that_asks_ahead_is_resumed_by_what_was_trained():
    graphs = [vf.chain(3)] * 10
    sampler = BalancedSampler(graphs, 2)
    batches = iter(sampler)
    first, second, *_ = list(batches)
    assert sampler.state_dict()["batches"] == 5
    sampler.load_state_dict(sampler.state_dict(batches=1))
    assert next(iter(sampler)) == second != first


GRAPHS = [vf.chain(2), vf.chain(3)]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ((GRAPHS, 0), {}, vf.InputError, "global_batch_size is 0; give 1 or more"),
        ((GRAPHS, 1.5), {}, vf.InputTypeError, r"global_batch_size is 1\.5; give an integer"),
        (([], 1), {}, vf.InputError, "the data set is empty"),
        ((iter(GRAPHS), 1), {}, vf.InputTypeError, "needs a data set with a length and an index, not list_iterator"),
        (({"a": vf.chain(2)}, 1), {}, vf.InputTypeError, "the data set is a dict, whose samples have names"),
        (([1, 2], 1), {}, vf.InputTypeError, "samples are of type int and have no input graph in them"),
        ((GRAPHS, 1), {"num_replicas": 2}, vf.InputError, "num_replicas is 2 and rank None; give both or neither"),
        ((GRAPHS, 1), {"num_replicas": 2, "rank": 2}, vf.InputError, "rank is 2, but with 2 ranks the last is 1"),
        (
            (GRAPHS, 1),
            {"cost": [1]},
            vf.InputError,
            r"cost has the shape \[1\]; give one number for each of the 2 samples",
        ),
        ((GRAPHS, 1), {"cost": [1, -1]}, vf.InputError, r"the cost of sample 1 is -1\.0; give finite numbers"),
        ((GRAPHS, 1), {"cost": [1, float("nan")]}, vf.InputError, "the cost of sample 1 is nan"),
        ((GRAPHS, 1), {"cost": "much"}, vf.InputTypeError, "cost is a str; give a vf.parallel.Cost, or one number"),
        ((GRAPHS, 1), {"seed": "a"}, vf.InputTypeError, "seed is 'a'; give an integer"),
        ((GRAPHS, 1), {"seed": 2**70}, vf.InputError, "seed is 1180591620717411303424, which is too large"),
    ],
)
def test_what_is_refused(arguments, options, error, match):
    with pytest.raises(error, match=match):
        BalancedSampler(*arguments, **options)


def test_samples_of_no_cost_are_spread():
    sampler = BalancedSampler(range(8), 8, cost=[0] * 8, num_replicas=4, rank=0, shuffle=False)
    assert [len(batch) for batch in sampler] == [2]


def test_costs_that_are_refused():
    for options, error, match in [
        ({"vertex": -1}, vf.InputError, r"Cost\(vertex=-1\): a cost is a finite number from 0 up"),
        ({"step": float("inf")}, vf.InputError, "finite number"),
        ({"edge": "1"}, vf.InputTypeError, r"Cost\(edge=\.\.\.\) is a str; give a number"),
        ({"vertex": 0, "step": 0}, vf.InputError, "graphs that cost nothing cannot be balanced"),
    ]:
        with pytest.raises(error, match=match):
            Cost(**options)


def test_states_that_are_refused():
    sampler = BalancedSampler(GRAPHS, 1)
    with pytest.raises(vf.InputError, match="batches is 3, but an epoch has 2"):
        sampler.state_dict(3)
    with pytest.raises(vf.InputError, match="no state of a BalancedSampler: seed, epoch missing"):
        sampler.load_state_dict({k: v for k, v in sampler.state_dict().items() if k not in ("seed", "epoch")})
    with pytest.raises(vf.InputError, match="a sampler with global_batch_size=2, this one has 1"):
        sampler.load_state_dict(BalancedSampler(GRAPHS, 2).state_dict())
    with pytest.raises(vf.InputError, match="a sampler with num_samples=4, this one has 2"):
        sampler.load_state_dict(BalancedSampler(GRAPHS * 2, 1).state_dict())
    for name, value, error, match in [
        ("batches", 3, vf.InputError, "the state's batches is 3, but an epoch has 2"),
        ("batches", -1, vf.InputError, "the state's batches is -1; give 0 or more"),
        ("epoch", "1", vf.InputTypeError, "the state's epoch is '1'; give an integer"),
        ("seed", None, vf.InputTypeError, "the state's seed is None; give an integer"),
    ]:
        with pytest.raises(error, match=match):
            sampler.load_state_dict({**sampler.state_dict(), name: value})
    with pytest.raises(vf.InputTypeError, match="the state is a NoneType; give what state_dict"):
        sampler.load_state_dict(None)
    with pytest.raises(vf.InputError, match="epoch is -1"):
        sampler.set_epoch(-1)


def test_processes_that_do_not_know_of_each_other_yet(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(vf.InputError, match=r"WORLD_SIZE is 2, but .* is not initialised"):
        BalancedSampler(GRAPHS, 1)
    assert BalancedSampler(GRAPHS, 1, num_replicas=1, rank=0).num_replicas == 1
