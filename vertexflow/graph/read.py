"""Readers: input graphs from the formats that people have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np

from ..errors import GraphError, InputTypeError
from .build import InputGraph

# ASCII white space only: treebanks have no-break spaces inside tokens.
_TOKEN = re.compile(r"[()]|[^ \t\r\n()]+")


def from_ptb(source: str | os.PathLike[str] | Iterable[str], num_labels: int | None = None) -> list[InputGraph]:
    """Read trees in Penn Treebank brackets: `(3 (2 It) (4 (2 's) (3 good)))`.

    Args:
        source: the path of a file, or the text itself if it begins with "(", or an iterable of lines.
        num_labels: with it, labels are integers from 0 to num_labels - 1; without, they are strings.

    Returns:
        One graph for each tree. Its leaves (the tokens) are the vertices 0 .. L - 1 from left to right, inner vertices
        follow in post-order, and the root is the last. `graph.data["label"]` holds the label of each vertex (int64 or
        str), `graph.data["token"]` the token of each leaf and "" for inner vertices.

    Raises:
        GraphError: unbalanced brackets, a missing label or token, a label out of range, text outside of brackets;
            the message names the file and the line.

    Example:
        >>> (tree,) = vf.from_ptb("(3 (2 It) (4 (2 's) (3 good)))", num_labels=5)
        >>> tree.data["label"], tree.data["token"]
        (array([2, 2, 3, 4, 3]), array(['It', "'s", 'good', '', ''], dtype=object))
    """
    if isinstance(source, str) and source.lstrip(" \t\r\n").startswith("("):
        return _Reader(source, "text", num_labels).read()
    if isinstance(source, (str, os.PathLike)):
        with open(source, encoding="utf-8", newline="") as file:
            return _Reader(file.read(), os.fspath(source), num_labels).read()
    if isinstance(source, Iterable):
        lines = list(source)
        text = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
        return _Reader(text, str(getattr(source, "name", "lines")), num_labels).read()
    raise InputTypeError(f"from_ptb reads a path, a text or lines, not {type(source).__name__}")


class _Reader:
    """One pass over a text with brackets; open brackets are on a stack, so that depth is no limit."""

    def __init__(self, text: str, name: str, num_labels: int | None) -> None:
        self.text = text
        self.name = name
        self.num_labels = num_labels

    def fail(self, position: int, message: str) -> NoReturn:
        line = self.text.count("\n", 0, position) + 1
        raise GraphError(f"{self.name}, line {line}: {message}")

    def read(self) -> list[InputGraph]:
        trees: list[InputGraph] = []
        tree = _Tree()
        # Of each open bracket: where it is, its label, the numbers of its children; leaves count up from 0, inner
        # vertices down from -1, until the number of leaves is known.
        open_: list[tuple[int, list[Any], list[int]]] = []
        for match in _TOKEN.finditer(self.text):
            word, position = match.group(), match.start()
            if word == "(":
                if open_ and not open_[-1][1]:
                    self.fail(position, "a bracket without a label: '(('")
                if open_ and len(open_[-1][1]) > 1:
                    self.fail(position, f"a vertex has the token {open_[-1][1][1]!r} and children as well")
                open_.append((position, [], []))
            elif word != ")":
                if not open_:
                    self.fail(position, f"{word!r} stands outside of brackets")
                said, children = open_[-1][1:]
                if len(said) > 1 or children:
                    self.fail(position, f"{word!r} is one token too many; a leaf is (label token)")
                said.append(word if said else self.label(word, position))
            else:
                if not open_:
                    self.fail(position, "unbalanced brackets: a ')' that closes nothing")
                start, said, children = open_.pop()
                if not said:
                    self.fail(position, "empty brackets; a leaf is (label token)")
                if len(said) == 1 and not children:
                    self.fail(position, f"'({said[0]})' has a label but neither a token nor children")
                number = tree.add(said, children)
                if open_:
                    open_[-1][2].append(number)
                else:
                    trees.append(tree.graph(self.num_labels is not None))
                    tree = _Tree()
        if open_:
            self.fail(open_[0][0], f"unbalanced brackets: {len(open_)} still open at the end, the first of them here")
        if not trees:
            raise GraphError(f"{self.name}: there is no tree in it")
        return trees

    def label(self, word: str, position: int) -> int | str:
        if self.num_labels is None:
            return word
        if not word.isascii() or not word.isdigit() or int(word) >= self.num_labels:
            self.fail(position, f"the label {word!r} is not one of 0 to {self.num_labels - 1}")
        return int(word)


class _Tree:
    """The vertices and edges of one tree while it is read."""

    def __init__(self) -> None:
        self.leaf_labels: list[Any] = []
        self.tokens: list[str] = []
        self.inner_labels: list[Any] = []
        self.child: list[int] = []
        self.counts: list[int] = []

    def add(self, said: list[Any], children: list[int]) -> int:
        if len(said) > 1:
            self.leaf_labels.append(said[0])
            self.tokens.append(said[1])
            return len(self.tokens) - 1
        self.inner_labels.append(said[0])
        self.child += children
        self.counts.append(len(children))
        return -len(self.inner_labels)

    def graph(self, integers: bool) -> InputGraph:
        leaves, inner = len(self.tokens), len(self.inner_labels)
        child = np.array(self.child, dtype=np.int64)
        child = np.where(child < 0, leaves - 1 - child, child)
        counts = np.array(self.counts, dtype=np.int64)
        ends = np.cumsum(counts)
        slot = np.arange(len(child)) - np.repeat(ends - counts, counts)
        labels = np.array(self.leaf_labels + self.inner_labels, dtype=np.int64 if integers else None)
        token = np.array(self.tokens + [""] * inner, dtype=object)
        offset = np.concatenate((np.zeros(leaves + 1, np.int64), ends))
        return InputGraph(leaves + inner, child, slot, offset, data={"label": labels, "token": token})
