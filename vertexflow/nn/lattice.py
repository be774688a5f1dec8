"""Lattice LSTM: characters in a sequence, and the words that were found among them."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from ..call.kinds import vertex
from ..errors import GraphError, InputTypeError
from ..function import VertexFunction
from ..graph.inputs.build import InputGraph, graph
from ..graph.symbolic.vertex import Vertex


class LatticeLSTM(VertexFunction):
    """Lattice LSTM (Zhang and Yang, ACL 2018, arXiv 1805.02023, section 3.3) over graphs of `vf.nn.lattice`.

    The cell of the word from character b to character e, with its embedding w (equation 13):

        i, f = sigmoid(W w + U h_b + b),    g = tanh(W w + U h_b + b)        with W, U, b of their own each
        c_be = f ⊙ c_b + i ⊙ g

    and that of character j, with its embedding x:

        i_j, o_j = sigmoid(W x + U h_{j-1} + b),    g_j = tanh(W x + U h_{j-1} + b)
        i_bj     = sigmoid(W^l x + U^l c_bj + b^l)                           for each word from b to j (equation 14)
        c_j      = (exp(i_j) ⊙ g_j + Σ_b exp(i_bj) ⊙ c_bj) / (exp(i_j) + Σ_b exp(i_bj))          (15 and 16)
        h_j      = o_j ⊙ tanh(c_j)

    Where no word ends there is c_j = (1 - i_j) ⊙ c_{j-1} + i_j ⊙ g_j: as in the authors' program, where the gates of the
    character's LSTM are coupled; in the paper that LSTM has a forget gate. The paper's second direction is a model of its
    own, called with `reverse=True`: words are then read from their last characters to their first.

    Args:
        char_size: columns of `char`.
        word_size: columns of `word`.
        hidden_size: columns of h and c.
        backend: as of `vf.VertexFunction`.

    Inputs: `char`, `[characters of all graphs, char_size]`, and `word`, `[words of all graphs, word_size]`, zero rows if
    there are none. Output: `h`, `[characters of all graphs, hidden_size]`.

    Example:
        >>> batch = vf.pack([vf.nn.lattice(7, [(0, 1), (0, 2), (2, 3), (3, 6), (5, 6)]), vf.nn.lattice(3, [])])
        >>> model = vf.nn.LatticeLSTM(8, 6, 16)
        >>> model(batch, char=torch.randn(10, 8), word=torch.randn(5, 6)).h.shape
        torch.Size([10, 16])
    """

    def __init__(self, char_size: int, word_size: int, hidden_size: int, *, backend: str = "auto") -> None:
        super().__init__(state={"h": hidden_size, "c": hidden_size, "is_word": 1}, backend=backend)
        self.w_char = nn.Linear(char_size, 3 * hidden_size)
        self.u_char = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.w_word = nn.Linear(word_size, 3 * hidden_size)
        self.u_word = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.w_gate = nn.Linear(char_size, hidden_size)
        self.u_gate = nn.Linear(hidden_size, hidden_size, bias=False)

    @vertex("word")
    def word(self, v: Vertex) -> None:
        x, first = v.pull("word"), v.gather(0)
        i, f, g = (self.w_word(x) + self.u_word(first.h)).chunk(3, -1)
        c = torch.sigmoid(f) * first.c + torch.sigmoid(i) * torch.tanh(g)
        # A word has no h. In its place stands what it adds to its gate, once a word and never for a character.
        v.scatter(h=self.u_gate(c), c=c, is_word=torch.ones_like(x[:, :1]))

    @vertex("char")
    def char(self, v: Vertex) -> None:
        x, before, kids = v.pull("char"), v.gather(0), v.children
        i, o, g = (self.w_char(x) + self.u_char(before.h)).chunk(3, -1)
        i, g = torch.sigmoid(i), torch.tanh(g)
        is_word = kids.is_word.detach()
        own, of_words = torch.exp(i), torch.exp(torch.sigmoid(kids.expand(self.w_gate(x)) + kids.h)) * is_word
        merged = (own * g + v.sum(of_words * kids.c)) / (own + v.sum(of_words))
        alone = before.c + i * (g - before.c)
        c = alone + v.sum(is_word).clamp_max(1) * (merged - alone)
        h = torch.sigmoid(o) * torch.tanh(c)
        v.scatter(h=h, c=c)  # `is_word` is zero where it is left out
        v.push(h=h)


def lattice(length: int, words: Iterable[tuple[int, int]]) -> InputGraph:
    """The input graph of a sentence and the words that were found in it, for `vf.nn.LatticeLSTM`.

    Vertices 0 .. length - 1 are the characters, of kind "char"; then come the words in their order, of kind "word". A word
    has its first character in slot 0; a character has the one before in slot 0, and then the words that it ends. Edges are
    those from character to character, in their order, and then those to and from each word.

    Args:
        length: characters of the sentence.
        words: first and last character of each word, both counted from 0 and both within the word, which has two
            characters or more: a single one is its own vertex already.

    Raises:
        GraphError: a length below 1, or a word that does not lie within the sentence or has less than two characters.
        InputTypeError: a length that is no integer, or words that are no pairs of them.

    Example:
        >>> vf.nn.lattice(4, [(0, 1), (1, 3)]).child    # 4 is the word of 0 and 1; 5 that of 1, 2 and 3
        array([0, 4, 1, 2, 5, 0, 1], dtype=int32)
    """
    if not isinstance(length, (int, np.integer)) or isinstance(length, bool):
        raise InputTypeError(f"the length of a sentence is {length!r}; give an integer")
    if length < 1:
        raise GraphError(f"a sentence of {length} characters; give at least 1")
    if not isinstance(words, Iterable):
        raise InputTypeError(f"words are pairs (first, last) of characters, not {type(words).__name__}")
    edges = [(index - 1, index) for index in range(1, length)]
    num_words = 0
    for word in words:
        try:
            first, last = map(operator.index, word)
        except (TypeError, ValueError):
            raise InputTypeError(
                f"word {num_words} is {word!r}; give a pair of integers, its first and last character"
            ) from None
        if not 0 <= first < last < length:
            raise GraphError(
                f"word {num_words} is from character {first} to {last}, of a sentence of {length}; give the first and the "
                f"last of two characters or more, within 0 to {length - 1}"
            )
        edges += [(first, length + num_words), (length + num_words, last)]
        num_words += 1
    return graph(length + num_words, edges, kind=["char"] * length + ["word"] * num_words)
