"""Train the parser, and a bag of leaves to compare it with: `python -m examples.spinn.train --help`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from tqdm import tqdm

from . import checkpoint
from .data import Sentences, batches, load
from .listops import UNLABELLED
from .model import Bag, Parser
from .parser import Choose, Parse, follow_gold, gold, mixed, parse, random_actions


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.train",
        description="Train a shift-reduce parser that computes the value of ListOps expressions as it parses them. "
        "Writes model.pt and results.json into the run's folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--train-size", type=int, default=10_000, metavar="N", help="training sentences")
    parser.add_argument("--max-depth", type=int, default=4, metavar="N", help="levels of nested lists")
    parser.add_argument("--max-tokens", type=int, default=30, metavar="N", help="of a sentence")
    parser.add_argument("--hidden", type=int, default=128, metavar="N", help="hidden units")
    parser.add_argument("--embed", type=int, default=32, metavar="N", help="size of token embeddings")
    parser.add_argument("--epochs", type=int, default=15, metavar="N", help="times through the training sentences")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="sentences that advance together")
    parser.add_argument("--lr", type=float, default=3e-3, metavar="X", help="learning rate of Adam, which falls to 0")
    parser.add_argument(
        "--own", type=float, default=0.5, metavar="P", help="share of own actions in the last epoch; it rises from 0"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the data, the weights, the order and the actions")
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of the run (default: runs/spinn-<time>)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both models and print how well they do on the test sentences."""
    parser = options()
    chosen = parser.parse_args(arguments)
    if min(chosen.train_size, chosen.hidden, chosen.embed, chosen.epochs, chosen.batch_size) < 1:
        parser.error("sizes and --epochs are at least 1")
    folder = chosen.out or Path("runs") / f"spinn-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        parser.error(f"{folder} is in use; choose another --out")
    try:
        trained_on, valid, test = load(chosen.train_size, chosen.max_depth, chosen.max_tokens, chosen.seed)
    except ValueError as error:
        parser.error(str(error))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(trained_on)} training sentences, {len(valid)} for validation; run folder {folder}")

    torch.manual_seed(chosen.seed)
    model = Parser(chosen.embed, chosen.hidden)
    train(model, trained_on, valid, chosen)
    checkpoint.save(folder / "model.pt", {"model": model.state_dict(), "options": vars(chosen) | {"out": str(folder)}})
    bag = Bag(chosen.embed, chosen.hidden)
    train_bag(bag, trained_on, chosen)
    majority = np.bincount(trained_on.answer).argmax()
    results = {
        "own actions": evaluate(model, test, model.choose),
        "gold actions": evaluate(model, test, follow_gold(test)),
        "random actions": evaluate(model, test, random_actions(np.random.default_rng(chosen.seed))),
        "bag of leaves": {"value": evaluate_bag(bag, test)},
        "most frequent value": {"value": float((test.answer == majority).mean())},
    }
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report(results, len(test))


def train(model: Parser, trained_on: Sentences, valid: Sentences, chosen: argparse.Namespace) -> None:
    """Epochs of training, with more and more of the model's own actions among the gold ones."""
    optimizer, schedule = optimiser(model, len(trained_on), chosen)
    rng = np.random.default_rng(chosen.seed)
    for epoch in range(chosen.epochs):
        own = chosen.own * epoch / max(chosen.epochs - 1, 1)
        started, done, losses = time.perf_counter(), 0, np.zeros(2)
        with tqdm(total=len(trained_on), desc=f"epoch {epoch + 1}", leave=False, unit="sentence") as progress:
            for batch in batches(trained_on, chosen.batch_size, rng):
                parsed = parse(model.compose, batch, mixed(model.choose, follow_gold(batch), own, rng))
                of_actions, of_values = loss(model, batch, parsed)
                optimizer.zero_grad()
                (of_actions + of_values).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                done += len(batch)
                losses += len(batch) * np.array([of_actions.item(), of_values.item()])
                progress.update(len(batch))
                progress.set_postfix_str("loss of actions {:.4f}, of values {:.3f}".format(*losses / done))
        seconds = time.perf_counter() - started
        shares = evaluate(model, valid, model.choose)
        print(
            f"epoch {epoch + 1}: loss of actions {losses[0] / done:.4f}, of values {losses[1] / done:.4f}; with own actions "
            f"{shares['value']:.4f} of values, {shares['parse']:.4f} of parses; {seconds:.0f} s, {done / seconds:.0f} sentences/s"
        )


def loss(model: Parser, sentences: Sentences, parsed: Parse) -> tuple[Tensor, Tensor]:
    """Of the actions, where two were allowed, and of the values of digits and whole lists that the parse contains."""
    states = parsed.states.where(parsed.states.free)
    scores = model.scores(parsed.run, states)
    of_actions = F.cross_entropy(scores, torch.from_numpy(gold(sentences, states)))
    values, vertices = values_of(sentences, parsed)
    return of_actions, F.cross_entropy(model.answer(parsed.run[vertices].h), values)


def values_of(sentences: Sentences, parsed: Parse) -> tuple[Tensor, Tensor]:
    """Values of the vertices that are a digit or a whole list, and their numbers."""
    whole = parsed.end == sentences.reach[parsed.begin]
    values = np.where(whole, sentences.value[parsed.begin], UNLABELLED)
    vertices = np.flatnonzero(values != UNLABELLED)
    return torch.from_numpy(values[vertices]), torch.from_numpy(vertices)


@torch.no_grad()
def evaluate(model: Parser, sentences: Sentences, choose: Choose) -> dict[str, float]:
    """Shares that are right: of values at roots, of whole parses, and of actions where two were allowed."""
    parsed = parse(model.compose, sentences, choose)
    answers = model.answer(parsed.run[parsed.root].h).argmax(-1).numpy()
    free = parsed.states.free
    wrong = free & (parsed.action != gold(sentences, parsed.states))
    parses = np.bincount(parsed.states.sentence, wrong, len(sentences)) == 0
    return {
        "value": float((answers == sentences.answer).mean()),
        "parse": float(parses.mean()),
        "action": float(1 - wrong.sum() / free.sum()),
    }


def train_bag(bag: Bag, trained_on: Sentences, chosen: argparse.Namespace) -> None:
    """The same epochs for the bag of leaves, with the same values to learn from."""
    optimizer, schedule = optimiser(bag, len(trained_on), chosen)
    rng = np.random.default_rng(chosen.seed)
    for _ in tqdm(range(chosen.epochs), desc="bag of leaves", leave=False, unit="epoch"):
        for batch in batches(trained_on, chosen.batch_size, rng):
            begin = np.flatnonzero(batch.value != UNLABELLED)
            scores = bag(batch.token, begin, batch.reach[begin])
            optimizer.zero_grad()
            F.cross_entropy(scores, torch.from_numpy(batch.value[begin])).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


@torch.no_grad()
def evaluate_bag(bag: Bag, sentences: Sentences) -> float:
    scores = bag(sentences.token, sentences.offset[:-1], sentences.offset[1:])
    return float((scores.argmax(-1).numpy() == sentences.answer).mean())


def optimiser(
    model: nn.Module, train_size: int, chosen: argparse.Namespace
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam, with a learning rate that falls to 0 along a cosine."""
    adam = torch.optim.Adam(model.parameters(), lr=chosen.lr)
    steps = chosen.epochs * -(-train_size // chosen.batch_size)
    return adam, torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)


def report(results: dict[str, dict[str, float]], count: int) -> None:
    table = Table(title=f"{count} test sentences, % right")
    table.add_column()
    for column in ("value at the root", "whole parse", "single actions"):
        table.add_column(column, justify="right")
    for name, measured in results.items():
        shares = (measured.get(key) for key in ("value", "parse", "action"))
        table.add_row(name, *("" if share is None else f"{100 * share:.2f}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()
