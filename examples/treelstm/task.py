"""What a task is: samples with tokens and labels at vertices, a vocabulary and classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import vertexflow as vf

UNLABELLED = -1
Sample = tuple[vf.InputGraph, Tensor, Tensor]  # the tree; a token and a label for each vertex, int64 [V]


@dataclass
class Task:
    """Training, validation and test samples. `words` are the vocabulary: 0 is "no token", 1 an unknown one."""

    name: str
    train: list[Sample]
    valid: list[Sample]
    test: list[Sample]
    test_name: str
    words: list[str]
    classes: list[str]


def vocabulary(graphs: Iterable[vf.InputGraph]) -> list[str]:
    """All tokens of the graphs, sorted, after the two that every vocabulary has."""
    tokens = {token for graph in graphs for token in graph.data["token"]}
    return ["", "<unknown>", *sorted(tokens - {""})]


def encode(graphs: Sequence[vf.InputGraph], words: Sequence[str]) -> list[Sample]:
    """Tokens and labels of every graph as tensors; tokens that are not in the vocabulary become unknown."""
    number = {word: index for index, word in enumerate(words)}
    samples = []
    for graph in graphs:
        tokens = torch.tensor([number.get(token, 1) for token in graph.data["token"]])
        labels = graph.data.get("label", np.full(graph.num_vertices, UNLABELLED))
        samples.append((graph, tokens, torch.from_numpy(np.asarray(labels, dtype=np.int64))))
    return samples
