"""The example of dependency trees: data, what its models see, and its command line."""

from __future__ import annotations

import json
import math

import pytest
import torch

import vertexflow as vf
from examples.dependency import data, train
from examples.dependency.model import Bag, Dependents

from ..data import needs_data
from ..reference import run_reference

# The dog barks. / Dogs bark loudly.
SENTENCES = """\
1\tThe\tthe\tDET\t_\t_\t2\tdet\t_\t_
2\tdog\tdog\tNOUN\t_\t_\t3\tnsubj\t_\t_
3\tbarks\tbark\tVERB\t_\t_\t0\troot\t_\t_

1\tDogs\tdog\tNOUN\t_\t_\t2\tnsubj\t_\t_
2\tbark\tbark\tVERB\t_\t_\t0\troot\t_\t_
3\tloudly\tloudly\tADV\t_\t_\t2\tadvmod\t_\t_

"""


@pytest.fixture
def treebank(tmp_path):
    path = tmp_path / "some.conllu"
    path.write_text(SENTENCES * 10, encoding="utf-8")
    return path


def test_sentences_are_split_and_numbered(treebank):
    bank = data.load(treebank)
    assert [len(bank.train), len(bank.dev), len(bank.test)] == [16, 2, 2]
    assert set(bank.words) == {"<unknown>", "the", "dog", "barks", "dogs", "bark", "loudly"}
    assert bank.tags == ["ADV", "DET", "NOUN", "VERB"]
    (tree, *_) = vf.from_conllu(SENTENCES)
    graph, word, relation, tag = data.encode(tree, bank.words, bank.relations, bank.tags)
    assert [bank.words[at] for at in word] == ["the", "dog", "barks"]
    assert [bank.tags[at] for at in tag] == ["DET", "NOUN", "VERB"]
    assert [bank.relations[at] for at in relation] == ["det", "nsubj"]  # of the edges to "The" and to "dog"
    assert graph.child.tolist() == [0, 1]


def test_a_sentence_of_two_words_has_one_relation():
    (_, tree) = vf.from_conllu(SENTENCES.replace("3\tloudly\tloudly\tADV\t_\t_\t2\tadvmod\t_\t_\n", ""))
    assert data.encode(tree, ["<unknown>"], ["<unknown>", "nsubj"], ["NOUN", "VERB"])[2].tolist() == [1]


def test_what_training_has_not_is_unknown():
    (tree, *_) = vf.from_conllu(SENTENCES)
    _, word, relation, _ = data.encode(tree, ["<unknown>", "dog"], ["<unknown>", "det"], ["DET", "NOUN", "VERB"])
    assert word.tolist() == [0, 1, 0]
    assert relation.tolist() == [1, 0]


def batch_of(treebank):
    bank = data.load(treebank)
    return bank, vf.collate(bank.train[:4])


@pytest.mark.parametrize("model", [Dependents, Bag])
def test_a_word_does_not_tell_its_own_tag(treebank, model, eager):
    bank, (batch, word, relation, _) = batch_of(treebank)
    tagger = model(len(bank.words), len(bank.relations), len(bank.tags), 8, 0.0).eval()
    before = tagger.logits(batch, word, relation)
    root = int(batch.roots[0])
    other = word.clone()
    other[root] = (word[root] + 1) % len(bank.words)
    after = tagger.logits(batch, other, relation)
    torch.testing.assert_close(after[root], before[root], rtol=1e-4, atol=1e-5)
    word[batch.leaves[0]] = (word[batch.leaves[0]] + 1) % len(bank.words)  # but its dependents do
    assert (tagger.logits(batch, word, relation)[root] - before[root]).abs().max() > 1e-4


@pytest.mark.slow
def test_the_model_is_that_of_one_vertex_after_another(treebank):
    bank, (batch, word, relation, _) = batch_of(treebank)
    model = Dependents(len(bank.words), len(bank.relations), len(bank.tags), 4, 0.0).double()
    edges = [(child, parent, child) for child, parent in batch.edge_index.T.tolist()]  # dependents in their order
    expected = run_reference(model, batch.num_vertices, edges, {"word": word}, edge_inputs={"relation": relation})
    torch.testing.assert_close(model.logits(batch, word, relation), expected["tag"])


def test_without_relations_they_do_not_matter(treebank, eager):
    bank, (batch, word, relation, _) = batch_of(treebank)
    model = Dependents(len(bank.words), 1, len(bank.tags), 8, 0.0).eval()
    assert torch.equal(model.logits(batch, word, relation), model.logits(batch, word, relation * 0))


@pytest.mark.slow
def test_training_learns_and_keeps_the_best(treebank, tmp_path):
    run = tmp_path / "run"
    accuracy = train.main(["--data", str(treebank), "--size", "16", "--epochs", "12", "--dropout", "0", "--lr", "0.02",
                        "--patience", "12", "--out", str(run)])  # fmt: skip
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    assert accuracy == 1.0
    assert torch.load(run / "best.pt")["words"][0] == "<unknown>"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere.conllu"], "nowhere.conllu"),
        (["--data", ".", "--dropout", "1"], "--dropout is from 0"),
        (["--data", ".", "--size", "0"], "at least 1"),
        (["--data", ".", "--seed", "-1"], "--seed is at least 0"),
    ],
)
def test_wrong_options_end_with_a_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_ends_with_a_line(treebank, capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["--data", str(treebank), "--out", str(treebank / "below-a-file")])
    assert ended.value.code == 2
    assert "below-a-file" in capsys.readouterr().err


def test_sentences_of_one_word_leave_the_loss_finite(tmp_path):
    path = tmp_path / "short.conllu"
    path.write_text((SENTENCES + "1\tYes\tyes\tINTJ\t_\t_\t0\troot\t_\t_\n\n") * 5, encoding="utf-8")
    train.main(["--data", str(path), "--model", "bag", "--size", "4", "--epochs", "1", "--batch-size", "1",
                "--out", str(tmp_path / "run")])  # fmt: skip
    assert math.isfinite(json.loads((tmp_path / "run" / "metrics.jsonl").read_text())["loss"])


def test_without_data(monkeypatch, capsys):
    monkeypatch.delenv("VERTEXFLOW_DATA", raising=False)
    with pytest.raises(SystemExit):
        train.main([])
    assert "--data PATH is missing" in capsys.readouterr().err


def test_too_few_sentences(tmp_path, capsys):
    path = tmp_path / "two.conllu"
    path.write_text(SENTENCES, encoding="utf-8")
    with pytest.raises(SystemExit):
        train.main(["--data", str(path)])
    assert "has 2 sentences; at least 10 are needed" in capsys.readouterr().err


@needs_data
def test_universal_dependencies(data):
    from examples.dependency.data import load

    bank = load(data)
    assert len(bank.train) + len(bank.dev) + len(bank.test) == 2001
    assert len(bank.tags) == 17
