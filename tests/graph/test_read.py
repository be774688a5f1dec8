"""Reading trees from Penn Treebank brackets."""

from __future__ import annotations

import io

import numpy as np
import pytest

import vertexflow as vf

from ..data import needs_data


def test_leaves_come_first_and_the_root_last():
    (tree,) = vf.from_ptb("(3 (2 It) (4 (2 's) (3 good)))", num_labels=5)
    assert tree.data["label"].tolist() == [2, 2, 3, 4, 3]
    assert tree.data["token"].tolist() == ["It", "'s", "good", "", ""]
    expected = vf.tree((0, (1, 2)))
    for name in ("child", "slot", "offset"):
        assert np.array_equal(getattr(tree, name), getattr(expected, name))


def test_labels_are_strings_unless_numbers_are_asked_for():
    (tree,) = vf.from_ptb("(S (NP (DT the) (NN cat)) (VP sat))")
    assert tree.data["label"].tolist() == ["DT", "NN", "VP", "NP", "S"]


def test_no_break_spaces_belong_to_tokens():
    (tree,) = vf.from_ptb("(2 8\u00a01\\/2)")
    assert tree.data["token"].tolist() == ["8\u00a01\\/2"]


def test_trees_may_share_a_line_or_span_lines():
    assert [tree.num_vertices for tree in vf.from_ptb("(1 a) (2\n (1 b)\r\n (1 c))")] == [1, 3]


def test_sources(tmp_path):
    path = tmp_path / "trees.txt"
    path.write_text("(1 a)\n(2 (1 b) (1 c))\n")
    for source in (path, str(path), path.read_text(), path.read_text().splitlines(), io.StringIO(path.read_text())):
        assert [tree.num_vertices for tree in vf.from_ptb(source)] == [1, 3]
    with pytest.raises(vf.InputTypeError, match="int"):
        vf.from_ptb(3)
    with pytest.raises(FileNotFoundError):
        vf.from_ptb(tmp_path / "no such file")


def test_deep_brackets():
    (tree,) = vf.from_ptb("(1 " * 20_000 + "(1 a)" + ")" * 20_000)
    assert tree.num_vertices == 20_001


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("(1 a)\n(2 (1 b) (1 c)\n", 2, "unbalanced brackets: 1 still open"),
        ("(1 a)\n(2 b))\n", 2, r"unbalanced brackets: a '\)' that closes nothing"),
        ("(1 a)\n\n(5 b)\n", 3, "label '5' is not one of 0 to 4"),
        ("(-1 a)\n", 1, "label '-1'"),
        ("(S a)\n", 1, "label 'S'"),
        ("(1 a)\n()\n", 2, "empty brackets"),
        ("(1 a)\n(1)\n", 2, "neither a token nor children"),
        ("(1 a)\n((1 b))\n", 2, "without a label"),
        ("(1 a b)\n", 1, "'b' is one token too many"),
        ("(1 (1 a) b)\n", 1, "'b' is one token too many"),
        ("(1 a (1 b))\n", 1, "the token 'a' and children"),
        ("(1 a)\nb (1 c)\n", 2, "'b' stands outside"),
    ],
)
def test_a_malformed_file_is_refused_with_its_name_and_line(tmp_path, text, line, message):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(vf.GraphError, match=rf"bad\.txt, line {line}: .*{message}"):
        vf.from_ptb(path, num_labels=5)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.txt"
    path.write_text("\n")
    with pytest.raises(vf.GraphError, match=r"empty\.txt.*no tree"):
        vf.from_ptb(path)


@needs_data
@pytest.mark.parametrize(
    ("name", "trees", "vertices", "leaves"), [("train", 8544, 318_582, 163_563), ("dev", 1101, 41_447, 21_274)]
)
def test_the_stanford_sentiment_treebank(data, name, trees, vertices, leaves):
    graphs = vf.from_ptb(data / "sst" / f"{name}.txt", num_labels=5)
    assert len(graphs) == trees
    assert sum(graph.num_vertices for graph in graphs) == vertices
    assert sum((graph.data["token"] != "").sum() for graph in graphs) == leaves
    assert all(graph.num_edges == graph.num_vertices - 1 for graph in graphs)
