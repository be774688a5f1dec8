"""Learn signal probabilities on some circuits and predict them on another: `python -m examples.circuits.train --help`."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from tqdm import tqdm

from . import checkpoint
from .circuit import Circuit
from .data import SMALLEST, Sample, cones, join, read_folder, sample
from .model import GateProbability
from .simulate import standard_error

PATTERNS = 1 << 16  # of training and validation labels
TEST_PATTERNS = 1 << 20


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.train",
        description="Learn the probability of 1 at every gate on all circuits of a folder but one, and predict it on that one. "
        "Writes model.pt, metrics.jsonl and results.json into the run's folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    folder = os.environ.get("VERTEXFLOW_DATA")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", default=folder, required=folder is None,
        help="folder with *.aig or epfl_circuits/*.aig; the environment variable VERTEXFLOW_DATA serves as well",
    )  # fmt: skip
    parser.add_argument("--held-out", default="multiplier", metavar="NAME", help="the circuit that is not trained on")
    parser.add_argument(
        "--cones", type=int, default=400, metavar="N", help="cones from each circuit; a tenth are validation"
    )
    parser.add_argument("--gates", type=int, default=500, metavar="N", help="of a cone, at most")
    parser.add_argument("--levels", type=int, default=1000, metavar="N", help="deeper circuits are seen in cones only")
    parser.add_argument("--hidden", type=int, default=64, metavar="N", help="hidden units")
    parser.add_argument(
        "--epochs", type=int, default=32, metavar="N", help="times through the cones and the whole circuits"
    )
    parser.add_argument("--minutes", type=float, default=12.0, metavar="X", help="no epoch begins later than that")
    parser.add_argument("--batch-size", type=int, default=24, metavar="N", help="cones; a whole circuit is one batch")
    parser.add_argument("--lr", type=float, default=2e-3, metavar="X", help="learning rate of Adam, which falls to 0")
    parser.add_argument("--seed", type=int, default=0, help="of the cones, the simulation, the weights and the order")
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of the run (default: runs/circuits-<time>)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print how well the best epoch does on the circuit held out. Exits with 2, and one line, on wrong options."""
    parser = options()
    chosen = parser.parse_args(arguments)
    if min(chosen.cones, chosen.hidden, chosen.epochs, chosen.batch_size) < 1 or chosen.gates < SMALLEST:
        parser.error(f"sizes and --epochs are at least 1, and --gates {SMALLEST}")
    folder = chosen.out or Path("runs") / f"circuits-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        parser.error(f"{folder} is in use; choose another --out")
    try:
        circuits = read_folder(chosen.data)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    held_out = circuits.pop(chosen.held_out, None)
    if held_out is None or not circuits:
        there = ", ".join(circuits) or "nothing else"
        parser.error(
            f"--held-out {chosen.held_out} needs that circuit and another to train on; {chosen.data} has {there}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(chosen.seed)
    rng = np.random.default_rng(chosen.seed)
    batches, valid = training_data(list(circuits.values()), chosen, rng)
    gates = sum(one.graph.num_vertices for batch in batches for one in batch)
    print(f"{gates:,} training vertices from {', '.join(circuits)}; run folder {folder}")

    model = GateProbability(chosen.hidden)
    train(model, batches, valid, chosen, folder, rng)
    test = sample(held_out, TEST_PATTERNS, chosen.seed)
    results = errors(model, [test]) | constants(test, [one for batch in batches for one in batch])
    results["standard error"] = float(standard_error(test.simulated.double().numpy(), TEST_PATTERNS).mean())
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report(results, held_out)


def training_data(
    circuits: Sequence[Circuit], chosen: argparse.Namespace, rng: np.random.Generator
) -> tuple[list[list[Sample]], list[Sample]]:
    """Batches of cones and, one a batch, whole circuits; and the cones that choose the best epoch."""
    cut = cones(circuits, chosen.cones, chosen.gates, rng)
    whole = [one for one in circuits if len(one.levels) <= chosen.levels]
    labelled = [
        sample(one, PATTERNS, chosen.seed + number)
        for number, one in enumerate(tqdm([*cut, *whole], desc="simulating", leave=False, unit="circuit"))
    ]
    order = rng.permutation(len(cut))
    valid, rest = np.split(order, [-(-len(cut) // 10)])
    size = chosen.batch_size
    batches = [[labelled[number] for number in rest[at : at + size]] for at in range(0, len(rest), size)]
    return [*batches, *([one] for one in labelled[len(cut) :])], [labelled[number] for number in valid]


def train(
    model: GateProbability,
    batches: Sequence[Sequence[Sample]],
    valid: Sequence[Sample],
    chosen: argparse.Namespace,
    folder: Path,
    rng: np.random.Generator,
) -> None:
    """Epochs of training; leaves the model, and model.pt, as they were after the best one on the validation cones."""
    optimizer = torch.optim.Adam(model.parameters(), lr=chosen.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.epochs * len(batches))
    joined = [join(batch) for batch in batches]  # packed, and their schedules kept, once
    best, started = np.inf, time.perf_counter()
    for epoch in range(1, chosen.epochs + 1):
        if epoch > 1 and time.perf_counter() - started > 60 * chosen.minutes:
            print(f"--minutes {chosen.minutes:g} are over; the last epoch is {epoch - 1}")
            break
        total = 0.0
        with tqdm(rng.permutation(len(joined)), desc=f"epoch {epoch}", leave=False, unit="batch") as progress:
            for done, number in enumerate(progress, 1):
                batch, inputs, simulated, _ = joined[number]
                loss = (model(batch, **inputs).p.squeeze(-1) - simulated).abs().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                total += loss.item()
                progress.set_postfix_str(f"error {total / done:.4f}")
        validation = errors(model, valid)
        line: dict[str, Any] = {"epoch": epoch, "seconds": round(time.perf_counter() - started, 1)}
        line |= {
            "train": total / len(joined),
            "valid": validation["model"],
            "valid, classical": validation["independent operands"],
        }
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(
            f"epoch {epoch}: error {line['train']:.4f}; {validation['model']:.4f} on validation cones, where the classical "
            f"rule has {validation['independent operands']:.4f}; {line['seconds']:.0f} s"
        )
        if validation["model"] < best:
            best = validation["model"]
            checkpoint.save(folder / "model.pt", {"model": model.state_dict(), "hidden": chosen.hidden, "epoch": epoch})
    model.load_state_dict(checkpoint.load(folder / "model.pt")["model"])


@torch.no_grad()
def errors(model: GateProbability, samples: Sequence[Sample]) -> dict[str, float]:
    """Mean absolute errors over all gates, of the model and of the rule it begins with."""
    batch, inputs, simulated, classical = join(samples)
    return {
        "model": mean_error(model(batch, **inputs).p.squeeze(-1), simulated),
        "independent operands": mean_error(classical, simulated),
    }


def constants(test: Sample, trained_on: Iterable[Sample]) -> dict[str, float]:
    """Mean absolute errors of one half, and of the mean over all training gates, at every gate."""
    mean = torch.cat([one.simulated for one in trained_on]).mean()
    return {
        "mean of training gates": mean_error(mean, test.simulated),
        "one half": mean_error(torch.tensor(0.5), test.simulated),
    }


def mean_error(predicted: Tensor, simulated: Tensor) -> float:
    return float((predicted - simulated).abs().mean())


def report(results: dict[str, float], circuit: Circuit) -> None:
    """A table of the errors on the circuit held out."""
    table = Table(title=f"{circuit.name}, {len(circuit):,} gates: mean absolute error")
    table.add_column()
    table.add_column("error", justify="right")
    for name, error in results.items():
        table.add_row("standard error of the simulation" if name == "standard error" else name, f"{error:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
