"""CoNLL-U: words in their order, dependents in slots, and errors that name the line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data import needs_data
from tests.scheduler.random_graphs import children
from vertexflow.errors import GraphError, InputTypeError
from vertexflow.graph.inputs.readers.conllu import from_conllu


def word(number: object, form: str, head: object, relation: str = "dep", upos: str = "X") -> str:
    return "\t".join([str(number), form, form.lower(), upos, "_", "_", str(head), relation, "_", "_"])


SENTENCE = "\n".join(
    [
        "# text = The dogs don't bark",
        word(1, "The", 2, "det", "DET"),
        word(2, "Dogs", 5, "nsubj", "NOUN"),
        word("3-4", "don't", "_"),
        word(3, "do", 5, "aux", "AUX"),
        word(4, "n't", 5, "advmod", "PART"),
        word("4.1", "really", "_"),
        word(5, "bark", 0, "root", "VERB"),
    ]
)


def test_words_are_vertices_and_dependents_are_children_in_their_order() -> None:
    (tree,) = from_conllu(f"{SENTENCE}\n\n")
    assert children(tree) == [[], [(0, 0)], [], [], [(0, 1), (1, 2), (2, 3)]]
    assert tree.data["form"].tolist() == ["The", "Dogs", "do", "n't", "bark"]
    assert tree.data["lemma"].tolist() == ["the", "dogs", "do", "n't", "bark"]
    assert tree.data["upos"].tolist() == ["DET", "NOUN", "AUX", "PART", "VERB"]
    assert tree.data["head"].tolist() == [1, 4, 4, 4, -1]
    assert tree.data["deprel"][tree.edge_index[0]].tolist() == ["det", "nsubj", "aux", "advmod"]


def test_edges_are_in_the_order_of_dependents() -> None:
    heads = {1: 3, 2: 4, 3: 0, 4: 3}  # the edge from 2 crosses that from 1: heads do not rise
    (tree,) = from_conllu("\n".join(word(at, "w", head) for at, head in heads.items()) + "\n")
    assert tree.edge_index.tolist() == [[0, 1, 3], [2, 3, 2]]
    assert tree.child.tolist() == [0, 3, 1]


def test_sentences_are_apart_by_empty_lines_in_a_text_a_file_and_lines(tmp_path: Path) -> None:
    text = f"{SENTENCE}\n\n\n{word(1, 'Yes', 0)}\n"
    path = tmp_path / "two.conllu"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    for source in (text, path, str(path), text.split("\n")):
        assert [tree.num_vertices for tree in from_conllu(source)] == [5, 1]
    with open(path, encoding="utf-8") as file:
        assert len(from_conllu(file)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tDogs\n", "text, line 1: 2 columns; a word has ten"),
        (f"{word(1, 'a', 0)}\n{word(3, 'b', 1)}\n", "text, line 2: word 3 where 2 is due"),
        (f"{word('x', 'a', 0)}\n", "text, line 1: 'x' is no number of a word"),
        (f"\n{word(1, 'a', 2)}\n", r"text, line 2: word 1 \('a'\) .* has the head '2'; give a word from 1 to 1"),
        (f"{word(1, 'a', '_')}\n", "has the head '_'"),
        (f"{word(1, 'a', 2)}\n{word(2, 'b', 1)}\n", "text, line 1: in the sentence that begins here, .* a cycle"),
        ("# nothing\n\n", "text: there is no sentence in it"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        from_conllu(text)


def test_sources_of_another_sort() -> None:
    with pytest.raises(InputTypeError, match="reads a path, a text or lines, not int"):
        from_conllu(3)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="line 1 is a bytes"):
        from_conllu([b"1"])  # type: ignore[list-item]
    with pytest.raises(FileNotFoundError):
        from_conllu("no such file.conllu")


@needs_data
def test_every_sentence_of_english_ewt_is_a_tree() -> None:
    for path in sorted((Path(os.environ["VERTEXFLOW_DATA"]) / "ud_english_ewt").glob("*.conllu")):
        text = path.read_text(encoding="utf-8")
        words = sum(line.split("\t")[0].isdigit() for line in text.split("\n"))
        trees = from_conllu(path)
        assert sum(tree.num_vertices for tree in trees) == words
        assert len(trees) == text.count("# text = ")
        assert all(tree.num_edges == tree.num_vertices - 1 for tree in trees)


@pytest.mark.parametrize("first", ["\ufeff", "\ufeff# a comment\r\n"])
def test_a_byte_order_mark_before_a_text_is_left_out(first):
    text = f"{first}1\tDogs\tdog\tNOUN\t_\t_\t0\troot\t_\t_\r\n\r\n"
    for source in (text, text.split("\n")):
        (graph,) = from_conllu(source)
        assert graph.data["form"].tolist() == ["Dogs"]
        assert graph.data["deprel"].tolist() == ["root"]
