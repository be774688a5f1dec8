"""What `vf.collate` makes of each field: rows, a value for each graph, or vertex numbers; and what it refuses."""

from __future__ import annotations

import functools
import warnings
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vertexflow.errors import InputError, InputTypeError
from vertexflow.graph.inputs.build import InputGraph, chain, graph, tree
from vertexflow.samples.collate import collate

Pair = namedtuple("Pair", ["graph", "target"])
TREE = tree(((0, 1), 2))  # 5 vertices, 4 edges, 3 leaves


@dataclass(frozen=True)
class Sentence:
    graph: InputGraph
    tokens: list[int]


def field(*values: Any, graphs: tuple[InputGraph, ...] = (chain(2), chain(3)), **options: Any) -> Any:
    return collate([{"g": g, "a": value} for g, value in zip(graphs, values, strict=True)], **options)["a"]


# Lists are rows, whatever their lengths.


def test_rows_of_a_table_with_lists_of_unequal_lengths() -> None:
    rows = [{"graph": chain(3), "tokens": [3, 7, 2], "label": 1}, {"graph": chain(1), "tokens": [5], "label": 0}]
    collated = collate(rows)
    assert collated["tokens"].tolist() == [3, 7, 2, 5]
    assert collated["tokens"].dtype == collated["label"].dtype == torch.int64
    assert collated["label"].tolist() == [1, 0]


def test_lists_of_equal_length_are_rows_too_and_never_transposed() -> None:
    assert field([1, 2, 3], [4, 5, 6], graphs=(chain(3), chain(3)), rows="a").tolist() == [1, 2, 3, 4, 5, 6]
    assert collate([{"a": [1, 2]}, {"a": [3, 4]}])["a"].tolist() == [1, 2, 3, 4]


def test_a_list_of_lists_is_rows_of_vectors() -> None:
    assert field([[1, 2], [3, 4]], [[5, 6], (7, 8), [9, 0]]).tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 0]]
    assert field([], [[1.5, 2.5]] * 2, graphs=(chain(1), chain(3))).shape == (2, 2)  # no edge, so no row


def test_an_empty_list_does_not_turn_integers_into_floats() -> None:
    assert field([], [4, 5], graphs=(chain(1), chain(3))).dtype == torch.int64


def test_lists_of_words_stay_lists() -> None:
    assert field(["a", "b"], ["c", "d", "e"]) == ["a", "b", "c", "d", "e"]


def test_a_sample_that_is_a_list_or_tuple_is_fields() -> None:
    for form in (list, tuple):
        batch, tokens, label = collate([form((chain(2), [1, 2], 0)), form((chain(1), [3], 1))])
        assert (batch.num_vertices, tokens.tolist(), label.tolist()) == (3, [1, 2, 3], [0, 1])


def test_a_dataclass_is_fields() -> None:
    collated = collate([Sentence(chain(2), [1, 2]), Sentence(chain(1), [3])])
    assert isinstance(collated, Sentence)
    assert (len(collated.graph), collated.tokens.tolist()) == (2, [1, 2, 3])


# One value for each graph.


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
def test_a_vector_for_each_graph_stays_one(form: Any) -> None:
    assert field(form([0.0, 1.0, 2.0, 3.0]), form([4.0, 5.0, 6.0, 7.0])).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert field(form([0.5]), form([1.5]), graphs=(TREE, TREE)).shape == (2, 1)


def test_two_dimensions_are_rows_whatever_they_count() -> None:
    assert field(torch.ones(1, 4), torch.ones(1, 4)).shape == (2, 4)
    assert field(torch.ones(4, 2), torch.ones(4, 2)).shape == (8, 2)
    assert field(torch.ones(4, 2), torch.ones(4, 2), per_graph="a").shape == (2, 4, 2)


@pytest.mark.parametrize(
    "sizes", [(2, 5), (1, 4), (1, 3), (1, 2), (0, 1)], ids=["vertices", "edges", "leaves", "inner", "kind"]
)
def test_what_rows_may_count(sizes: tuple[int, int]) -> None:
    graphs = (
        graph(2, [(0, 1)], kind=["a", "a"]),
        graph(5, [(1, 3), (0, 3), (3, 4), (2, 4)], kind=["a"] * 4 + ["b"]),
    )
    assert field(*map(torch.ones, sizes), graphs=graphs).shape == (sum(sizes),)


def test_lengths_that_fit_nothing_are_refused_by_name_and_size() -> None:
    with pytest.raises(
        InputError, match=r"sample\['a'\] has neither .*4 for 2 vertices and 1 edges, 7 for 3.*rows=\('a',"
    ):
        field(torch.ones(4), torch.ones(7))
    assert field(torch.ones(4), torch.ones(7), rows=("a",)).shape == (11,)


def test_a_batch_that_does_not_tell_vectors_from_rows_says_so() -> None:
    graphs = (chain(3), chain(3))
    with pytest.warns(
        RuntimeWarning, match=r"sample\['a'\] has one entry for each of the vertices .*per_graph=\('a',\)"
    ):
        assert field(torch.ones(3), torch.ones(3), graphs=graphs).shape == (6,)
    with pytest.warns(RuntimeWarning, match="each of the leaves .* taken as one vector for each graph"):
        assert field(torch.ones(1), torch.ones(1), graphs=graphs).shape == (2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert field(torch.ones(3), torch.ones(3), graphs=graphs, rows="a").shape == (6,)
        assert field(torch.ones(3), torch.ones(3), graphs=graphs, per_graph="a").shape == (2, 3)
        assert field([], [], graphs=(chain(1), chain(1))).shape == (0,)


# Vertex numbers.


@pytest.mark.parametrize(
    "form", [list, np.array, torch.tensor, lambda numbers: np.array(numbers, np.uint8).astype(np.int16)]
)
def test_vertex_numbers_are_those_of_the_batch(form: Any) -> None:
    collated = field(form([1, 0]), form([2]), index=("a",))
    assert collated.tolist() == [1, 0, 4]
    assert collated.dtype == torch.int64


def test_numbers_of_every_form_are_moved() -> None:
    assert field([1, -1], [-1, 0, 2], index="a").tolist() == [1, -1, -1, 2, 4]
    assert field(1, 2, index="a").tolist() == [1, 4]
    assert field([[0, 1]], [[1, 2], [0, 0]], index="a").tolist() == [[0, 1], [3, 4], [2, 2]]
    assert field([0, 1], [0, 1], index="a", per_graph="a").tolist() == [[0, 1], [2, 3]]
    assert field([], [1], index="a").tolist() == [3]
    small = [torch.tensor([number], dtype=torch.uint8) for number in (200, 100)]
    assert field(*small, index="a", graphs=(chain(201), chain(101))).tolist() == [200, 301]


def test_fields_are_named_by_position_attribute_and_path() -> None:
    assert collate([(chain(2), [1]), (chain(3), [0])], index=(1,))[1].tolist() == [1, 2]
    assert collate([Pair(chain(2), 1), Pair(chain(3), 0)], index=("target",)).target.tolist() == [1, 2]
    nested = [{"g": chain(2), "meta": {"head": [1]}}, {"g": chain(3), "meta": {"head": [0]}}]
    assert collate(nested, index=[("meta", "head")])["meta"]["head"].tolist() == [1, 2]


def test_samples_with_two_graphs_say_whose_vertices_they_number() -> None:
    samples = [{"p": chain(2), "q": chain(4), "head": [1]}, {"p": chain(3), "q": chain(4), "head": [2]}]
    assert collate(samples, index={"head": "q"})["head"].tolist() == [1, 6]
    with pytest.raises(InputError, match=r"samples have 2 graphs \(sample\['p'\], sample\['q'\]\); .* index=\{'head':"):
        collate(samples, index=("head",))


@pytest.mark.parametrize("workers", [0, 1])
def test_in_a_data_loader(workers: int) -> None:
    samples = [{"g": chain(n), "tokens": list(range(n)), "head": [n - 1], "y": [0.5] * 7} for n in (1, 2, 3)]
    joined = functools.partial(collate, index=("head",), rows=("tokens",), per_graph=("y",), num_slots=1)
    first, second = DataLoader(samples, batch_size=2, collate_fn=joined, num_workers=workers)
    assert (first["tokens"].tolist(), first["head"].tolist(), first["y"].shape) == ([0, 0, 1], [0, 2], (2, 7))
    assert (second["tokens"].tolist(), second["head"].tolist(), second["y"].shape) == ([0, 1, 2], [2], (1, 7))


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        (
            ([[1, 2], [3]], [[1, 2]] * 3),
            {},
            InputError,
            r"sample\['a'\]: in sample 0 the rows of the list have different",
        ),
        (([[1, 2]] * 2, [[1]] * 3), {}, InputError, r"sample\['a'\]: the shapes \(2, 2\), \(3, 1\) cannot be joined"),
        (((1, 2), (1, 2, 3)), {}, InputError, r"has 3 fields, the first 2; a tuple is fields: for rows, give a list"),
        (([TREE], [TREE, TREE]), {}, InputError, "has 2 fields, the first 1; a list of graphs, tensors.* is fields"),
        (([0, 1], [0, 3, 1]), {"index": "a"}, InputError, r"sample\['a'\]: sample 1 has the vertex number 3.* 0 to 2"),
        (([0, -2], [0]), {"index": "a"}, InputError, "sample 0 has the vertex number -2, which is out of range"),
        (([0.5], [1.0]), {"index": "a"}, InputTypeError, "sample 0 has torch.float.* there; give integers"),
        (([True], [False]), {"index": "a"}, InputTypeError, "sample 0 has torch.bool there; give integers"),
        ((["x"], ["y"]), {"index": "a"}, InputTypeError, "sample 0 has a list without numbers there"),
        (
            ([0], [1]),
            {"index": "b"},
            InputError,
            "index=.* names 'b', but samples have no such field; they have 'g', 'a'",
        ),
        (([0], [1]), {"index": {"a": "b"}}, InputError, "names 'b', but samples have no such graph; they have 'g'"),
        (([0], [1]), {"rows": ("a", "c")}, InputError, "rows=.* names 'c', but samples have no such field"),
        (([0], [1]), {"rows": "a", "per_graph": "a"}, InputError, "named in `rows` and in `per_graph`"),
        (([0], [1, 2]), {"per_graph": "a"}, InputError, r"named in `per_graph`, but has the shapes \(1,\), \(2,\)"),
    ],
)
def test_what_is_refused(values: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        field(*values, **options)
    with pytest.raises(InputError, match="samples have no graph"):
        collate([{"a": [1]}], index="a")


def test_a_batch_is_no_sample():
    with pytest.raises(InputTypeError, match=r"sample\[0\] is a GraphBatch; give input graphs"):
        collate([(collate([chain(2)]), 1)])


# Numbers of different dtypes.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([np.float16(0.5)], [70_000]),  # which would be infinite
        ([0.5], [2**24 + 1]),
        ([[0.5, 1]], [[2**24 + 1, 2]]),
        (torch.tensor([]), torch.tensor([2**24 + 1])),
        (torch.tensor(0.5), torch.tensor(2**24 + 1, dtype=torch.int32)),
        (np.array([]), np.array([2**53 + 1])),
        (np.float32(0.5), 2**24 + 1),
    ],
)
def test_an_integer_that_would_become_another_number_is_refused(one: Any, other: Any) -> None:
    with pytest.raises(InputError, match="is another number; give all samples one dtype"):
        field(one, other, rows="a" if np.ndim(one) else ())


def test_an_integer_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(InputError, match="the numbers cannot be joined"):
        field([0.5, 1.5], [2**70, 0.5], rows="a")


def test_other_integers_are_numbers_among_others() -> None:
    assert field([0.5], [2**24], rows="a").tolist() == [0.5, 2**24]
    assert field(torch.tensor([]), torch.tensor([3, -4]), rows="a").tolist() == [3, -4]
    assert field(True, 0.5).tolist() == [1, 0.5]
    assert field(2**24 + 1, 5).tolist() == [2**24 + 1, 5]
