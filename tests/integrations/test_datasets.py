"""Hugging Face `datasets`: rows of lists and dicts through `vf.collate`."""

from __future__ import annotations

from functools import partial

import datasets
import pytest
import torch
from torch.utils.data import DataLoader

import vertexflow as vf

ROWS = [
    {"parents": [2, 2, -1], "tokens": [4, 5, 6], "head": {"vertex": 2, "span": [0, 1]}, "label": 1, "text": "a b c"},
    {"parents": [1, -1], "tokens": [1, 2], "head": {"vertex": 1, "span": [1, 1]}, "label": 0, "text": "d e"},
    {"parents": [3, 3, 3, -1], "tokens": [1, 2, 3, 4], "head": {"vertex": 3, "span": [0, 3]}, "label": 2, "text": "f"},
]
collate = partial(
    vf.collate, rows=("tokens",), index=(("head", "vertex"), ("head", "span")), per_graph=(("head", "span"),)
)


@pytest.fixture(autouse=True)
def _no_bars():
    datasets.disable_progress_bars()


def with_graph(row):
    """A row with its input graph in the place of its parents."""
    return {
        **{name: value for name, value in row.items() if name != "parents"},
        "graph": vf.tree_from_parents(row["parents"]),
    }


def with_graphs(rows):
    """The same for several rows, as `with_transform` has them: a list for each column."""
    graphs = [vf.tree_from_parents(parents) for parents in rows["parents"]]
    return {**{name: values for name, values in rows.items() if name != "parents"}, "graph": graphs}


def plain(batch):
    """What the batch should be, from the rows themselves."""
    return collate([with_graph(row) for row in ROWS[:2]])


def check(batch) -> None:
    want = plain(batch)
    graphs = batch["graph"]
    assert type(graphs) is vf.GraphBatch
    assert graphs.num_graphs == 2
    assert torch.equal(graphs.edge_index, want["graph"].edge_index)
    assert batch["tokens"].tolist() == [4, 5, 6, 1, 2]
    assert batch["tokens"].dtype == torch.int64
    assert batch["label"].tolist() == [1, 0]
    assert batch["head"]["vertex"].tolist() == [2, 4]  # numbered in the batch
    assert batch["head"]["span"].tolist() == [[0, 1], [4, 4]]
    assert batch["text"] == ["a b c", "d e"]


@pytest.mark.parametrize("workers", [0, 1])
def test_graphs_are_made_where_rows_are_read(workers):
    rows = datasets.Dataset.from_list(ROWS).with_transform(with_graphs)
    check(next(iter(DataLoader(rows, batch_size=2, collate_fn=collate, num_workers=workers))))


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
def test_graphs_are_made_where_rows_become_a_batch(form):
    rows = datasets.Dataset.from_list(ROWS).with_format(form)
    batches = DataLoader(rows, batch_size=2, collate_fn=lambda rows: collate(map(with_graph, rows)))
    check(next(iter(batches)))


def test_rows_that_are_streamed():
    rows = datasets.Dataset.from_list(ROWS).to_iterable_dataset().map(with_graph, remove_columns=["parents"])
    check(next(iter(DataLoader(rows, batch_size=2, collate_fn=collate))))


def test_a_training_step_over_all_rows():
    class Sum(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={"h": 4})
            self.embed, self.out = torch.nn.Embedding(8, 4), torch.nn.Linear(4, 3)

        def vertex(self, v):
            h = torch.tanh(self.embed(v.pull("tokens")) + v.sum(v.children.h))
            v.scatter(h=h)
            v.push(score=self.out(h))

    torch.manual_seed(0)
    model = Sum()
    rows = datasets.Dataset.from_list(ROWS).with_transform(with_graphs)
    for batch in DataLoader(rows, batch_size=2, collate_fn=collate):
        scores = model(batch["graph"], tokens=batch["tokens"], outputs=batch["graph"].roots).score
        torch.nn.functional.cross_entropy(scores, batch["label"]).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_balanced_ranks_of_rows():
    """A sampler reads all rows once, and says what each rank gets."""
    rows = datasets.Dataset.from_list(ROWS * 4).with_transform(with_graphs)
    ranks = [vf.parallel.BalancedSampler(rows, 6, num_replicas=2, rank=rank, shuffle=False) for rank in range(2)]
    assert sorted(number for sampler in ranks for batch in sampler for number in batch) == list(range(12))
