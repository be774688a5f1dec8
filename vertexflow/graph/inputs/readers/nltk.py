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
    labelled = LabelledTree()
    # Of each tree that is still open: itself, its elements, and the numbers of the children that were read so far.
    stack: list[tuple[Any, list[Any], list[int]]] = [(tree, list(tree), [])]
    while True:
        node, elements, children = stack[-1]
        if len(elements) == 1 and isinstance(elements[0], str):
            number = labelled.add([node.label(), elements[0]], [])
        elif len(children) < len(elements):
            element = elements[len(children)]
            if isinstance(element, str):
                children.append(labelled.add([None, element], []))
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
            number = labelled.add([node.label()], children)
        stack.pop()
        if not stack:
            input_graph = from_post_order(np.arange(len(labelled.tokens)), labelled.child, labelled.counts)
            input_graph.data["label"] = np.fromiter(labelled.leaf_labels + labelled.inner_labels, object)
            input_graph.data["token"] = np.fromiter(labelled.tokens + [""] * len(labelled.inner_labels), object)
            return input_graph
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
    subtrees: dict[int, Any] = {}
    stack = [int(np.flatnonzero(parents == 0)[0])]
    while stack:
        vertex = stack[-1]
        children = graph.child[graph.offset[vertex] : graph.offset[vertex + 1]].tolist()
        missing = [child for child in children if child not in subtrees]
        if missing:
            stack += missing
            continue
        stack.pop()
        content = [subtrees.pop(child) for child in children] or [tokens[vertex]]
        is_bare_token = labels[vertex] is None and not children
        subtrees[vertex] = tokens[vertex] if is_bare_token else nltk.Tree(labels[vertex], content)
    (root,) = subtrees.values()
    return root


def _is_tree(value: Any) -> bool:
    return callable(getattr(value, "label", None)) and hasattr(value, "__iter__") and not isinstance(value, str)
