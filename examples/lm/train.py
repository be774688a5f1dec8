"""Train the language model: `python -m examples.lm.train --help`."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from tqdm import tqdm

import vertexflow as vf

from . import checkpoint
from .command import choose_device, refuse
from .data import Corpus, Sample, batches, load, unigram_perplexity
from .model import LSTMS, LanguageModel


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.train",
        description="Train an LSTM language model on the sentences of the Stanford Sentiment Treebank. Writes best.pt and "
        "metrics.jsonl into the run's folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_data(parser)
    parser.add_argument("--model", choices=list(LSTMS), default="vertexflow", help="whose LSTM; all else is the same")
    parser.add_argument(
        "--hidden", type=int, default=256, metavar="N", help="units of a layer, columns of the embedding"
    )
    parser.add_argument("--layers", type=int, default=1, metavar="N", help="LSTM layers")
    parser.add_argument("--dropout", type=float, default=0.5, metavar="P", help="of embeddings and outputs of layers")
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="at most")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="sentences a step")
    parser.add_argument("--lr", type=float, default=3e-3, metavar="X", help="learning rate of Adam; it falls to 0")
    parser.add_argument("--patience", type=int, default=2, metavar="N", help="stop after N epochs without a better one")
    parser.add_argument("--time-limit", type=float, default=math.inf, metavar="S", help="seconds of training, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the order and dropout")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...")
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of the run (default: runs/lm-<model>-<time>)")
    return parser


def add_data(parser: argparse.ArgumentParser) -> None:
    """The option that says where the sentences are."""
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("VERTEXFLOW_DATA"), metavar="DIR",
        help="folder with train.txt and dev.txt, or with a folder sst of them; or set VERTEXFLOW_DATA",
    )  # fmt: skip


def load_or_refuse(folder: Path | None) -> Corpus:
    """The corpus; without one the program ends with a line that says why."""
    if folder is None:
        refuse("--data DIR is missing: the folder with train.txt and dev.txt of the Stanford Sentiment Treebank")
    try:
        return load(folder)
    except (OSError, vf.GraphError) as error:
        refuse(f"--data {folder}: {error}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print the perplexity of the best epoch. Exits with 2, and a line, on wrong options."""
    options = parser().parse_args(arguments)
    if min(options.hidden, options.layers, options.epochs, options.batch_size, options.patience) < 1:
        refuse("sizes, --layers, --epochs and --patience are at least 1")
    if not (0 <= options.dropout < 1 and 0 < options.lr <= 1 and options.time_limit > 0):
        refuse("--dropout is from 0 up to, not including, 1; --lr above 0, up to 1; --time-limit above 0")
    device = choose_device(options.device)
    corpus = load_or_refuse(options.data)
    folder = options.out or Path("runs") / f"lm-{options.model}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        refuse(f"--out {folder} is in use; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    model = LanguageModel(options.model, len(corpus.words), options.hidden, options.layers, options.dropout).to(device)
    print(
        f"{len(corpus.train)} sentences to train on, {len(corpus.dev)} for dev, {len(corpus.words)} words; {options.model}, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}; run folder {folder}"
    )
    try:
        best = train(model, corpus, options, device, folder)
    except FloatingPointError as error:
        raise SystemExit(f"error: {error}") from None
    print(
        f"perplexity on dev {best['dev_perplexity']:.2f} (epoch {best['epoch']}); {unigram_perplexity(corpus):.1f} of the "
        "frequencies of single words"
    )


def train(
    model: LanguageModel, corpus: Corpus, options: argparse.Namespace, device: torch.device, folder: Path
) -> dict[str, Any]:
    """Epochs until the last, or the time limit, or until nothing has become better for a while; the best epoch's metrics."""
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    order = torch.Generator().manual_seed(options.seed)
    loader, dev = batches(corpus.train, options.batch_size, order), batches(corpus.dev, 2 * options.batch_size)
    deadline = time.perf_counter() + options.time_limit
    best: dict[str, Any] = {"epoch": 0, "dev_perplexity": math.inf}
    for epoch in range(1, options.epochs + 1):
        started = time.perf_counter()
        loss, tokens = train_epoch(model, loader, optimizer, device, f"epoch {epoch}", deadline)
        seconds = time.perf_counter() - started
        falling.step()
        entry = {
            "epoch": epoch, "train_perplexity": math.exp(loss), "dev_perplexity": perplexity(model, dev, device),
            "tokens": tokens, "seconds": seconds,
        }  # fmt: skip
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        better = entry["dev_perplexity"] < best["dev_perplexity"]
        print(
            f"epoch {epoch}: perplexity {entry['train_perplexity']:.2f}, on dev {entry['dev_perplexity']:.2f}"
            f"{' (best)' if better else ''}, {tokens / seconds:.0f} tokens/s"
        )
        if better:
            best = entry
            settings = {name: getattr(options, name) for name in ("model", "hidden", "layers")}
            checkpoint.save(
                folder / "best.pt", {"model": model.state_dict(), "options": settings, "words": corpus.words}
            )
        if epoch - best["epoch"] >= options.patience or time.perf_counter() > deadline:
            break
    return best


def train_epoch(
    model: LanguageModel,
    loader: DataLoader[Sample],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    title: str,
    deadline: float = math.inf,
) -> tuple[float, int]:
    """Go once over the sentences, or until the deadline; the mean loss of a token, in nats, and the tokens seen."""
    model.train()
    total, count = 0.0, 0
    with tqdm(loader, desc=title, leave=False, unit="batch") as progress:
        for batch, tokens, targets in progress:
            loss = step(model, optimizer, batch, tokens.to(device), targets.to(device))
            total += loss * len(targets)
            count += len(targets)
            if not loss < 100:  # several times that of words at random; NaN is not below either
                raise FloatingPointError(f"{title}: the loss is {loss:.4g}; a smaller --lr may help")
            progress.set_postfix_str(f"perplexity {math.exp(total / count):.1f}")
            if time.perf_counter() > deadline:
                break
    return total / count, count


def step(
    model: LanguageModel, optimizer: torch.optim.Optimizer, batch: vf.GraphBatch, tokens: Tensor, targets: Tensor
) -> float:
    """One update; the loss of a token before it."""
    loss = cross_entropy(model(batch, tokens), targets)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def perplexity(model: LanguageModel, loader: DataLoader[Sample], device: torch.device) -> float:
    """exp of the mean loss of a token, the ends of sentences among them."""
    model.eval()
    total, count = 0.0, 0
    for batch, tokens, targets in loader:
        total += cross_entropy(model(batch, tokens.to(device)), targets.to(device), reduction="sum").item()
        count += len(targets)
    return math.exp(total / count)


if __name__ == "__main__":
    main()
