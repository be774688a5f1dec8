"""Predict the logP of molecules: `python -m examples.molecules.train --help`."""

from __future__ import annotations

import argparse
import copy
import functools
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.utils.data import DataLoader
from tqdm import tqdm

import vertexflow as vf

from .data import Molecule, Molecules, load
from .model import MODELS

_collate = functools.partial(vf.collate, rows=("cluster", "atom", "bond"))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog=f"python -m {__package__}.train",
        description="Predict the logP of molecules from their junction trees, beside three baselines. Writes metrics.jsonl and "
        "logp.png.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    options.add_argument(
        "--data", type=Path, default=os.environ.get("VERTEXFLOW_DATA"), metavar="PATH",
        help="a file with a SMILES a line, or a folder with zinc/valid.txt; or set VERTEXFLOW_DATA",
    )  # fmt: skip
    options.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="what is trained")
    options.add_argument("--size", type=int, default=128, metavar="N", help="of embeddings and messages")
    options.add_argument("--epochs", type=int, default=20, metavar="N", help="through all molecules to train on")
    options.add_argument("--batch-size", type=int, default=64, metavar="N", help="molecules a step")
    options.add_argument(
        "--lr", type=float, default=1e-3, metavar="X", help="learning rate of Adam at first; falls to 0"
    )
    options.add_argument("--limit", type=int, metavar="N", help="only the first N molecules")
    options.add_argument("--seed", type=int, default=0, help="of the split, the weights and the order")
    options.add_argument("--cache", type=Path, default=Path("runs"), metavar="PATH", help="folder for what RDKit made")
    options.add_argument("--out", type=Path, metavar="RUN", help="folder of the run (default: runs/molecules-<time>)")
    return options


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, print, draw, and return the mean absolute error of each model on the test molecules."""
    options = parser().parse_args(arguments)
    _check(options)
    try:
        molecules = load(options.data, options.cache, options.seed, options.limit)
    except (OSError, ValueError) as error:
        refuse(f"--data {options.data}: {error}")
    folder = options.out or Path("runs") / f"molecules-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True, exist_ok=True)
    print(
        f"{len(molecules.train)}, {len(molecules.dev)} and {len(molecules.test)} molecules to train on, to choose and to test; "
        f"{len(molecules.clusters)} clusters, {len(molecules.atoms)} sorts of atoms; run folder {folder}"
    )
    truth = torch.tensor([molecule.logp for molecule in molecules.test])
    errors, predicted = {}, {}
    for name in options.models:
        torch.manual_seed(options.seed)
        model = MODELS[name](len(molecules.clusters), len(molecules.atoms), options.size)
        seconds = train(name, model, molecules, options, folder)
        predicted[name] = predict(model, molecules.test, options.batch_size)
        errors[name] = float((predicted[name] - truth).abs().mean())
        explained = 1 - float((predicted[name] - truth).square().sum() / (truth - truth.mean()).square().sum())
        print(
            f"{name}: off by {errors[name]:.3f} on test molecules, {explained:.2%} of the variance explained; "
            f"{len(molecules.train) * options.epochs / seconds:,.0f} molecules a second"
        )
    spread = float((truth - truth.median()).abs().mean())
    print(f"the median of all: off by {spread:.3f}")
    draw(truth, predicted, errors, folder / "logp.png")
    return errors


def _check(options: argparse.Namespace) -> None:
    if options.data is None:
        refuse("--data PATH is missing: a file with a SMILES a line, or a folder with zinc/valid.txt")
    if min(options.size, options.epochs, options.batch_size) < 1:
        refuse("--size, --epochs and --batch-size are at least 1")
    if options.seed < 0 or not 0 < options.lr <= 1:
        refuse("--seed is at least 0, --lr above 0 and at most 1")


def refuse(message: str) -> NoReturn:
    """End with a line instead of a traceback."""
    print(message, file=sys.stderr)
    raise SystemExit(2)


def train(name: str, model: nn.Module, molecules: Molecules, options: argparse.Namespace, folder: Path) -> float:
    """Train a model, and leave it as it was in its best epoch; returns how long the steps took, in seconds."""
    scale = torch.tensor([molecule.logp for molecule in molecules.train])
    with torch.no_grad():  # begin with the mean
        model.guess[-1].bias.fill_(float(scale.mean()))  # type: ignore[index,union-attr]
    order = torch.Generator().manual_seed(options.seed)
    loader: DataLoader[Molecule] = DataLoader(
        molecules.train,  # type: ignore[arg-type]  # a list has all that a Dataset needs
        batch_size=options.batch_size, shuffle=True, generator=order, collate_fn=_collate,
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * len(loader))
    best, best_state, seconds = float("inf"), copy.deepcopy(model.state_dict()), 0.0
    for epoch in range(1, options.epochs + 1):
        model.train()
        total, started = 0.0, time.perf_counter()
        for batch in tqdm(loader, desc=f"{name}, epoch {epoch}", leave=False, unit="batch", disable=None):
            loss = l1_loss(model(batch), batch.logp.float())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            decay.step()
            total += float(loss.detach()) * len(batch.logp)
        seconds += time.perf_counter() - started
        truth = torch.tensor([molecule.logp for molecule in molecules.dev])
        error = float((predict(model, molecules.dev, options.batch_size) - truth).abs().mean())
        entry = {"model": name, "epoch": epoch, "train_error": total / len(molecules.train), "dev_error": error}
        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if error < best:
            best, best_state = error, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return seconds


@torch.no_grad()
def predict(model: nn.Module, molecules: list[Molecule], size: int) -> Tensor:
    """The logP of each molecule, [number of molecules]."""
    model.eval()
    loader: DataLoader[Any] = DataLoader(molecules, 4 * size, collate_fn=_collate)  # type: ignore[arg-type]
    return torch.cat([model(batch) for batch in loader])


def draw(truth: Tensor, predicted: dict[str, Tensor], errors: dict[str, float], path: Path) -> None:
    """Predicted over true values, a panel for each model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(predicted), figsize=(3 * len(predicted), 3.2), sharex=True, sharey=True, squeeze=False
    )
    ends = [float(truth.min()), float(truth.max())]
    for panel, (name, values) in zip(panels[0], predicted.items(), strict=True):
        panel.plot(ends, ends, color="0.8", linewidth=1)
        panel.scatter(truth, values, s=3, alpha=0.4, linewidths=0)
        panel.set(title=f"{name}\noff by {errors[name]:.3f}", xlabel="logP")
    panels[0][0].set_ylabel("predicted")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
