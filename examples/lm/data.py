"""The sentences of the Stanford Sentiment Treebank (Socher et al. 2013), a chain of next words each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import vertexflow as vf

Sample = tuple[
    vf.InputGraph, Tensor, Tensor
]  # a chain; the word that each vertex reads and the one it is to say, int64 [V]

END, UNKNOWN = 0, 1  # in every vocabulary; END is also what a sentence begins with


@dataclass(frozen=True)
class Corpus:
    """Sentences to train on and to be measured on, and the vocabulary. Of a sample: the words read, the words to come."""

    train: list[Sample]
    dev: list[Sample]
    words: list[str]


def load(folder: Path) -> Corpus:
    """`train.txt` and `dev.txt`, trees in PTB brackets, in a folder or in its `sst`.

    Raises:
        FileNotFoundError: one of them is not there.
        GraphError: one of them is malformed.
    """
    directory = next((place for place in (folder, folder / "sst") if (place / "train.txt").exists()), None)
    if directory is None:
        raise FileNotFoundError(f"there is no train.txt in {folder}, nor in {folder / 'sst'}")
    train, dev = (read(directory / name) for name in ("train.txt", "dev.txt"))
    words = vocabulary(train)
    return Corpus(encode(train, words), encode(dev, words), words)


def read(path: Path) -> list[list[str]]:
    """The lower-case leaves of each tree, from left to right."""
    return [[token.lower() for token in graph.data["token"] if token] for graph in vf.from_ptb(path)]


def vocabulary(sentences: Iterable[Sequence[str]]) -> list[str]:
    """Words seen twice or more; the others teach the model what an unknown word is."""
    counts = Counter(word for sentence in sentences for word in sentence)
    return ["<end>", "<unknown>", *sorted(word for word, count in counts.items() if count > 1)]


def encode(sentences: Iterable[Sequence[str]], words: Sequence[str]) -> list[Sample]:
    """Sentences as chains of one vertex a word and one for the end: each reads the word before and is to say its own."""
    number = {word: index for index, word in enumerate(words)}
    samples = []
    for sentence in sentences:
        numbers = torch.tensor([END, *(number.get(word, UNKNOWN) for word in sentence), END])
        samples.append((vf.chain(len(sentence) + 1), numbers[:-1], numbers[1:]))
    return samples


def batches(samples: Sequence[Sample], size: int, order: torch.Generator | None = None) -> DataLoader[Sample]:
    """Packed batches of up to `size` sentences, in a random order drawn from `order` if that is given."""
    return DataLoader(
        samples,  # type: ignore[arg-type]  # a list has all that a Dataset needs
        batch_size=size, shuffle=order is not None, generator=order, collate_fn=partial(vf.collate, rows=(1, 2)),
    )  # fmt: skip


def unigram_perplexity(corpus: Corpus) -> float:
    """On the dev sentences, of the words' frequencies in training: what is to be had without any context."""
    train, dev = (
        torch.cat([targets for _, _, targets in part]).bincount(minlength=len(corpus.words)).numpy()
        for part in (corpus.train, corpus.dev)
    )
    seen = dev > 0
    with np.errstate(divide="ignore"):  # infinite if dev has a word, or an unknown one, that training has not
        return float(np.exp(-(dev[seen] * np.log(train[seen] / train.sum())).sum() / dev.sum()))
