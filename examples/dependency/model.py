"""Models that guess a word's part of speech without seeing the word."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import vertexflow as vf


class Dependents(vf.VertexFunction):
    """A child-sum TreeLSTM (Tai et al. 2015) whose gates see the relation of each dependent.

    What is guessed of a word comes from its dependents alone; only then is the word added to what its head will read.
    With `relations=1`, all relations are one; with `words=1`, all words.
    """

    def __init__(self, words: int, relations: int, tags: int, size: int, dropout: float) -> None:
        super().__init__(state={"h": size, "c": size})
        self.one_relation, self.one_word = relations == 1, words == 1
        self.embed = nn.Embedding(words, size)
        self.relation = nn.Embedding(relations, size)
        self.w = nn.Linear(size, 4 * size)
        self.u = nn.Linear(size, 3 * size, bias=False)
        self.uf = nn.Linear(size, size, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.guess = nn.Sequential(nn.Linear(2 * size, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, tags))

    def vertex(self, v: vf.Vertex) -> None:
        kids, word = v.children, v.pull("word")
        relation = kids.pull("relation")
        related = self.relation(relation * 0 if self.one_relation else relation)  # [edges, size]
        message = torch.tanh(kids.h + related)
        below = v.sum(message)
        v.push(tag=self.guess(torch.cat([below, v.max(message)], -1)))
        xi, xo, xu, xf = self.w(self.dropout(self.embed(word * 0 if self.one_word else word))).chunk(4, -1)
        i, o, u = self.u(below).chunk(3, -1)
        forget = torch.sigmoid(kids.expand(xf) + self.uf(message))
        c = torch.sigmoid(xi + i) * torch.tanh(xu + u) + v.sum(forget * kids.c)
        v.scatter(h=torch.sigmoid(xo + o) * torch.tanh(c), c=c)

    def logits(self, batch: vf.GraphBatch, word: Tensor, relation: Tensor) -> Tensor:
        """Scores of the tags of each word, `[num_vertices, tags]`."""
        return self(batch, word=word, relation=relation).tag  # type: ignore[no-any-return]


class Bag(nn.Module):
    """The same guess from all other words of the sentence, without the tree."""

    def __init__(self, words: int, relations: int, tags: int, size: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, size)
        self.dropout = nn.Dropout(dropout)
        self.guess = nn.Sequential(nn.Linear(2 * size, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, tags))

    def logits(self, batch: vf.GraphBatch, word: Tensor, relation: Tensor) -> Tensor:
        """Scores of the tags of each word, `[num_vertices, tags]`."""
        x = torch.tanh(self.dropout(self.embed(word)))
        others = batch.expand(batch.sum(x)) - x
        count = batch.expand(batch.sum(torch.ones_like(x[:, :1]))) - 1
        return self.guess(torch.cat([others, others / count.clamp(min=1)], -1))  # type: ignore[no-any-return]
