"""Dependency trees from CoNLL-U files, the format of Universal Dependencies."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NoReturn

import numpy as np

from ....errors import GraphError, InputTypeError
from ..build import InputGraph, graph

_COLUMNS = ("form", "lemma", "upos", "xpos")


def from_conllu(source: str | os.PathLike[str] | Iterable[str]) -> list[InputGraph]:
    """Read dependency trees in CoNLL-U (universaldependencies.org/format.html).

    Args:
        source: the path of a file, or the text itself if it has a line break, or an iterable of lines.

    Returns:
        One graph a sentence. Its vertices are the words in their order; a word's children are its dependents, in that
        order too, and edges are in the order of the dependents. `graph.data` has of each word "form", "lemma", "upos" and
        "xpos" (objects), "deprel", the relation to its head (objects), and "head" (int64; -1 for a root). The relation of each
        edge is `graph.data["deprel"][graph.edge_index[0].numpy()]`. Multiword tokens (`1-2`), empty nodes (`1.1`) and
        comments are left out.

    Raises:
        GraphError: a line that does not have ten columns, words that are not numbered 1, 2, ..., a head that is no word of
            the sentence, a cycle, no sentence at all; the message names the file and the line.
        InputTypeError: a source of another sort.
        FileNotFoundError: there is no such file.

    Example:
        >>> text = "1\\tDogs\\tdog\\tNOUN\\t_\\t_\\t2\\tnsubj\\t_\\t_\\n2\\tbark\\tbark\\tVERB\\t_\\t_\\t0\\troot\\t_\\t_\\n"
        >>> (tree,) = vf.from_conllu(text)
        >>> tree.data["form"][tree.edge_index[0].numpy()], tree.data["head"]
        (array(['Dogs'], dtype=object), array([ 1, -1]))
    """
    name, lines = _read(source)
    sentences: list[InputGraph] = []
    words: list[list[str]] = []
    first = 1
    for number, line in enumerate([*lines, ""], 1):
        line = line.rstrip("\r\n").removeprefix("\ufeff" if number == 1 else "")
        if line.startswith("#"):
            continue
        if line.strip():
            if not words:
                first = number
            columns = line.split("\t")
            if len(columns) != 10:
                _fail(name, number, f"{len(columns)} columns; a word has ten, with tabs between them")
            if columns[0].isdigit():
                if int(columns[0]) != len(words) + 1:
                    _fail(
                        name, number, f"word {columns[0]} where {len(words) + 1} is due; words are numbered 1, 2, ..."
                    )
                words.append(columns)
            elif not columns[0].replace("-", "", 1).replace(".", "", 1).isdigit():
                _fail(name, number, f"{columns[0]!r} is no number of a word")
        elif words:
            sentences.append(_tree(name, first, words))
            words = []
    if not sentences:
        raise GraphError(f"{name}: there is no sentence in it")
    return sentences


def _tree(name: str, first: int, words: list[list[str]]) -> InputGraph:
    heads = []
    for at, columns in enumerate(words):
        if not columns[6].isdigit() or int(columns[6]) > len(words):
            _fail(name, first, f"word {at + 1} ({columns[1]!r}) of the sentence that begins here has the head {columns[6]!r}; "
                               f"give a word from 1 to {len(words)}, or 0 for the root")  # fmt: skip
        heads.append(int(columns[6]) - 1)
    head = np.array(heads, np.int64)
    child = np.flatnonzero(head >= 0)
    try:
        tree = graph(len(words), np.stack([child, head[child]]))
    except GraphError as error:
        _fail(name, first, f"in the sentence that begins here, {error} (vertex 0 is the first word)")
    for at, column in enumerate(_COLUMNS, 1):
        tree.data[column] = np.array([columns[at] for columns in words], dtype=object)
    tree.data["deprel"] = np.array([columns[7] for columns in words], dtype=object)
    tree.data["head"] = head
    return tree


def _fail(name: str, line: int, message: str) -> NoReturn:
    raise GraphError(f"{name}, line {line}: {message}")


def _read(source: str | os.PathLike[str] | Iterable[str]) -> tuple[str, list[str]]:
    """What to call a source in messages, and its lines."""
    if isinstance(source, str) and "\n" in source:
        return "text", source.split("\n")
    if isinstance(source, (str, os.PathLike)):
        try:
            with open(source, encoding="utf-8-sig", newline="\n") as file:
                return os.fspath(source), file.read().split("\n")
        except UnicodeDecodeError as error:
            raise GraphError(f"{os.fspath(source)}: not UTF-8 at byte {error.start}; convert the file") from error
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray)):
        lines = list(source)
        wrong = next((at for at, line in enumerate(lines) if not isinstance(line, str)), None)
        if wrong is None:
            return str(getattr(source, "name", "lines")), lines
        raise InputTypeError(f"line {wrong + 1} is a {type(lines[wrong]).__name__}; from_conllu reads lines of text")
    raise InputTypeError(f"from_conllu reads a path, a text or lines, not {type(source).__name__}")
