"""Readers: input graphs from the formats that people have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np

from ....errors import GraphError, InputTypeError
from ..build import InputGraph, from_post_order

# ASCII white space only: treebanks have no-break spaces inside tokens.
_TOKEN = re.compile(r"[()]|[^ \t\r\n()]+")


def from_ptb(source: str | os.PathLike[str] | Iterable[str], num_labels: int | None = None) -> list[InputGraph]:
    """Read trees in Penn Treebank brackets: `(3 (2 It) (4 (2 's) (3 good)))`.

    An outermost bracket without a label, `( (S ...) )`, which the Penn Treebank has around each tree, is left out. Tokens are
    as they are written: `-LRB-` is not turned into a bracket, and traces (`(-NONE- *)`) are leaves like others.

    Args:
        source: the path of a file, or the text itself if it begins with "(", or an iterable of lines.
        num_labels: with it, labels are integers from 0 to num_labels - 1; without, they are strings.

    Returns:
        A list, also of one tree: a graph for each. Its leaves (the tokens) are the vertices 0 .. L - 1 from left to right,
        inner vertices follow in post-order, and the root is the last; edges are in the order of their parents, and of slots.
        `graph.data["label"]` holds the label of each vertex (int64 or str), `graph.data["token"]` the token of each leaf and
        "" for inner vertices.

    Raises:
        GraphError: unbalanced brackets, a missing label or token, a label out of range, text outside of brackets, no
            tree at all; the message names the file and the line.
        FileNotFoundError: there is no such file.

    Example:
        >>> (tree,) = vf.from_ptb("(3 (2 It) (4 (2 's) (3 good)))", num_labels=5)
        >>> tree.data["label"], tree.data["token"]
        (array([2, 2, 3, 4, 3]), array(['It', "'s", 'good', '', ''], dtype=object))
    """
    if num_labels is not None and (not isinstance(num_labels, int) or isinstance(num_labels, bool) or num_labels < 1):
        raise InputTypeError(f"num_labels is {num_labels!r}; give how many labels there are, or None for any")
    name, text = _read(source)
    return _Reader(text, name, num_labels).read()


def _read(source: str | os.PathLike[str] | Iterable[str]) -> tuple[str, str]:
    """What to call a source in messages, and its text."""
    if isinstance(source, str) and source.lstrip("\ufeff \t\r\n").startswith("("):
        return "text", source.removeprefix("\ufeff")
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        try:
            with open(source, encoding="utf-8-sig", newline="") as file:
                return name, file.read()
        except UnicodeDecodeError as error:
            raise GraphError(f"{name}: not UTF-8 at byte {error.start}; convert the file") from error
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray)):
        lines = list(source)
        wrong = next((at for at, line in enumerate(lines) if not isinstance(line, str)), None)
        if wrong is None:
            text = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
            return str(getattr(source, "name", "lines")), text.removeprefix("\ufeff")
        raise InputTypeError(f"line {wrong + 1} is a {type(lines[wrong]).__name__}; from_ptb reads lines of text")
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
        tree = LabelledTree()
        # Of each open bracket: its position, its words (label and token), its children, numbered as for `from_post_order`.
        open_: list[tuple[int, list[Any], list[int]]] = []
        for match in _TOKEN.finditer(self.text):
            word, position = match.group(), match.start()
            if word == "(":
                if len(open_) > 1 and not open_[-1][1]:
                    self.fail(position, "a bracket without a label: '(('")
                if open_ and len(open_[-1][1]) > 1:
                    self.fail(position, f"a vertex has the token {open_[-1][1][1]!r} and children as well")
                open_.append((position, [], []))
            elif word != ")":
                if not open_:
                    self.fail(position, f"{word!r} stands outside of brackets")
                words, children = open_[-1][1:]
                if not words and children:
                    self.fail(position, f"{word!r} stands behind a tree in a bracket without a label")
                if len(words) > 1 or children:
                    self.fail(position, f"{word!r} is one token too many; a leaf is (label token)")
                words.append(word if words else self.label(word, position))
            else:
                if not open_:
                    self.fail(position, "unbalanced brackets: a ')' that closes nothing")
                _, words, children = open_.pop()
                if not words and len(children) == 1:  # the bracket around a whole tree
                    trees.append(tree.graph(self.num_labels is not None))
                    tree = LabelledTree()
                    continue
                if not words and children:
                    self.fail(position, f"a bracket without a label around {len(children)} trees; give it a label")
                if not words:
                    self.fail(position, "empty brackets; a leaf is (label token)")
                if len(words) == 1 and not children:
                    self.fail(position, f"'({words[0]})' has a label but neither a token nor children")
                number = tree.add(words, children)
                if open_:
                    open_[-1][2].append(number)
                else:
                    trees.append(tree.graph(self.num_labels is not None))
                    tree = LabelledTree()
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


class LabelledTree:
    """The vertices and edges of one tree while it is read."""

    def __init__(self) -> None:
        self.leaf_labels: list[Any] = []
        self.tokens: list[str] = []
        self.inner_labels: list[Any] = []
        self.child: list[int] = []
        self.counts: list[int] = []

    def add(self, words: list[Any], children: list[int]) -> int:
        """Add a vertex, of whom `words` are the label and, at a leaf, the token; returns its number for its parent."""
        if len(words) > 1:
            self.leaf_labels.append(words[0])
            self.tokens.append(words[1])
            return len(self.tokens) - 1
        self.inner_labels.append(words[0])
        self.child += children
        self.counts.append(len(children))
        return -len(self.inner_labels)

    def graph(self, integers: bool) -> InputGraph:
        tree = from_post_order(np.arange(len(self.tokens)), self.child, self.counts)
        tree.data["label"] = np.array(self.leaf_labels + self.inner_labels, dtype=np.int64 if integers else None)
        tree.data["token"] = np.array(self.tokens + [""] * len(self.inner_labels), dtype=object)
        return tree
