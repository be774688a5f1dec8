"""Kinds of vertices: strings or numbers of one type; whatever else is refused, and nothing is turned into something else."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest
import torch

import vertexflow as vf
from vertexflow.errors import InputTypeError, VertexFunctionError
from vertexflow.graph.inputs.build import graph
from vertexflow.graph.inputs.pack import pack


class Plain(enum.Enum):
    A = 1


class Word(str, enum.Enum):
    A = "a"


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (["b", np.str_("a")], ("a", "b")),
        ([np.int64(3), 1], (1, 3)),
        ([np.bool_(True), False], (False, True)),
        ([torch.tensor(3), 1], (1, 3)),
        ([Word.A, "b"], ("a", "b")),
        (["a\0", "a"], ("a", "a\0")),  # which are one string to NumPy
        ([2**60 + 1, -(2**64)], (-(2**64), 2**60 + 1)),  # and these, floats
        (np.array(["b", "a"], dtype=object), ("a", "b")),
    ],
)
def test_strings_and_numbers_are_kept_as_they_are(kind: Any, names: tuple[Any, ...]) -> None:
    input_graph = graph(2, [(0, 1)], kind=kind)
    assert input_graph.kinds == names
    assert list(map(type, input_graph.kinds)) == list(map(type, names))
    batch = pack([input_graph, input_graph])
    assert batch.kind_index is not None
    assert [names[number] for number in batch.kind_index] == list(kind) * 2


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (["leaf", 3], r"cannot be sorted: 'leaf' \(vertex 0\) and 3 \(vertex 1\); use one type, such as str"),
        (["a", True], "cannot be sorted: 'a'"),
        ([1, True], r"cannot be sorted: 1 \(vertex 0\) and True \(vertex 1\)"),
        ([1.0, 1], "cannot be sorted: 1.0"),
        ([b"a", "a"], "cannot be sorted: b'a'"),
        ([None, None], "the kind of vertex 0 is None; give every vertex a name"),
        ([Plain.A, Plain.A], r"vertex 0 is <Plain.A: 1>, of the type Plain; .* its `\.name`"),
        ([("a", 1), ("b", 2)], r"vertex 0 is \('a', 1\), of the type tuple; kinds are strings or numbers"),
        ([("a",), ("b", 2)], r"vertex 0 is \('a',\), of the type tuple"),
        ([1.0, float("nan")], "a kind is NaN"),
    ],
)
def test_other_kinds_are_refused(kind: list[Any], message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        graph(2, [(0, 1)], kind=kind)


@pytest.mark.parametrize("kind", [None, ["leaf", "node"], Plain.A, ("a", 1)])
def test_a_method_for_what_is_no_kind_is_refused(kind: object) -> None:
    with pytest.raises(
        VertexFunctionError, match="kinds are strings or numbers, and several of them stand side by side"
    ):
        vf.vertex(kind)
