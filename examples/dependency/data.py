"""Sentences of a CoNLL-U file, split and numbered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import vertexflow as vf

Sample = tuple[
    vf.InputGraph, Tensor, Tensor, Tensor
]  # a tree, the form of each word, the relation of each edge, the tag
UNKNOWN = 0  # the number of a word or a relation that training has not


@dataclass(frozen=True)
class Treebank:
    """Sentences to train on, for choosing the epoch, and for the figures; and what the numbers stand for."""

    train: list[Sample]
    dev: list[Sample]
    test: list[Sample]
    words: list[str]
    relations: list[str]
    tags: list[str]


def load(path: Path, seed: int = 0) -> Treebank:
    """Read a file, or the only `.conllu` file of a folder (or of its folder `ud_english_ewt`); eight tenths are to train on.

    Raises:
        FileNotFoundError: there is no such file, or not one of them.
        vf.GraphError: a line is wrong, or there are fewer than ten sentences; the message names the file.
    """
    if path.is_dir():
        files = sorted([*path.glob("*.conllu"), *path.glob("ud_english_ewt/*.conllu")])
        if len(files) != 1:
            raise FileNotFoundError(f"{len(files)} files *.conllu in {path}; name one of them")
        path = files[0]
    trees = vf.from_conllu(path)
    if len(trees) < 10:
        raise vf.GraphError(f"{path} has {len(trees)} sentences; at least 10 are needed to train, choose and test")
    order = np.random.default_rng(seed).permutation(len(trees))
    tenth = len(trees) // 10
    parts = [[trees[at] for at in part] for part in np.split(order, [len(trees) - 2 * tenth, len(trees) - tenth])]
    words = _names((form.lower() for tree in parts[0] for form in tree.data["form"]), at_least=2)
    relations = _names(relation for tree in parts[0] for relation in tree.data["deprel"])
    tags = sorted({tag for tree in trees for tag in tree.data["upos"]})
    train, dev, test = ([encode(tree, words, relations, tags) for tree in part] for part in parts)
    return Treebank(train, dev, test, words, relations, tags)


def encode(tree: vf.InputGraph, words: list[str], relations: list[str], tags: list[str]) -> Sample:
    """A tree with its words, int64 [V], the relations of its edges, [E], and the tags of its words, [V]."""
    numbers = [{name: at for at, name in enumerate(names)} for names in (words, relations, tags)]
    forms = [numbers[0].get(form.lower(), UNKNOWN) for form in tree.data["form"]]
    of_edges = [numbers[1].get(relation, UNKNOWN) for relation in tree.data["deprel"][tree.edge_index[0].numpy()]]
    known = [numbers[2][tag] for tag in tree.data["upos"]]
    word, relation, tag = (torch.tensor(column, dtype=torch.int64) for column in (forms, of_edges, known))
    return tree, word, relation, tag


def _names(occurrences: Iterable[str], at_least: int = 1) -> list[str]:
    """Distinct names, the most frequent first, after one name for all that is unknown."""
    return ["<unknown>", *(name for name, count in Counter(occurrences).most_common() if count >= at_least)]
