"""The Stanford Sentiment Treebank (Socher et al. 2013) in PTB brackets, a label at every vertex."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

import vertexflow as vf

from .task import UNLABELLED, Task, encode, vocabulary

FINE = ["very negative", "negative", "neutral", "positive", "very positive"]
BINARY = ["negative", "positive"]
_TO_BINARY = np.array([0, 0, UNLABELLED, 1, 1])


def load(folder: str, binary: bool) -> Task:
    """`train.txt` and `dev.txt` of a folder; `test.txt` if it is there, else the final figures are those of dev.

    With `binary`, neutral phrases have no label and neutral sentences are left out.
    """
    train = _read(os.path.join(folder, "train.txt"), binary)
    dev = _read(os.path.join(folder, "dev.txt"), binary)
    test_path = os.path.join(folder, "test.txt")
    test = _read(test_path, binary) if os.path.exists(test_path) else dev
    words = _frequent(train)
    classes = BINARY if binary else FINE
    name = "test" if test is not dev else "dev (no test.txt there)"
    return Task("sst", encode(train, words), encode(dev, words), encode(test, words), name, words, classes)


def _read(path: str, binary: bool) -> list[vf.InputGraph]:
    graphs = vf.from_ptb(path, num_labels=len(FINE))
    for graph in graphs:
        graph.data["token"] = np.array([token.lower() for token in graph.data["token"]], dtype=object)
    if not binary:
        return graphs
    for graph in graphs:
        graph.data["label"] = _TO_BINARY[graph.data["label"]]
    return [graph for graph in graphs if graph.data["label"][-1] != UNLABELLED]


def _frequent(graphs: Sequence[vf.InputGraph]) -> list[str]:
    """Tokens seen twice or more; the others teach the model what an unknown token is."""
    counts = Counter(token for graph in graphs for token in graph.data["token"])
    return [word for word in vocabulary(graphs) if counts[word] > 1 or word in ("", "<unknown>")]
