"""The form a DataLoader wants: samples joined, graphs packed, and the schedule made where the workers run."""

from __future__ import annotations

import functools
import pickle
import warnings
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import vertexflow.call.orders
from tests.models import TreeRNN
from vertexflow.errors import GraphError, InputError, InputTypeError
from vertexflow.graph.inputs.build import chain, tree
from vertexflow.graph.inputs.pack import pack
from vertexflow.samples.collate import collate

Sample = namedtuple("Sample", ["graph", "label"])


def test_graphs_are_packed() -> None:
    assert collate([chain(2), chain(3)]).child.tolist() == pack([chain(2), chain(3)]).child.tolist()


def test_a_tuple_of_graph_rows_and_label() -> None:
    collated = collate([(chain(2), torch.ones(2, 4), 1), (chain(3), torch.zeros(3, 4), 0)])
    assert isinstance(collated, tuple)
    batch, x, label = collated
    assert batch.num_vertices == len(x) == 5
    assert x.sum() == 8
    assert label.tolist() == [1, 0]
    assert label.dtype == torch.int64


def test_dicts_lists_and_named_tuples_keep_their_form() -> None:
    collated = collate([{"g": chain(2), "more": [1.5, Sample(chain(1), "a")]}] * 2)
    assert collated.keys() == {"g", "more"}
    numbers, sample = collated["more"]
    assert numbers.tolist() == [1.5, 1.5]
    assert isinstance(sample, Sample)
    assert len(sample.graph) == 2
    assert sample.label == ["a", "a"]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([torch.tensor(1.0), torch.tensor(2.0)], torch.tensor([1.0, 2.0])),
        ([torch.tensor([1]), torch.tensor([2, 3])], torch.tensor([1, 2, 3])),
        ([np.array([1, 2]), np.array([3])], torch.tensor([1, 2, 3])),
        ([np.array([1, 2])[::-1], np.array([3])], torch.tensor([2, 1, 3])),
        ([np.array(1.0), np.array(2.0)], torch.tensor([1.0, 2.0], dtype=torch.float64)),
        ([np.array([True]), np.array([False])], torch.tensor([True, False])),
        ([1, 2], torch.tensor([1, 2])),
        ([1, 2.5], torch.tensor([1.0, 2.5])),
        ([True, False], torch.tensor([True, False])),
        ([np.int64(1), 2], torch.tensor([1, 2])),
        ([np.bool_(True), np.bool_(False)], torch.tensor([True, False])),
    ],
)
def test_numbers_become_tensors(items: list[Any], expected: torch.Tensor) -> None:
    collated = collate(items)
    assert collated.dtype == expected.dtype
    assert torch.equal(collated, expected)


def test_strings_and_other_things_are_listed() -> None:
    assert collate(["a", "b"]) == ["a", "b"]
    assert collate([None, None]) == [None, None]


def test_arrays_of_words_stay_arrays() -> None:
    collated = collate([np.array(["a"], dtype=object), np.array(["b", "c"], dtype=object)])
    assert collated.dtype == object
    assert collated.tolist() == ["a", "b", "c"]


def test_rows_that_want_gradients_get_them() -> None:
    x = torch.ones(2, 1, requires_grad=True)
    _, joined = collate([(chain(2), x), (chain(2), x)])
    joined.sum().backward()
    assert x.grad.tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize("workers", [0, 1])
def test_with_a_data_loader(workers: int) -> None:
    samples = [(chain(length), torch.full((length, 2), float(length)), length) for length in (1, 2, 3)]
    loader = DataLoader(samples, batch_size=2, collate_fn=collate, num_workers=workers)
    first, second = list(loader)
    assert first[0].graph_offset.tolist() == [0, 1, 3]
    assert first[0].roots.tolist() == [0, 2]
    assert first[1][:, 0].tolist() == [1.0, 2.0, 2.0]
    assert second[2].tolist() == [3]


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([], InputError, r"got no samples; where that may be .*vf.collate\(samples, like=dataset\[0\]\)"),
        ([(chain(1), 1), (chain(1), "b")], InputTypeError, r"sample\[1\]: str in sample 1, but int in the first"),
        ([(1,), [1]], InputTypeError, "sample: list in sample 1, but tuple in the first; all samples"),
        ([(1, 2), (1, 2), (1,)], InputError, "sample: sample 2 has 1 fields, the first 2"),
        ([{"x": 1}, {"y": 1}], InputError, r"sample: sample 1 has the keys \['y'\], the first \['x'\]"),
        (
            [{"x": [torch.ones(2, 3)]}, {"x": [torch.ones(2, 4)]}],
            InputError,
            r"sample\['x'\]\[0\]: the shapes \(2, 3\), \(2, 4\) cannot be joined",
        ),
        ([np.ones((2, 3)), np.ones(2)], InputError, r"sample: the shapes \(2, 3\), \(2,\) cannot be joined"),
        ([torch.tensor(1), torch.ones(2)], InputError, r"sample: the shapes \(\), \(2,\) cannot be joined"),
        ([torch.ones(1, n) for n in range(1, 7)], InputError, r"\(1, 4\), \.\.\. cannot be joined"),
        ([1, 1 << 70], InputError, "sample: the numbers cannot be joined"),
    ],
)
def test_samples_that_do_not_fit_together(samples: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        collate(samples)


def test_no_samples_have_the_form_of_one_that_they_are_like() -> None:
    like = {
        "graph": tree(((0, 1), 2)),
        "x": torch.ones(5, 4, dtype=torch.float64),
        "more": [1.5, Sample(chain(1), "a")],
    }
    like["graph"].data["label"] = np.arange(5)
    like["head"] = [0, 1, 2, 3, -1]
    options = {"index": {"head": "graph"}, "like": like}
    collated, full = collate([], **options), collate([like], **options)
    assert collated["graph"].num_graphs == collated["more"][1].graph.num_graphs == 0
    assert collated["graph"].data["label"].dtype == full["graph"].data["label"].dtype
    assert len(collated["graph"].data["label"]) == 0
    assert collated["more"][1].label == []
    for ours, wanted in (
        (collated["x"], full["x"]),
        (collated["head"], full["head"]),
        (collated["more"][0], full["more"][0]),
    ):
        assert (ours.dtype, ours.shape) == (wanted.dtype, (0, *wanted.shape[1:]))
    assert full["graph"].num_graphs == 1


# Schedules.


def test_a_batch_comes_with_its_schedule() -> None:
    batch = collate([chain(2), chain(3)])
    assert batch.schedule.policy == "depth"
    assert batch.schedule.num_slots == (1,)
    assert collate([chain(2)], policy="height", num_slots=3).schedule.num_slots == (3,)
    assert collate([chain(2)], policy=None).schedule is None


def test_the_schedule_travels_with_the_batch() -> None:
    batch = collate([tree(((0, 1), 2))])
    again = pickle.loads(pickle.dumps(batch))
    assert again.schedule.arrays.tolist() == batch.schedule.arrays.tolist()
    assert again.to("meta").schedule is again.schedule


@pytest.mark.parametrize("workers", [0, 1])
def test_a_model_uses_the_schedule_that_a_worker_made(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [(tree(((0, 1), 2)), torch.randn(5, 3)), (chain(4), torch.randn(4, 3))]
    model = TreeRNN(3, 4)
    graphs, rows = zip(*samples, strict=True)
    expected = model(list(graphs), x=torch.cat(rows)).h
    loader = DataLoader(samples, batch_size=2, collate_fn=functools.partial(collate, num_slots=2), num_workers=workers)
    ((batch, x),) = list(loader)
    monkeypatch.setattr(vertexflow.call.orders, "cached_schedule", None)  # would be called to make one
    assert torch.equal(model(batch, x=x).h, expected)


def test_a_schedule_for_too_few_slots_is_made_again() -> None:
    model, x = TreeRNN(3, 4), torch.randn(4, 3)
    assert torch.equal(model(collate([chain(4)]), x=x).h, model([chain(4)], x=x).h)


def test_a_vertex_with_more_children_than_slots_is_refused_in_the_worker() -> None:
    with pytest.raises(GraphError, match="more children than slots gathered: graph 1, vertex 3"):
        collate([chain(2), tree(((0, 1), 2))], num_slots=1)


@pytest.mark.parametrize("empty", [[], torch.empty(0), np.empty(0)], ids=["list", "tensor", "array"])
def test_a_field_that_is_empty_in_all_samples_is_no_rows(empty):
    """As it is where others are not: a vector of nothing for each graph is no use."""
    samples = [{"graph": chain(3), "spans": empty}, {"graph": chain(2), "spans": empty}]
    assert collate(samples)["spans"].shape == (0,)
    assert collate(samples, rows=("spans",))["spans"].shape == (0,)
    assert collate(samples, per_graph=("spans",))["spans"].shape == (2, 0)


def test_arrays_that_may_not_be_written_to() -> None:
    """As Hugging Face's datasets give them; PyTorch warns where its tensors shared their memory."""
    fixed = [np.array([0, 1]), np.array([1, -1])]
    for array in fixed:
        array.flags.writeable = False
    samples = [{"graph": chain(2), "head": array, "x": array} for array in fixed]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = collate(samples, index=("head",), rows=("x",))
    assert batch["head"].tolist() == [0, 1, 3, -1]
    batch["head"][:] = batch["x"][:] = 7
    assert [array.tolist() for array in fixed] == [[0, 1], [1, -1]]
