"""Sums over structures, a page of vertex functions: each says how the sum at one vertex comes from those at its children.

Each pushes `total`, of which the row of the last vertex is the sum over all structures of its sample.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import vertexflow as vf

from .semirings import LogSum, Semiring

IMPOSSIBLE = -1e9  # as a log weight: finite, so that no gradient is NaN


class LinearChain(vf.VertexFunction):
    """Over the tags of the words of a sentence (linear-chain CRF: Lafferty, McCallum and Pereira 2001)."""

    def __init__(self, tags: int, semiring: Semiring | None = None) -> None:
        super().__init__(state={"before": tags})
        self.semiring = semiring or LogSum()
        self.transition = nn.Parameter(torch.zeros(tags, tags))  # from the tag of a row to that of a column

    @vf.vertex("first")
    def first(self, v: vf.Vertex) -> None:
        self.end(v, v.pull("score"))

    @vf.vertex("next")
    def next(self, v: vf.Vertex) -> None:
        self.end(v, v.pull("score") + v.gather(0).before)

    def end(self, v: vf.Vertex, a: Tensor) -> None:
        """`a` [rows, tags]: the sums that end here, by their last tag."""
        v.scatter(before=self.semiring.over(a[:, :, None] + self.transition, 1))  # what stands before each next tag
        v.push(total=self.semiring.over(a, 1))


class SemiMarkov(LinearChain):
    """Over the ways to cut a sentence into labelled segments (semi-Markov CRF: Sarawagi and Cohen 2004).

    A vertex stands between two words; its children are where the segment that ends here may have begun.
    """

    @vf.vertex("next")
    def next(self, v: vf.Vertex) -> None:
        kids = v.children
        self.end(v, self.semiring.children(v, kids.before + kids.pull("segment")))


class Alignment(vf.VertexFunction):
    """Over the alignments of a text with the frames of a recording (CTC: Graves et al. 2006, section 4.1).

    A vertex is a frame; its state has an entry for each letter of the text with blanks around it.
    """

    def __init__(self, positions: int, semiring: Semiring | None = None) -> None:
        super().__init__(state={"a": positions})
        self.semiring = semiring or LogSum()

    @vf.vertex("first")
    def first(self, v: vf.Vertex) -> None:
        score = v.pull("score")
        begins = torch.cat([score[:, :2], torch.full_like(score[:, 2:], IMPOSSIBLE)], 1)
        self.end(v, begins)

    @vf.vertex("next")
    def next(self, v: vf.Vertex) -> None:
        stay = v.gather(0).a
        none = torch.full_like(stay[:, :2], IMPOSSIBLE)
        step = torch.cat([none[:, :1], stay[:, :-1]], 1)
        leap = torch.cat([none, stay[:, :-2]], 1) + v.pull("leap")  # over a blank: not between two equal letters
        self.end(v, v.pull("score") + self.semiring.over(torch.stack([stay, step, leap], 2), 2))

    def end(self, v: vf.Vertex, a: Tensor) -> None:
        v.scatter(a=a)
        v.push(total=self.semiring.over(a + v.pull("is_end"), 1))


class Parses(vf.VertexFunction):
    """Over the parses of a sentence by a grammar in Chomsky normal form (the inside algorithm: Baker 1979).

    A vertex is a span of words; its arcs are the pairs of spans that it may be split into. Symbol 0 is the sentence.
    """

    def __init__(self, symbols: int, semiring: Semiring | None = None) -> None:
        super().__init__(state={"b": symbols})
        self.semiring = semiring or LogSum()
        self.rules = nn.Parameter(torch.zeros(symbols, symbols, symbols))  # log weights: parent, left, right

    @vf.vertex("word")
    def word(self, v: vf.Vertex) -> None:
        self.end(v, v.pull("score"))

    @vf.vertex("span")
    def span(self, v: vf.Vertex) -> None:
        left, right = v.arcs.gather(0).b, v.arcs.gather(1).b
        pairs = self.semiring.children(v, left[:, :, None] + right[:, None, :])
        self.end(v, self.semiring.over(pairs[:, None] + self.rules, (2, 3)))

    def end(self, v: vf.Vertex, b: Tensor) -> None:
        """`b` [rows, symbols]: the sums of all that a span may be derived from, by symbol."""
        v.scatter(b=b)
        v.push(total=b[:, 0])
