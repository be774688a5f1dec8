"""The command line of `train`, and the settings of a run as they are stored with it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

from .model import MODELS

# What each task does well with; the command line overrides it.
DEFAULTS = {
    "listops": {
        "hidden": 128, "embed": 32, "dropout": 0.0, "epochs": 16, "batch_size": 64, "lr": 3e-3,
        "weight_decay": 0.0, "patience": 5,
    },
    "sst": {
        "hidden": 150, "embed": 150, "dropout": 0.5, "epochs": 20, "batch_size": 32, "lr": 1e-3,
        "weight_decay": 1e-2, "patience": 5,
    },
}  # fmt: skip
RUN_SETTINGS = (
    "epochs",
    "patience",
    "device",
    "threads",
    "plan",
    "resume",
    "out",
    "data",
)  # may change when a run is resumed


def parser() -> argparse.ArgumentParser:
    """The options of `python -m examples.treelstm.train`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.train",
        description="Train a binary TreeLSTM: on ListOps, made from the seed (the default), or on the Stanford Sentiment "
        "Treebank. Writes checkpoints, metrics.jsonl and curves.png into the run's folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,  # `contradictions` looks for whole options
    )
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", choices=list(DEFAULTS), default="listops", help="the task")
    data.add_argument("--data", metavar="DIR", help="folder with train.txt and dev.txt (sst only)")
    data.add_argument("--binary", action="store_true", help="two classes, without neutral (sst only)")
    data.add_argument("--train-size", type=_positive, default=10_000, metavar="N", help="training trees (listops only)")
    data.add_argument(
        "--max-depth", type=_positive, default=5, metavar="N", help="levels of nested lists (listops only)"
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=list(MODELS), default="treelstm", help="bag is the baseline without a tree")
    model.add_argument("--hidden", type=_positive, metavar="N", help=f"hidden units {_by_task('hidden')}")
    model.add_argument("--embed", type=_positive, metavar="N", help=f"size of token embeddings {_by_task('embed')}")
    model.add_argument(
        "--dropout", type=_fraction, metavar="P", help=f"of embeddings and outputs {_by_task('dropout')}"
    )
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=_positive, metavar="N", help=f"at most {_by_task('epochs')}")
    training.add_argument("--batch-size", type=_positive, metavar="N", help=f"trees a step {_by_task('batch_size')}")
    training.add_argument("--lr", type=_number, metavar="X", help=f"learning rate of AdamW {_by_task('lr')}")
    training.add_argument("--weight-decay", type=_number, metavar="X", help=f"of AdamW {_by_task('weight_decay')}")
    training.add_argument(
        "--patience",
        type=_positive,
        metavar="N",
        help=f"stop after N epochs without a better one {_by_task('patience')}",
    )
    training.add_argument("--seed", type=int, default=0, help="of the data, the weights, the order and dropout")
    run = parser.add_argument_group("run")
    run.add_argument(
        "--out", metavar="RUN", help="folder of the run, new or empty (default: runs/<dataset>-<model>-<time>)"
    )
    run.add_argument("--resume", metavar="RUN", help="continue the run in this folder exactly where it stopped")
    run.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...")
    run.add_argument(
        "--plan",
        metavar="PLAN",
        help="how the processes of torchrun share the model: auto finds it, a file has it (default: each has a whole copy)",
    )
    run.add_argument("--threads", type=_positive, metavar="N", help="CPU threads (default: PyTorch's choice)")
    return parser


def with_defaults(options: argparse.Namespace) -> argparse.Namespace:
    """Fill in what the task does well with."""
    for name, value in DEFAULTS[options.dataset].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def contradictions(options: argparse.Namespace, given: Sequence[str]) -> str | None:
    """What is wrong with options that argparse cannot see."""
    if options.resume:
        fixed = sorted({flag.split("=")[0] for flag in given if flag.startswith("--")} - _flags(RUN_SETTINGS))
        return f"{', '.join(fixed)} cannot change when a run is resumed" if fixed else None
    if options.dataset == "sst" and not options.data:
        return "--dataset sst needs --data DIR, the folder with train.txt and dev.txt"
    if options.dataset == "listops" and (options.data or options.binary):
        return "--data and --binary belong to --dataset sst; ListOps is made from --seed"
    return None


def _flags(names: Sequence[str]) -> set[str]:
    return {"--" + name.replace("_", "-") for name in names}


def _by_task(name: str) -> str:
    return f"(default: {', '.join(f'{settings[name]:g} for {task}' for task, settings in DEFAULTS.items())})"


def _checked(convert: Callable[[str], float], allowed: Callable[[float], bool], wanted: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = convert(text)
        except ValueError:
            number = math.nan
        if not allowed(number):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return number

    return parse


_positive = _checked(int, lambda number: number > 0, "a positive integer")
_number = _checked(float, lambda number: 0 <= number < math.inf, "a number from 0 up")
_fraction = _checked(float, lambda number: 0 <= number < 1, "a number from 0 up to, not including, 1")
