"""ListOps as sequences of tokens, with the gold tree in one array that a parser can ask at any state.

The tree of an expression (`listops.to_graph`) leans left, so that of all spans that begin at token i the longest is the whole
item that begins there: the digit, or the list from its opening bracket to its closing one. `reach[i]` is the end of that
span, and `value[i]` what it evaluates to. All gold spans follow from `reach`: no other tree has the same one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .listops import OPERATIONS, Expression, distinct_expressions, to_graph

Ints = np.ndarray[Any, np.dtype[np.int64]]
WORDS = ["", *map(str, range(10)), *(f"[{name}" for name in sorted(OPERATIONS)), "]"]  # 0 is "no token"
MIN_TOKENS = 8  # more than a list of digits can have: there is a list within the list
NUMBER = {word: index for index, word in enumerate(WORDS)}


@dataclass(frozen=True)
class Sentences:
    """Some sentences, one after another. Positions are counted over all of them.

    Attributes:
        token: int64 [N], an index into WORDS.
        reach: int64 [N], the end of the longest gold span that begins here.
        value: int64 [N], the value of that span, or -1 (UNLABELLED) where it has none.
        offset: int64 [B + 1], where each sentence begins, and where the last one ends.
    """

    token: Ints
    reach: Ints
    value: Ints
    offset: Ints

    def __len__(self) -> int:
        return len(self.offset) - 1

    @property
    def answer(self) -> Ints:
        """The value of each whole sentence, [B]."""
        return self.value[self.offset[:-1]]

    def select(self, chosen: Ints) -> Sentences:
        """Only these sentences, in this order."""
        lengths = np.diff(self.offset)[chosen]
        offset = np.concatenate([[0], np.cumsum(lengths)])
        moved = np.repeat(self.offset[chosen] - offset[:-1], lengths)
        rows = np.arange(offset[-1]) + moved
        return Sentences(self.token[rows], self.reach[rows] - moved, self.value[rows], offset)


def encode(expressions: Sequence[Expression]) -> Sentences:
    """Tokens and gold trees of expressions."""
    parts = [_encode(expression) for expression in expressions]
    offset = np.concatenate([[0], np.cumsum([len(token) for token, _, _ in parts])])
    token, reach, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Sentences(token, reach + np.repeat(offset[:-1], np.diff(offset)), value, offset)


def _encode(expression: Expression) -> tuple[Ints, Ints, Ints]:
    graph = to_graph(expression)  # leaves from left to right, then the inner vertices, children first
    words = [word for word in graph.data["token"] if word]
    begin = list(range(len(words)))
    end = [position + 1 for position in begin]
    reach, value = end.copy(), graph.data["label"][: len(words)].copy()
    for vertex in range(len(words), graph.num_vertices):
        left, right = graph.child[graph.offset[vertex] : graph.offset[vertex + 1]]
        begin.append(begin[left])
        end.append(end[right])
        reach[begin[left]] = end[right]
        value[begin[left]] = graph.data["label"][vertex]
    return np.array([NUMBER[word] for word in words]), np.array(reach), value


def load(train_size: int, max_depth: int, max_tokens: int, seed: int) -> tuple[Sentences, Sentences, Sentences]:
    """Training, validation and test sentences, all distinct; the last two a tenth of the first, at least 500 each.

    Raises:
        ValueError: there are none, or too few, of so small a depth or length.
    """
    if max_depth < 2 or max_tokens < 12:
        raise ValueError("a list within a list takes a --max-depth of 2 and --max-tokens of 12 at least")
    held_out = max(500, train_size // 10)
    fitting = (
        expression
        for expression in distinct_expressions(seed, max_depth)
        if MIN_TOKENS <= _length(expression) <= max_tokens
    )
    expressions = list(itertools.islice(fitting, train_size + 2 * held_out))
    train, rest = expressions[:train_size], expressions[train_size:]
    return encode(train), encode(rest[:held_out]), encode(rest[held_out:])


def _length(expression: Expression) -> int:
    return 1 if isinstance(expression, int) else 2 + sum(_length(argument) for argument in expression[1])


def batches(sentences: Sentences, size: int, order: np.random.Generator | None = None) -> Iterator[Sentences]:
    """Batches of up to `size` sentences of similar length: what is shorter than the longest has nothing to do at the end.

    In a random order if `order` is given, where only sentences of a stretch of 16 batches are sorted by their length.
    """
    lengths = np.diff(sentences.offset)
    if order is None:
        stretches = [np.argsort(lengths, kind="stable")]
    else:
        shuffled = order.permutation(len(sentences))
        stretches = [shuffled[at : at + 16 * size] for at in range(0, len(shuffled), 16 * size)]
        stretches = [stretch[np.argsort(lengths[stretch], kind="stable")] for stretch in stretches]
    chosen = [stretch[at : at + size] for stretch in stretches for at in range(0, len(stretch), size)]
    if order is not None:
        order.shuffle(chosen)
    for part in chosen:
        yield sentences.select(part)
