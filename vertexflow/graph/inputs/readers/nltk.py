"""Input graphs from the trees of NLTK, which need not be installed for it, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....errors import GraphError, InputTypeError
from ..build import InputGraph, from_post_order
from .read import LabelledTree


def from_nltk(tree: Any) -> InputGraph:
    """An input graph from an `nltk.Tree`.

    Args:
        tree: the tree, or anything with a method `label()` whose elements are such trees and strings.

    Returns:
        The graph, numbered as `vf.from_ptb` does it: a label with nothing but a token below it, `(NN dog)`, is a leaf. Leaves
        are the vertices 0 .. L - 1 from left to right, inner vertices follow in post-order, and the root is the last.
        `data["label"]` holds the label of each vertex, `data["token"]` the token of each leaf and "" for inner vertices
        (objects). A token that has brothers is a leaf with the label None.

    Raises:
        GraphError: a label with nothing below it.
        InputTypeError: no such tree, or an element that is neither a tree nor a string.

    Example:
        >>> tree = vf.from_nltk(nltk.Tree.fromstring("(S (NP (DT the) (NN dog)) (VP barks))"))
        >>> tree.data["token"]
        array(['the', 'dog', 'barks', '', ''], dtype=object)
    """
    if not _is_tree(tree):
        raise InputTypeError(f"from_nltk takes an nltk.Tree, not {type(tree).__name__}")
    found = LabelledTree()
    # Of each tree that is being read: itself, its elements, and the numbers of those that were read.
    stack: list[tuple[Any, list[Any], list[int]]] = [(tree, list(tree), [])]
    while True:
        node, elements, done = stack[-1]
        if len(elements) == 1 and isinstance(elements[0], str):
            number = found.add([node.label(), elements[0]], [])
        elif len(done) < len(elements):
            element = elements[len(done)]
            if isinstance(element, str):
                done.append(found.add([None, element], []))
            elif _is_tree(element):
                stack.append((element, list(element), []))
            else:
                raise InputTypeError(
                    f"below {node.label()!r} is a {type(element).__name__}; elements are trees, or strings, which are tokens"
                )
            continue
        elif not elements:
            raise GraphError(f"nothing is below {node.label()!r}; a leaf is a label with a token, such as (NN dog)")
        else:
            number = found.add([node.label()], done)
        stack.pop()
        if not stack:
            made = from_post_order(np.arange(len(found.tokens)), found.child, found.counts)
            made.data["label"] = np.fromiter(found.leaf_labels + found.inner_labels, object)
            made.data["token"] = np.fromiter(found.tokens + [""] * len(found.inner_labels), object)
            return made
        stack[-1][2].append(number)


def to_nltk(graph: InputGraph) -> Any:
    """The tree as an `nltk.Tree`, with the labels and tokens of `graph.data`; `from_nltk(to_nltk(g))` is g again.

    Raises:
        GraphError: the graph is no tree with "label" and "token".
        ImportError: NLTK is not installed.
    """
    import nltk

    parents = np.bincount(graph.child, minlength=graph.num_vertices)
    if (parents > 1).any() or (parents == 0).sum() != 1 or not {"label", "token"} <= graph.data.keys():
        raise GraphError("to_nltk takes one tree with the data 'label' and 'token', as from_nltk and from_ptb give it")
    labels, tokens = graph.data["label"].tolist(), graph.data["token"].tolist()
    made: dict[int, Any] = {}
    stack = [int(np.flatnonzero(parents == 0)[0])]
    while stack:
        vertex = stack[-1]
        children = graph.child[graph.offset[vertex] : graph.offset[vertex + 1]].tolist()
        missing = [child for child in children if child not in made]
        if missing:
            stack += missing
            continue
        stack.pop()
        below = [made.pop(child) for child in children] or [tokens[vertex]]
        bare = labels[vertex] is None and not children
        made[vertex] = tokens[vertex] if bare else nltk.Tree(labels[vertex], below)
    (root,) = made.values()
    return root


def _is_tree(value: Any) -> bool:
    return callable(getattr(value, "label", None)) and hasattr(value, "__iter__") and not isinstance(value, str)
