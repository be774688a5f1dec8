"""Train on a treebank: `python -m examples.dependency.train --help`."""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from tqdm import tqdm

import vertexflow as vf

from . import checkpoint
from .data import Sample, Treebank, load
from .model import Bag, Dependents

_collate = partial(vf.collate, rows=(1, 2, 3))  # words, relations and tags: one a vertex


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.train",
        description="Guess the part of speech of words from their dependents. Writes best.pt and metrics.jsonl.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("VERTEXFLOW_DATA"), metavar="PATH",
        help="a CoNLL-U file, or a folder with one; or set VERTEXFLOW_DATA",
    )  # fmt: skip
    parser.add_argument(
        "--model",
        choices=["tree", "tree-without-words", "tree-without-relations", "bag"],
        default="tree",
        help="what is trained",
    )
    parser.add_argument("--size", type=int, default=128, metavar="N", help="of embeddings and states")
    parser.add_argument("--dropout", type=float, default=0.5, metavar="P", help="of words, and inside the guess")
    parser.add_argument("--epochs", type=int, default=30, metavar="N", help="at most")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="sentences a step")
    parser.add_argument("--lr", type=float, default=2e-3, metavar="X", help="learning rate of Adam")
    parser.add_argument("--patience", type=int, default=5, metavar="N", help="stop after N epochs without a better one")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the order")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="folder of the run (default: runs/dependency-<model>-<time>)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> float:
    """Train, print, and return the accuracy on the test sentences. Exits with 2, and a line, on wrong options."""
    options = parser().parse_args(arguments)
    if options.data is None:
        refuse("--data PATH is missing: a CoNLL-U file, or a folder with one")
    if min(options.size, options.epochs, options.batch_size, options.patience) < 1:
        refuse("--size, --epochs, --batch-size and --patience are at least 1")
    if options.seed < 0:
        refuse("--seed is at least 0")
    if not (0 <= options.dropout < 1 and 0 < options.lr <= 1):
        refuse("--dropout is from 0 up to, not including, 1; --lr above 0, up to 1")
    try:
        bank = load(options.data, options.seed)
    except (OSError, vf.GraphError) as error:
        refuse(f"--data {options.data}: {error}")
    folder = options.out or Path("runs") / f"dependency-{options.model}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        refuse(f"--out {folder} is in use; choose another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse(f"--out {folder}: {error}")
    torch.manual_seed(options.seed)
    relations = 1 if options.model == "tree-without-relations" else len(bank.relations)
    words = 1 if options.model == "tree-without-words" else len(bank.words)
    model_class = Bag if options.model == "bag" else Dependents
    model = model_class(words, relations, len(bank.tags), options.size, options.dropout)
    print(
        f"{len(bank.train)}, {len(bank.dev)} and {len(bank.test)} sentences to train on, to choose and to test; "
        f"{len(bank.words)} words, {len(bank.relations)} relations, {len(bank.tags)} tags; {options.model}, run folder {folder}"
    )
    train(model, bank, options, folder)
    test_accuracy = accuracy(model, bank.test, options.batch_size)
    print(f"of the {count_heads(bank.test)} words with dependents in the test sentences, {test_accuracy:.1%} right; "
          f"{most_frequent(bank):.1%} for the most frequent tag")  # fmt: skip
    return test_accuracy


def train(model: Dependents | Bag, bank: Treebank, options: argparse.Namespace, folder: Path) -> None:
    """Epochs until nothing has become better for a while; the model is left as it was in the best one."""
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    order = torch.Generator().manual_seed(options.seed)
    best, best_epoch, kept = -1.0, 0, copy.deepcopy(model.state_dict())
    for epoch in range(1, options.epochs + 1):
        model.train()
        total, counted, words, started = 0.0, 0, 0, time.perf_counter()
        loader: DataLoader[Sample] = DataLoader(
            bank.train,  # type: ignore[arg-type]  # a list has all that a Dataset needs
            batch_size=options.batch_size, shuffle=True, generator=order, collate_fn=_collate,
        )  # fmt: skip
        with tqdm(loader, desc=f"epoch {epoch}", leave=False, unit="batch") as progress:
            for batch, word, relation, tag in progress:
                words += len(word)
                num_heads = int(heads(batch).sum())
                if num_heads == 0:  # sentences of one word have no head: their mean loss would be 0 / 0
                    continue
                total += num_heads * step(model, optimizer, batch, word, relation, tag)
                counted += num_heads
                progress.set_postfix(loss=f"{total / counted:.3f}")
        entry = {
            "epoch": epoch, "loss": total / max(counted, 1), "dev_accuracy": accuracy(model, bank.dev, options.batch_size),
            "words_per_second": words / (time.perf_counter() - started),
        }  # fmt: skip
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        print(f"epoch {epoch}: loss {entry['loss']:.3f}, {entry['dev_accuracy']:.1%} right on dev")
        if entry["dev_accuracy"] > best:
            best, best_epoch, kept = entry["dev_accuracy"], epoch, copy.deepcopy(model.state_dict())
            checkpoint.save(folder / "best.pt", {"model": kept, "words": bank.words, "relations": bank.relations})
        if epoch - best_epoch >= options.patience:
            break
    model.load_state_dict(kept)


def step(
    model: Dependents | Bag,
    optimizer: torch.optim.Optimizer,
    batch: vf.GraphBatch,
    word: Tensor,
    relation: Tensor,
    tag: Tensor,
) -> float:
    """One update; the mean loss of the words that have dependents."""
    has_dependents = heads(batch)
    logits = model.logits(batch, word, relation)[has_dependents]
    loss = cross_entropy(logits, tag[has_dependents])
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def accuracy(model: Dependents | Bag, samples: list[Sample], size: int) -> float:
    """How many of the words that have dependents are tagged right."""
    model.eval()
    right = total = 0
    for batch, word, relation, tag in DataLoader(samples, 4 * size, collate_fn=_collate):  # type: ignore[arg-type]
        has_dependents = heads(batch)
        guessed = model.logits(batch, word, relation)[has_dependents].argmax(-1)
        right += int((guessed == tag[has_dependents]).sum())
        total += len(guessed)
    return right / max(total, 1)


def heads(batch: vf.GraphBatch) -> Tensor:
    """bool [num_vertices]: the words that have dependents."""
    mask = torch.ones(batch.num_vertices, dtype=torch.bool)
    mask[batch.leaves] = False
    return mask


def count_heads(samples: list[Sample]) -> int:
    """The words that have dependents."""
    return int(heads(vf.pack([graph for graph, *_ in samples])).sum())


def most_frequent(bank: Treebank) -> float:
    """The accuracy, on the test sentences, of the tag that is most frequent among heads in training."""
    tags = []
    for part in (bank.train, bank.test):
        batch, _, _, tag = _collate(part, policy=None)
        tags.append(tag[heads(batch)])
    return float((tags[1] == tags[0].mode().values).float().mean())


def refuse(message: str) -> NoReturn:
    """Leave with one line that says what is wrong."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
