"""The example: its data, its command line, and runs that continue exactly."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vertexflow as vf
from examples.treelstm import listops, predict, sst, train, training
from examples.treelstm.task import UNLABELLED, encode, vocabulary

from ..data import needs_data

ROOT = Path(__file__).parents[2]
TINY = [
    "--train-size",
    "40",
    "--max-depth",
    "2",
    "--hidden",
    "8",
    "--embed",
    "4",
    "--batch-size",
    "16",
    "--device",
    "cpu",
]
TREES = "(3 (2 It) (4 (2 's) (3 good)))\n(1 (2 It) (1 (2 's) (1 bad)))\n(2 (2 So) (2 so))\n"


def metrics(folder):
    """The metrics of a run without what the clock says."""
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for entry in entries:
        del entry["seconds"], entry["train"]["trees_per_second"], entry["valid"]["trees_per_second"]
    return entries


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[MIN 2 9 [SM 4 7 ] 3 ]", 1),
        ("[MED 1 9 5 ]", 5),
        ("[MED 1 9 5 8 ]", 6),
        ("[SM 9 9 9 ]", 7),
        ("7", 7),
    ],
)
def test_values_of_lists(text, value):
    expression = listops.parse(text)
    assert listops.value(expression) == value
    assert listops.text(expression) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[MAX 1 2", "not closed"),
        ("[MAX ]", "no arguments"),
        ("[MOD 1 2 ]", "unknown operation"),
        ("] 1", "closes no list"),
        ("1 2", "follows a complete"),
        ("[MAX 12 ]", "'12'"),
        ("", "empty"),
    ],
)
def test_malformed_lists(text, message):
    with pytest.raises(ValueError, match=message):
        listops.parse(text)


def test_the_tree_of_a_list_leans_left_and_carries_values():
    graph = listops.to_graph(listops.parse("[MAX 2 [MIN 4 7 ] ]"))
    assert graph.data["token"][:7].tolist() == ["[MAX", "2", "[MIN", "4", "7", "]", "]"]
    labels = graph.data["label"].tolist()
    assert labels[:7] == [UNLABELLED, 2, UNLABELLED, 4, 7, UNLABELLED, UNLABELLED]
    assert sorted(labels[7:]) == [UNLABELLED] * 4 + [4, 4]
    assert labels[-1] == 4  # the root, the value of the whole
    batch = vf.pack([graph])
    assert batch.roots.tolist() == [graph.num_vertices - 1]
    assert (batch.offset[8:] - batch.offset[7:-1] == 2).all()


def test_random_lists_are_the_same_for_the_same_seed_and_all_different():
    first = listops.load(100, 3, seed=1)
    again = listops.load(100, 3, seed=1)
    other = listops.load(100, 3, seed=2)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(first.train, again.train, strict=True))
    assert any(not torch.equal(a[1], b[1]) for a, b in zip(first.train, other.train, strict=True))
    everything = [tuple(tokens.tolist()) for _, tokens, _ in first.train + first.valid + first.test]
    assert len(set(everything)) == len(everything)


def test_lists_need_their_tree():
    """The most frequent value of all lists is right seldom, and digits alone do not tell the value."""
    rng = random.Random(0)
    values = [listops.value(listops.random_expression(rng, 3)) for _ in range(2000)]
    assert max(values.count(digit) for digit in range(10)) < 0.3 * len(values)
    assert listops.value(listops.parse("[MIN 1 [MAX 5 9 ] ]")) != listops.value(listops.parse("[MAX 1 [MIN 5 9 ] ]"))


def test_unknown_words_share_a_token():
    graphs = vf.from_ptb(TREES, num_labels=5)
    words = vocabulary(graphs[:1])
    assert words == ["", "<unknown>", "'s", "It", "good"]
    assert encode(graphs[1:2], words)[0][1].tolist() == [3, 2, 1, 0, 0]


def test_binary_sentiment_has_no_neutral_roots(tmp_path):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.txt").write_text(TREES * 2)
    task = sst.load(str(tmp_path), binary=True)
    assert [labels[-1].item() for _, _, labels in task.train] == [1, 0] * 2
    assert task.train[0][2].tolist() == [UNLABELLED, UNLABELLED, 1, 1, 1]
    assert "<unknown>" in task.words
    assert "so" not in task.words  # it stands in a neutral sentence only


@pytest.mark.slow  # which reading SST is: tests/graph/inputs/readers does it in `make test`
@needs_data
def test_the_vocabulary_of_sst(data):
    task = sst.load(str(data / "sst"), binary=False)
    assert (len(task.train), len(task.valid)) == (8544, 1101)
    assert 8_000 < len(task.words) < 9_000
    assert task.test_name.startswith("dev")
    assert len(task.test) == len(task.valid)


def test_a_run_learns_and_leaves_its_files(tmp_path, capsys):
    folder = tmp_path / "run"
    train.main([*TINY, "--epochs", "3", "--lr", "0.02", "--out", str(folder)])
    losses = [entry["train"]["loss"] for entry in metrics(folder)]
    assert losses[-1] < losses[0]
    assert {path.name for path in folder.iterdir()} == {
        "best.pt",
        "last.pt",
        "metrics.jsonl",
        "curves.png",
        "test.json",
    }
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "root accuracy" in printed
    assert "trees/s" in printed


@pytest.mark.slow
@pytest.mark.parametrize("model", ["treelstm", "bag"])
def test_a_resumed_run_is_the_same_run(tmp_path, model):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = [*TINY, "--model", model, "--dropout", "0.3", "--seed", "3"]
    train.main([*settings, "--epochs", "4", "--out", str(whole)])
    train.main([*settings, "--epochs", "2", "--out", str(parts)])
    train.main(["--resume", str(parts), "--epochs", "4", "--device", "cpu"])
    assert metrics(parts) == metrics(whole)
    ends = [torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (whole, parts)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def launched(tmp_path, processes, *arguments):
    """Run `train` under torchrun; returns what was printed."""
    command = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "VERTEXFLOW_BACKEND": "torch"}
    done = subprocess.run(
        [sys.executable, *command, "-m", "examples.treelstm.train", *map(str, arguments), "--threads", "1"],
        env=environment, cwd=ROOT, text=True, capture_output=True, timeout=500, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr[-4000:]
    return done.stdout


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def alike(ours, wanted):
    """Metrics that differ by rounding alone."""
    assert len(ours) == len(wanted) > 0
    for entry, other in zip(ours, wanted, strict=True):
        for part in ("train", "valid"):
            assert entry[part] == pytest.approx(other[part], rel=1e-5), (entry["epoch"], part)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path, monkeypatch):
    """Under torchrun; and a run of two, continued by three, of which one has no tree in a last batch of 2."""
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")
    settings = [*TINY, "--train-size", "34", "--max-depth", "3", "--seed", "3", "--lr", "0.01"]
    train.main([*settings, "--epochs", "3", "--out", str(tmp_path / "one")])
    printed = launched(tmp_path, 2, *settings, "--epochs", "2", "--out", tmp_path / "two")
    assert printed.count("epoch 1:") == printed.count("run folder") == printed.count("root accuracy ┃") == 1
    alike(metrics(tmp_path / "two"), metrics(tmp_path / "one")[:2])
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    launched(tmp_path, 3, "--resume", tmp_path / "two", "--epochs", "3", "--device", "cpu")
    alike(metrics(tmp_path / "two"), metrics(tmp_path / "one"))
    tests = [json.loads((tmp_path / name / "test.json").read_text()) for name in ("one", "two")]
    assert tests[1]["loss"] == pytest.approx(tests[0]["loss"], rel=1e-5)


@pytest.mark.slow
def test_two_processes_train_with_a_plan_that_is_found_and_one_that_is_sharded(tmp_path, monkeypatch):
    """Both give the losses of one process; the first is continued by the second, and this by one process."""
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")
    settings = [*TINY, "--train-size", "34", "--max-depth", "3", "--seed", "3", "--lr", "0.01"]
    train.main([*settings, "--epochs", "3", "--out", str(tmp_path / "one")])
    printed = launched(tmp_path, 2, *settings, "--epochs", "1", "--plan", "auto", "--out", tmp_path / "two")
    assert "plan: data 2" in printed
    assert "predicted:" in printed
    alike(metrics(tmp_path / "two"), metrics(tmp_path / "one")[:1])
    vf.parallel.Plan({"data": 2}, {"": "sharded"}).save(tmp_path / "plan.json")
    resumed = ["--resume", tmp_path / "two", "--device", "cpu"]
    printed = launched(tmp_path, 2, *resumed, "--epochs", "2", "--plan", tmp_path / "plan.json")
    assert "plan: data 2: sharded" in printed
    alike(metrics(tmp_path / "two"), metrics(tmp_path / "one")[:2])
    train.main([*map(str, resumed), "--epochs", "3"])
    alike(metrics(tmp_path / "two"), metrics(tmp_path / "one"))
    tests = [json.loads((tmp_path / name / "test.json").read_text()) for name in ("one", "two")]
    assert tests[1]["loss"] == pytest.approx(tests[0]["loss"], rel=1e-5)


@pytest.mark.slow
def test_training_stops_early(tmp_path, capsys, eager):
    train.main([*TINY, "--epochs", "9", "--lr", "0", "--patience", "2", "--out", str(tmp_path / "run")])
    assert len(metrics(tmp_path / "run")) == 3
    assert "stopping early" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, capsys, monkeypatch, eager):
    monkeypatch.setattr(training.F, "cross_entropy", lambda logits, *_, **__: logits.sum(-1) * float("nan"))
    with pytest.raises(SystemExit) as caught:
        train.main([*TINY, "--epochs", "1", "--out", str(tmp_path / "run")])
    assert caught.value.code == 1
    assert "the loss is nan; a smaller --lr may help" in capsys.readouterr().err


@pytest.mark.slow
def test_sst_trains_and_predicts(tmp_path, capsys, monkeypatch):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.txt").write_text(TREES * 4)
    run = str(tmp_path / "run")
    sizes = ["--hidden", "8", "--embed", "8", "--batch-size", "4", "--dropout", "0", "--lr", "0.02", "--device", "cpu"]
    train.main(
        ["--dataset", "sst", "--data", str(tmp_path), *sizes, "--epochs", "30", "--patience", "30", "--out", run]
    )
    capsys.readouterr()
    (tmp_path / "new.txt").write_text("(_ (_ It) (_ (_ 's) (_ good)))\n(_ (_ It) (_ (_ 's) (_ bad)))\n")
    predict.main(["--checkpoint", run, str(tmp_path / "new.txt"), "--device", "cpu"])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [label for label, _, _ in lines] == ["positive", "negative"]
    assert all(0.2 < float(confidence) <= 1 for _, confidence, _ in lines)
    assert lines[0][2] == "it 's good"
    monkeypatch.setattr("sys.stdin", io.StringIO("(_ It)"))
    predict.main(["--checkpoint", run, "--device", "cpu"])
    assert capsys.readouterr().out.endswith("\tit\n")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("treelstm") / "finished"
    train.main([*TINY, "--epochs", "1", "--out", str(folder)])
    return folder


@pytest.mark.slow
def test_listops_predicts(tmp_path, capsys, finished, eager):
    capsys.readouterr()
    (tmp_path / "new.txt").write_text("[MAX 2 9 [MIN 4 7 ] 0 ]\n\n[SM 1 1]\n")
    predict.main(["--checkpoint", f"{finished}/best.pt", str(tmp_path / "new.txt"), "--device", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[2] for line in lines] == ["[MAX 2 9 [MIN 4 7 ] 0 ]", "[SM 1 1 ]"]


def refused(main, arguments, capsys):
    """The one line with which a program refuses its arguments."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_wrong_options_are_refused_in_one_line(tmp_path, capsys, finished):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    for arguments, message in [
        (["--dataset", "sst"], "--data DIR"),
        (["--dataset", "sst", "--data", tmp_path / "nowhere"], "nowhere"),
        (["--data", tmp_path], "belong to --dataset sst"),
        (["--hidden", "0"], "'0' is not a positive integer"),
        (["--hidden", "many"], "'many' is not a positive integer"),
        (["--dropout", "1"], "'1' is not a number from 0"),
        (["--device", "gpu7"], "gpu7"),
        (["--out", finished], f"--resume {finished}"),
        ([*TINY, "--plan", tmp_path / "nowhere"], "nowhere"),
        ([*TINY, "--plan", empty], "is no JSON"),
        (["--resume", tmp_path / "nowhere"], "there is no"),
        (["--resume", finished, "--hidden", "9"], "--hidden cannot change"),
        (["--max-depth", "1", "--train-size", "1000000"], "larger --max-depth"),
    ]:
        assert message in refused(train.main, arguments, capsys), arguments
    assert not (tmp_path / "runs").exists()
    for arguments, message in [
        (["--checkpoint", tmp_path / "nowhere", empty], "there is no"),
        (["--checkpoint", empty, empty], "is no checkpoint"),
        (["--checkpoint", finished, empty], "empty.txt: there is no tree"),
        (["--checkpoint", finished, tmp_path / "missing"], "missing"),
    ]:
        assert message in refused(predict.main, arguments, capsys), arguments


def test_malformed_trees_are_refused_with_file_and_line(tmp_path, capsys, finished):
    bad = tmp_path / "bad.txt"
    bad.write_text("[MAX 1 2 ]\n[MAX 1 2\n")
    assert "bad.txt, line 2: [MAX is not closed" in refused(predict.main, ["--checkpoint", finished, bad], capsys)
    for name in ("train", "dev"):
        (tmp_path / f"{name}.txt").write_text("(3 (2 It) (4 good))\n(7 bad)\n")
    message = refused(train.main, ["--dataset", "sst", "--data", tmp_path], capsys)
    assert "train.txt, line 2: the label '7'" in message


def test_a_run_is_not_resumed_with_other_data(tmp_path, capsys, eager):
    for folder, text in (("a", TREES), ("b", TREES.replace("good", "fine"))):
        (tmp_path / folder).mkdir()
        for name in ("train", "dev"):
            (tmp_path / folder / f"{name}.txt").write_text(text * 2)
    run = tmp_path / "run"
    sizes = ["--hidden", "4", "--embed", "4", "--device", "cpu"]
    train.main(["--dataset", "sst", "--data", str(tmp_path / "a"), *sizes, "--epochs", "1", "--out", str(run)])
    assert "not what this run began with" in refused(train.main, ["--resume", run, "--data", tmp_path / "b"], capsys)
    (run / "last.pt").write_bytes(b"nothing")
    assert "is no checkpoint" in refused(train.main, ["--resume", run], capsys)
