"""Trees of NLTK, there and back; a stand-in with the same face takes its place."""

from __future__ import annotations

import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vertexflow as vf


class Tree(list):
    """What `nltk.Tree` is: a list of trees and tokens, with a label."""

    def __init__(self, node, children):
        super().__init__(children)
        self.node = node

    def label(self):
        return self.node


@pytest.fixture(autouse=True)
def _nltk(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", types.SimpleNamespace(Tree=Tree))


LABELS, TOKENS = st.sampled_from(["S", "", ("N", 1), ("N", 1, 2)]), st.sampled_from(["the", "dog", "barks", ""])
TREES = st.recursive(
    st.builds(lambda label, token: Tree(label, [token]), LABELS, TOKENS),
    lambda below: st.builds(Tree, LABELS, st.lists(st.one_of(below, below, TOKENS), min_size=1, max_size=3)),
    max_leaves=12,
)


def same(one, other):
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return one.label() == other.label() and len(one) == len(other) and all(map(same, one, other))


def test_numbered_as_from_ptb_numbers():
    tree = Tree("S", [Tree("NP", [Tree("DT", ["the"]), Tree("NN", ["dog"])]), Tree("VP", ["barks"])])
    converted = vf.from_nltk(tree)
    (expected,) = vf.from_ptb("(S (NP (DT the) (NN dog)) (VP barks))")
    assert converted.structure.tolist() == expected.structure.tolist()
    for name in ("label", "token"):
        assert converted.data[name].tolist() == expected.data[name].tolist()


@given(TREES)
def test_there_and_back(tree):
    assert same(vf.to_nltk(vf.from_nltk(tree)), tree)


def test_a_token_with_brothers_is_a_leaf_without_a_label():
    converted = vf.from_nltk(Tree("S", ["well", Tree("N", ["dog"])]))
    assert converted.data["label"].tolist() == [None, "N", "S"]
    assert converted.data["token"].tolist() == ["well", "dog", ""]


def test_ten_thousand_deep():
    tree = Tree("N", ["dog"])
    for _ in range(10_000):
        tree = Tree("S", [tree])
    assert vf.from_nltk(tree).num_vertices == 10_001
    again = vf.to_nltk(vf.from_nltk(tree))
    for _ in range(10_000):
        (again,) = again
    assert again == ["dog"]


def test_what_is_wrong_is_said():
    with pytest.raises(vf.InputTypeError, match=r"takes an nltk\.Tree, not str"):
        vf.from_nltk("(S dog)")
    with pytest.raises(vf.GraphError, match="nothing is below 'NP'"):
        vf.from_nltk(Tree("S", [Tree("NP", []), Tree("VP", ["barks"])]))
    with pytest.raises(vf.InputTypeError, match="below 'S' is a int"):
        vf.from_nltk(Tree("S", [3, "dog"]))
    for graph in (vf.chain(2), vf.graph(3, [(0, 1), (0, 2)]), vf.graph(2, [])):
        with pytest.raises(vf.GraphError, match="to_nltk takes one tree with the data 'label' and 'token'"):
            vf.to_nltk(graph)
