"""The settings of a training run, and the command line that gives them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

import vertexflow as vf


@dataclass(frozen=True)
class Settings:
    """One field a flag; the defaults are those of ListOps."""

    dataset: str = "listops"
    data: str | None = None
    binary: bool = False
    train_size: int = 8000
    max_depth: int = 5
    model: str = "treelstm"
    embed: int = 64
    hidden: int = 128
    dropout: float = 0.0
    labels: str = "every"
    seed: int = 1
    epochs: int = 12
    batch_size: int = 50
    lr: float = 3e-3
    weight_decay: float = 0.0
    patience: int = 5
    time_limit: float | None = None
    device: str = "auto"
    threads: int | None = None


DEFAULTS = {
    "listops": Settings(),
    "sst": Settings(
        dataset="sst", embed=150, hidden=150, dropout=0.5, epochs=20, batch_size=25, lr=1e-3, weight_decay=0.05, patience=4
    ),
}
ONLY_FOR = {"data": "sst", "binary": "sst", "train_size": "listops", "max_depth": "listops"}
CHANGED_BY_RESUME = {"data", "epochs", "patience", "time_limit", "device", "threads"}


def parser() -> argparse.ArgumentParser:
    """The command line of training. Flags that are not given are left out of what it parses."""
    made = argparse.ArgumentParser(
        prog="python -m examples.treelstm.train",
        description="Train a binary tree LSTM, or a bag of leaves, to label the vertices of trees.",
        argument_default=argparse.SUPPRESS,
    )
    data = made.add_argument_group("data")
    data.add_argument("--dataset", choices=DEFAULTS, help="ListOps, generated; or the Stanford Sentiment Treebank (default: listops)")
    data.add_argument("--data", metavar="DIR", help="sst: the folder of train.txt and dev.txt, one tree in brackets a line")
    data.add_argument("--binary", action="store_true", help="sst: negative against positive, instead of five labels")
    data.add_argument("--train-size", type=_count, metavar="N", help=_help("listops: trees in the training split", "train_size"))
    data.add_argument("--max-depth", type=_count, metavar="N", help=_help("listops: lists within lists, at most", "max_depth"))

    model = made.add_argument_group("model")
    model.add_argument("--model", choices=["treelstm", "bag"], help="bag: the baseline, blind to order and tree (default: treelstm)")
    model.add_argument("--embed", type=_count, metavar="N", help=_help("size of the token embeddings", "embed"))
    model.add_argument("--hidden", type=_count, metavar="N", help=_help("size of the state", "hidden"))
    model.add_argument("--dropout", type=_fraction, metavar="P", help=_help("of embeddings and outputs", "dropout"))

    training = made.add_argument_group("training")
    training.add_argument(
        "--labels", choices=["every", "root"], help="train on every labelled vertex, or on roots alone (default: every)"
    )
    training.add_argument("--seed", type=int, metavar="N", help=_help("of data, weights, order and dropout", "seed"))
    training.add_argument("--epochs", type=_count, metavar="N", help=_help("passes over the training split", "epochs"))
    training.add_argument("--batch-size", type=_count, metavar="N", help=_help("trees in a step", "batch_size"))
    training.add_argument("--lr", type=_positive, metavar="X", help=_help("learning rate of AdamW", "lr"))
    training.add_argument("--weight-decay", type=_weight, metavar="X", help=_help("of AdamW", "weight_decay"))
    training.add_argument(
        "--patience", type=_count, metavar="N", help=_help("stop after N epochs without a better validation", "patience")
    )
    training.add_argument(
        "--time-limit", type=_positive, metavar="MINUTES", help="begin no epoch that would end later (default: none)"
    )

    running = made.add_argument_group("running")
    running.add_argument("--out", metavar="RUN", help="a new folder for this run (default: runs/DATASET-MODEL-TIME)")
    running.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, exactly as if it had not stopped")
    running.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 ... (default: auto, a GPU where there is one)")
    running.add_argument("--threads", type=_count, metavar="N", help="CPU threads (default: PyTorch's choice)")
    return made


def fresh(given: Mapping[str, Any]) -> Settings:
    """The settings of a new run, from the flags that were given.

    Raises:
        vf.InputError: flags that do not go together.
    """
    dataset = given.get("dataset", "listops")
    for name, belongs_to in ONLY_FOR.items():
        if name in given and dataset != belongs_to:
            raise vf.InputError(f"{flag(name)} is for --dataset {belongs_to}, but the data set is {dataset}")
    if dataset == "sst" and "data" not in given:
        raise vf.InputError("--dataset sst needs --data DIR, the folder of its train.txt and dev.txt")
    return replace(DEFAULTS[dataset], **given)


def resumed(before: Settings, given: Mapping[str, Any]) -> Settings:
    """The settings to go on with: those of before, and those flags that may change within a run.

    Raises:
        vf.InputError: a flag that contradicts the run.
    """
    for name, value in given.items():
        was = asdict(before)[name]
        if name not in CHANGED_BY_RESUME and value != was:
            raise vf.InputError(
                f"{flag(name)} {value} contradicts the run, which has {was}; leave it out, or begin a new run with --out"
            )
    return replace(before, **given)


def flag(name: str) -> str:
    """The flag of a field: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")


def find_device(name: str) -> torch.device:
    """The device of this name; `auto` is a GPU where there is one.

    Raises:
        vf.InputError: there is no such device here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # how PyTorch says no depends on how it was built
        reason = str(error).splitlines()[0]
        raise vf.InputError(f"--device {name} cannot be used here ({reason}); try --device cpu") from error
    return device


def _help(text: str, name: str) -> str:
    values = {dataset: getattr(settings, name) for dataset, settings in DEFAULTS.items() if ONLY_FOR.get(name, dataset) == dataset}
    if len(set(values.values())) == 1:
        return f"{text} (default: {next(iter(values.values()))})"
    return f"{text} (default: " + ", ".join(f"{value} for {dataset}" for dataset, value in values.items()) + ")"


def _number(kind: Callable[[str], Any], accepts: Callable[[Any], bool], what: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return read


_count = _number(int, lambda value: value > 0, "a whole number above 0")
_positive = _number(float, lambda value: 0 < value < float("inf"), "a number above 0")
_weight = _number(float, lambda value: 0 <= value < float("inf"), "a number, 0 or above")
_fraction = _number(float, lambda value: 0 <= value < 1, "a number from 0 to below 1")
