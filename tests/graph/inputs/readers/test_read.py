"""Trees in Penn Treebank brackets, from files, text and lines; and what is said where they are malformed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertexflow.errors import GraphError, InputTypeError
from vertexflow.graph.inputs.build import InputGraph, tree
from vertexflow.graph.inputs.pack import pack
from vertexflow.graph.inputs.readers.read import from_ptb

TEXT = "(3 (2 It) (4 (2 's) (1 bad)))"


def write(parsed: InputGraph) -> str:
    """The tree of a graph in brackets again."""

    def brackets(vertex: int) -> str:
        below = parsed.child[parsed.offset[vertex] : parsed.offset[vertex + 1]]
        inside = " ".join(brackets(child) for child in below) if len(below) else parsed.data["token"][vertex]
        return f"({parsed.data['label'][vertex]} {inside})"

    return brackets(parsed.num_vertices - 1)


def test_leaves_from_left_to_right_then_inner_vertices_in_post_order() -> None:
    (parsed,) = from_ptb(TEXT, num_labels=5)
    assert parsed.num_vertices == 5
    assert parsed.child.tolist() == tree((0, (1, 2))).child.tolist() == [1, 2, 0, 3]
    assert parsed.slot.tolist() == [0, 1, 0, 1]
    assert parsed.offset.tolist() == [0, 0, 0, 0, 2, 4]
    assert parsed.data["label"].tolist() == [2, 2, 1, 4, 3]
    assert parsed.data["label"].dtype == np.int64
    assert parsed.data["token"].tolist() == ["It", "'s", "bad", "", ""]
    assert parsed.data["token"].dtype == object


def test_labels_are_strings_where_their_number_is_not_given() -> None:
    (parsed,) = from_ptb("(S (NP we) (VP ran))")
    assert parsed.data["label"].tolist() == ["NP", "VP", "S"]
    assert parsed.data["label"].dtype.kind == "U"


@st.composite
def bracketed(draw: st.DrawFn) -> str:
    # No NUL: NumPy's strings do not keep it at their end.
    characters = st.characters(exclude_characters="() \t\r\n\0", exclude_categories=["Cs"])
    words = st.text(characters, min_size=1, max_size=4)

    def subtree(depth: int) -> str:
        label = draw(words)
        if depth == 0 or draw(st.booleans()):
            return f"({label} {draw(words)})"
        return f"({label} {' '.join(subtree(depth - 1) for _ in range(draw(st.integers(1, 3))))})"

    return subtree(3)


@given(st.lists(bracketed(), min_size=1, max_size=4))
def test_what_is_read_writes_as_it_was(trees: list[str]) -> None:
    assert [write(parsed) for parsed in from_ptb("\n".join(trees))] == trees


@given(st.lists(bracketed(), min_size=2, max_size=4), st.sampled_from(["", " ", "\n", "\r\n", "\n\n\t"]))
def test_trees_share_lines_and_span_them(trees: list[str], between: str) -> None:
    spread = between.join(trees).replace(" ", f" {between}")
    assert [write(parsed) for parsed in from_ptb(spread)] == trees


def test_only_ascii_white_space_ends_a_token() -> None:
    (parsed,) = from_ptb("(2 (2 2\u00a01/2) (2 a\u2003b\x0bc))", num_labels=5)
    assert parsed.data["token"].tolist() == ["2\u00a01/2", "a\u2003b\x0bc", ""]


@pytest.mark.parametrize("text", ["( (S (NP a) (VP b)) )", "((S (NP a) (VP b)))", "\n(\r\n(S (NP a)\r\n (VP b)))\n"])
def test_the_bracket_that_the_penn_treebank_has_around_each_tree_is_left_out(text: str) -> None:
    assert [write(parsed) for parsed in from_ptb(text)] == ["(S (NP a) (VP b))"]
    assert [write(parsed) for parsed in from_ptb(f"{text} (X c)\n{text}")] == [
        "(S (NP a) (VP b))",
        "(X c)",
        "(S (NP a) (VP b))",
    ]
    assert [write(parsed) for parsed in from_ptb("( (0 a))", num_labels=1)] == ["(0 a)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("( (S a)\n (S b))", "line 2: a bracket without a label around 2 trees; give it a label"),
        ("( (S a)\n b)", "line 2: 'b' stands behind a tree in a bracket without a label"),
        ("( (\n(S a)))", r"line 2: a bracket without a label: '\(\('"),
        ("( (S a)", "line 1: unbalanced brackets: 1 still open"),
    ],
)
def test_what_else_has_no_label(text: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        from_ptb(text)


def test_a_byte_order_mark_before_a_text_is_left_out() -> None:
    for source in ("\ufeff" + TEXT, ["\ufeff" + TEXT], ["\ufeff", TEXT]):
        assert [write(parsed) for parsed in from_ptb(source)] == [TEXT]


def test_one_token_is_one_vertex() -> None:
    (parsed,) = from_ptb("(0 word)", num_labels=1)
    assert (parsed.num_vertices, parsed.num_edges) == (1, 0)


def test_a_tree_50000_deep() -> None:
    depth = 50_000
    (parsed,) = from_ptb("(0 " * depth + "(0 x)" + ")" * depth, num_labels=1)
    assert parsed.num_vertices == depth + 1
    assert parsed.child.tolist() == list(range(depth))


@pytest.mark.parametrize("as_path", [str, Path])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_files(tmp_path: Path, as_path: type, encoding: str) -> None:
    path = tmp_path / "trees.txt"
    path.write_text(f"{TEXT}\n{TEXT}\n", encoding=encoding)
    assert [write(parsed) for parsed in from_ptb(as_path(path))] == [TEXT, TEXT]


def test_lines_and_open_files(tmp_path: Path) -> None:
    assert [write(parsed) for parsed in from_ptb([TEXT, TEXT])] == [TEXT, TEXT]
    assert len(from_ptb(line for line in [TEXT + "\n", "\n", TEXT])) == 2
    path = tmp_path / "trees.txt"
    path.write_text(f"{TEXT}\n(", encoding="utf-8")
    with path.open(encoding="utf-8") as file, pytest.raises(GraphError, match=r"trees\.txt, line 2: unbalanced"):
        from_ptb(file)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("(2 a)\n(3 (2 b)", 2, "unbalanced brackets: 1 still open at the end, the first of them here"),
        ("(3 (2 a\n(2 b)", 2, r"a vertex has the token 'a' and children as well"),
        ("(2 a)\n\n(2 b))", 3, r"unbalanced brackets: a '\)' that closes nothing"),
        ("(2 a)\n(3 ((2 b) (2 c)))", 2, r"a bracket without a label: '\(\('"),
        ("(2 a)\n()", 2, r"empty brackets; a leaf is \(label token\)"),
        ("(2 a)\n(2 )", 2, r"'\(2\)' has a label but neither a token nor children"),
        ("(2 a b)", 1, r"'b' is one token too many; a leaf is \(label token\)"),
        ("(2 (2 a) b)", 1, "'b' is one token too many"),
        ("(2 a)\r\n2 a", 2, "'2' stands outside of brackets"),
        ("(2 a)\n(5 b)", 2, "the label '5' is not one of 0 to 4"),
        ("(2 a)\n(-1 b)", 2, "the label '-1' is not one of 0 to 4"),
        ("(2 a)\n(good b)", 2, "the label 'good' is not one of 0 to 4"),
        ("(2 a)\n(\u00b2 b)", 2, "the label '\u00b2' is not one of 0 to 4"),
    ],
)
def test_the_file_and_the_line_of_what_is_malformed(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(text.encode())
    with pytest.raises(GraphError, match=rf"bad\.txt, line {line}: {message}"):
        from_ptb(path, num_labels=5)
    with pytest.raises(GraphError, match=rf"^text, line {line}: {message}"):
        from_ptb(text, num_labels=5)
    with pytest.raises(GraphError, match=rf"^lines, line {line}: {message}"):
        from_ptb(text.split("\n"), num_labels=5)


def test_a_file_without_trees(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("\n\n")
    with pytest.raises(GraphError, match=r"empty\.txt: there is no tree in it"):
        from_ptb(path)
    with pytest.raises(GraphError, match="lines: there is no tree in it"):
        from_ptb([])


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"(2 caf\xe9)")
    with pytest.raises(GraphError, match=r"latin\.txt: not UTF-8 at byte 6; convert the file"):
        from_ptb(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        from_ptb(tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, "reads a path, a text or lines, not int"),
        (b"(2 a)", "reads a path, a text or lines, not bytes"),
        (["(2 a)", b"(2 b)"], "line 2 is a bytes; from_ptb reads lines of text"),
    ],
)
def test_what_is_no_text(source: object, message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        from_ptb(source)


@pytest.mark.parametrize("num_labels", [0, -1, 2.0, True, "5"])
def test_a_number_of_labels_that_is_none(num_labels: object) -> None:
    with pytest.raises(InputTypeError, match="give how many labels there are, or None for any"):
        from_ptb(TEXT, num_labels=num_labels)


@pytest.mark.parametrize(
    ("name", "num_trees", "num_vertices", "num_leaves"),
    [pytest.param("train.txt", 8_544, 318_582, 163_563, marks=pytest.mark.slow), ("dev.txt", 1_101, 41_447, 21_274)],
)
def test_the_sentiment_treebank(name: str, num_trees: int, num_vertices: int, num_leaves: int) -> None:
    data = os.environ.get("VERTEXFLOW_DATA")
    if not data:
        pytest.skip(f"VERTEXFLOW_DATA names no folder with sst/{name}")
    path = Path(data) / "sst" / name
    start = time.process_time()
    trees = from_ptb(path, num_labels=5)
    assert time.process_time() - start < 10
    batch = pack(trees)
    assert (len(trees), batch.num_vertices, len(batch.leaves)) == (num_trees, num_vertices, num_leaves)
    assert len(batch.roots) == num_trees
    assert batch.num_slots == 2
    assert [write(parsed) for parsed in trees] == path.read_text(encoding="utf-8").replace("\r", "").strip("\n").split(
        "\n"
    )
