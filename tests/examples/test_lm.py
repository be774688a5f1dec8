"""The language model: its data, three LSTMs that train alike, and the commands."""

from __future__ import annotations

import collections
import json
import math
import os

import pytest
import torch
from torch.nn.functional import cross_entropy

import vertexflow as vf
from examples.lm import data, score, speed, train
from examples.lm.data import END, UNKNOWN, batches
from examples.lm.model import LSTMS, LanguageModel

from ..data import needs_data

TREES = "(3 (2 It) (4 (2 's) (3 good)))\n(1 (2 it) (1 (2 's) (1 bad)))\n(2 (2 So) (2 so))\n(2 yes)\n"
TINY = ["--hidden", "8", "--batch-size", "4", "--lr", "0.02", "--device", "cpu"]
WORDS = [f"w{number}" for number in range(20)]
CELL = vf.nn.LSTM(6, 6).cell  # one for all layers and models, so that it is traced once
OTHERS = [name for name in LSTMS if name != "vertexflow"]


@pytest.fixture
def folder(tmp_path):
    """A folder of sentences: few, and in dev none that is not in train."""
    trees = tmp_path / "trees"
    trees.mkdir()
    (trees / "train.txt").write_text(TREES * 6)
    (trees / "dev.txt").write_text(TREES)
    return trees


def samples(lengths, seed=0):
    """Sentences of random words."""
    draw = torch.Generator().manual_seed(seed)
    sentences = [torch.randint(len(WORDS), (length,), generator=draw).tolist() for length in lengths]
    return data.encode(
        [[WORDS[number] for number in sentence] for sentence in sentences], ["<end>", "<unknown>", *WORDS]
    )


def model(name, seed=0):
    torch.manual_seed(seed)
    network = LanguageModel(name, len(WORDS) + 2, 6, layers=2, dropout=0.3).double()
    torch.nn.init.normal_(network.bias)
    if name == "vertexflow":
        for layer in network.layers:
            object.__setattr__(layer, "cell", CELL)
    return network


def test_a_vertex_reads_the_word_before_its_own(folder):
    corpus = data.load(folder)
    assert corpus.words == ["<end>", "<unknown>", "'s", "bad", "good", "it", "so", "yes"]
    (first, *_), (graph, read, said) = corpus.train, corpus.train[1]
    assert (first[1].tolist(), first[2].tolist()) == ([END, 5, 2, 4], [5, 2, 4, END])
    assert (read.tolist(), said.tolist()) == ([END, 5, 2, 3], [5, 2, 3, END])
    assert graph.num_vertices == 4
    assert vf.pack([graph]).child.tolist() == [0, 1, 2]


def test_words_seen_once_are_unknown():
    words = data.vocabulary([["a", "b", "a"], ["c", "b"]])
    assert words == ["<end>", "<unknown>", "a", "b"]
    assert data.encode([["c", "a", "d"]], words)[0][2].tolist() == [UNKNOWN, 2, UNKNOWN, END]


def test_sentences_are_found_in_the_folder_or_in_its_sst(folder, tmp_path):
    corpus = data.load(folder)
    folder.rename(tmp_path / "sst")
    assert data.load(tmp_path).words == corpus.words
    (tmp_path / "sst" / "dev.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"dev\.txt"):
        data.load(tmp_path)


def test_the_perplexity_of_single_words(folder):
    corpus = data.load(folder)
    counts = collections.Counter(word for _, _, said in corpus.dev for word in said.tolist())  # train: six times these
    total = sum(counts.values())
    entropy = -sum(count / total * math.log(count / total) for count in counts.values())
    assert data.unigram_perplexity(corpus) == pytest.approx(math.exp(entropy))


@pytest.mark.slow  # which reading SST is: tests/graph/inputs/readers does it in `make test`
@needs_data
def test_the_sentences_of_sst(data):
    corpus = train.load(data)
    assert (len(corpus.train), len(corpus.dev), len(corpus.words)) == (8544, 1101, 8218)
    assert sum(len(said) for _, _, said in corpus.dev) == 21_274 + 1_101  # leaves and ends


@pytest.mark.parametrize("other", OTHERS)
def test_all_train_alike_step_by_step(other):
    """The same losses and, at the end, the same parameters: through dropout, clipping and Adam, with two layers."""
    lengths = [7, 1, 4, 4, 12, 2, 3, 9, 1, 5]
    losses, weights = [], []
    for name in ("vertexflow", other):
        network = model(name)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        loader = batches(samples(lengths), 4, torch.Generator().manual_seed(1))
        losses.append([train.step(network, optimizer, *batch) for _ in range(4) for batch in loader])
        weights.append(network.state_dict())
    assert len(losses[0]) == 12
    assert losses[0][-1] < losses[0][0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("other", OTHERS)
def test_parameters_are_interchangeable(other):
    ours, theirs = model("vertexflow", seed=1).eval(), model(other, seed=2).eval()
    batch, tokens, _ = vf.collate(samples([3, 5, 1]))
    before = theirs(batch, tokens)
    theirs.load_state_dict(ours.state_dict())
    assert not torch.allclose(theirs(batch, tokens), before)
    torch.testing.assert_close(theirs(batch, tokens), ours(batch, tokens), rtol=1e-12, atol=1e-12)
    fresh = model("vertexflow", seed=3).eval()
    fresh.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(fresh(batch, tokens), ours(batch, tokens), rtol=1e-12, atol=1e-12)


class Doubled(torch.nn.Module):
    """Stands where dropout is, to show where that is."""

    def forward(self, x):
        return 2 * x


def test_the_model_is_the_sum_of_one_word_after_the_other():
    """Against `torch.nn.LSTMCell`, a sentence and a word at a time."""
    network = model("vertexflow")
    network.dropout = Doubled()
    given = samples([4, 1, 6])
    batch, tokens, _ = vf.collate(given)
    cells = []
    for layer in network.layers:
        cells.append(torch.nn.LSTMCell(6, 6).double())
        cells[-1].load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    expected = []
    for _, read, _ in given:
        states = [None, None]
        for token in read:
            x = 2 * network.embed.weight[token]
            for at, cell in enumerate(cells):
                states[at] = cell(x, states[at])
                x = 2 * states[at][0]
            expected.append(network.embed.weight @ x + network.bias)
    torch.testing.assert_close(network(batch, tokens), torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_perplexity_does_not_depend_on_batches():
    network, given = model("vertexflow"), samples([7, 1, 4, 12, 2])
    with torch.no_grad():
        losses = [
            cross_entropy(network.eval()(vf.pack([graph]), read), said, reduction="none") for graph, read, said in given
        ]
    expected = torch.cat(losses).mean().exp().item()
    for size in (1, 2, 5):
        network.train()
        assert train.perplexity(network, batches(given, size), torch.device("cpu")) == pytest.approx(
            expected, rel=1e-12
        )


@pytest.mark.slow
def test_a_run_learns_and_leaves_its_files(folder, tmp_path, capsys):
    run = tmp_path / "run"
    train.main(["--data", str(folder), *TINY, "--dropout", "0", "--epochs", "12", "--out", str(run)])
    assert {path.name for path in run.iterdir()} == {"best.pt", "metrics.jsonl"}
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in metrics] == list(range(1, 13))
    assert metrics[0]["dev_perplexity"] > 5
    best = min(entry["dev_perplexity"] for entry in metrics)
    assert best < 3  # the first words of a sentence cannot be told, all others nearly can
    assert f"perplexity on dev {best:.2f}" in capsys.readouterr().out

    (tmp_path / "sentences.txt").write_text("It 's good\n\nGood it 's\n")
    score.main(["--checkpoint", str(run), "--device", "cpu", str(tmp_path / "sentences.txt")])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [text for _, text in lines] == ["It 's good", "Good it 's"]
    assert 1 < float(lines[0][0]) < 3 < float(lines[1][0])


def test_a_score_is_the_perplexity_of_the_sentence_alone(folder):
    corpus, network = data.load(folder), model("vertexflow")
    lines, device = ["so so", "It 's good", "unheard of"], torch.device("cpu")
    scores = score.perplexities(network.eval().float(), lines, corpus.words, device)
    for line, perplexity in zip(lines, scores, strict=True):
        alone = batches(data.encode([line.lower().split()], corpus.words), 1)
        assert perplexity == pytest.approx(train.perplexity(network, alone, device), rel=1e-5)


def test_the_loss_is_of_all_tokens_and_the_learning_rate_falls(folder, tmp_path, monkeypatch):
    seen = []

    def record(network, optimizer, batch, tokens, targets):
        seen.append((optimizer.param_groups[0]["lr"], len(targets)))
        optimizer.step()  # without gradients
        return 3.0 - len(batch)  # 23 sentences, then one

    monkeypatch.setattr(train, "step", record)
    run, options = tmp_path / "run", [*TINY, "--batch-size", "23", "--epochs", "2", "--patience", "3"]
    train.main(["--data", str(folder), *options, "--out", str(run)])
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [rate for rate, _ in seen] == pytest.approx([0.02, 0.02, 0.01, 0.01])
    for entry, (_, first), (_, last) in zip(metrics, seen[::2], seen[1::2], strict=True):
        assert entry["tokens"] == first + last
        assert math.log(entry["train_perplexity"]) == pytest.approx((-20.0 * first + 2.0 * last) / (first + last))


def test_the_same_seed_gives_the_same_run_with_each_lstm(folder, tmp_path):
    perplexities = {}
    for name, run in [*((name, name) for name in LSTMS), ("vertexflow", "again")]:
        train.main(["--data", str(folder), *TINY, "--model", name, "--epochs", "2", "--out", str(tmp_path / run)])
        metrics = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        perplexities[run] = [entry[key] for entry in metrics for key in ("train_perplexity", "dev_perplexity")]
    assert perplexities["again"] == perplexities["vertexflow"]
    for name in LSTMS:
        assert perplexities[name] == pytest.approx(perplexities["vertexflow"], rel=1e-4)


def test_it_stops_early_and_keeps_the_best(folder, tmp_path, eager):
    """Trained on sentences, measured on others: what is learned by heart makes dev worse."""
    (folder / "dev.txt").write_text("(2 (2 bad) (2 (2 so) (2 it)))\n(2 (2 good) (2 (2 yes) (2 's)))\n")
    run = tmp_path / "run"
    options = [*TINY, "--lr", "0.05", "--dropout", "0", "--epochs", "40", "--patience", "3", "--out", str(run)]
    train.main(["--data", str(folder), *options])
    perplexities = [json.loads(line)["dev_perplexity"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(perplexities) == perplexities.index(min(perplexities)) + 1 + 3 < 40
    saved = torch.load(run / "best.pt", weights_only=True)
    network = LanguageModel("torch", len(saved["words"]), 8, 1, 0.0)
    network.load_state_dict(saved["model"])
    dev = batches(data.load(folder).dev, 2)
    assert train.perplexity(network, dev, torch.device("cpu")) == pytest.approx(min(perplexities), rel=1e-5)


def test_the_time_limit_ends_a_run_within_an_epoch(folder, tmp_path, eager):
    run = tmp_path / "run"
    train.main(["--data", str(folder), *TINY, "--time-limit", "1e-9", "--out", str(run)])
    (entry,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert entry["tokens"] < sum(len(said) for _, _, said in data.load(folder).train)
    assert (run / "best.pt").exists()


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e3])
def test_a_loss_beyond_all_bounds_ends_the_run(folder, tmp_path, monkeypatch, loss):
    monkeypatch.setattr(train, "step", lambda *_: loss)
    with pytest.raises(SystemExit, match=f"epoch 1: the loss is {loss:.4g}; a smaller --lr may help"):
        train.main(["--data", str(folder), *TINY, "--out", str(tmp_path / "run")])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--hidden", "0"], "at least 1"),
        (["--dropout", "1"], "--dropout is from 0"),
        (["--lr", "nan"], "--lr above 0"),
        (["--time-limit", "0"], "--time-limit above 0"),
        (["--device", "abacus"], "--device abacus"),
        (["--data", "nowhere"], "no train.txt in nowhere"),
        (["--out", os.devnull], "is in use"),
    ],
)
def test_wrong_options_are_refused_in_a_line(folder, tmp_path, capsys, wrong, message):
    with pytest.raises(SystemExit) as caught:
        train.main(["--data", str(folder), "--out", str(tmp_path / "run"), *wrong])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "run").exists()


def test_malformed_data_and_none_at_all_are_refused(folder, monkeypatch, capsys):
    (folder / "dev.txt").write_text("(3 (2 It)\n")
    monkeypatch.delenv("VERTEXFLOW_DATA", raising=False)
    for given, message in ((["--data", str(folder)], "dev.txt, line 1: unbalanced"), ([], "--data DIR is missing")):
        for main in (train.main, speed.main):
            with pytest.raises(SystemExit) as caught:
                main(given)
            assert caught.value.code == 2
            assert message in capsys.readouterr().err


def test_what_cannot_be_scored_is_refused(folder, tmp_path, capsys, eager):
    run, other, empty = tmp_path / "run", tmp_path / "other", tmp_path / "empty.txt"
    train.main(["--data", str(folder), *TINY, "--epochs", "1", "--out", str(run)])
    other.mkdir()
    torch.save({"model": {}, "options": {"model": "treelstm"}}, other / "best.pt")
    empty.write_text("\n")
    for given, message in (
        ([str(tmp_path), str(empty)], "there is no"),
        ([str(other), str(empty)], "of another program"),
        ([str(run), str(empty)], "no sentence in it"),
        ([str(run), str(tmp_path / "nowhere.txt")], "nowhere.txt"),
    ):
        with pytest.raises(SystemExit) as caught:
            score.main(["--checkpoint", *given])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_speed_prints_a_row_for_each_lstm(folder, capsys, monkeypatch, eager):
    monkeypatch.setenv("COLUMNS", "200")
    options = ["--hidden", "8", "4", "--batch-size", "4", "2", "--batches", "2", "--rounds", "1"]
    speed.main(["--data", str(folder), *options])
    printed = capsys.readouterr().out
    assert "hidden 4, batch 2" in printed
    for name in LSTMS:
        assert f"whole model, {name} " in printed
        assert f"layer alone, {name} " in printed
    with pytest.raises(SystemExit) as caught:
        speed.main(["--data", str(folder), "--hidden", "8", "--batch-size", "4", "2"])
    assert caught.value.code == 2
    assert "equally many" in capsys.readouterr().err
