"""Train a TreeLSTM: `python -m examples.treelstm.train --help`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, TextIO

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

import vertexflow as vf

from . import checkpoint, listops, plans, ranks, sst
from .model import MODELS
from .options import RUN_SETTINGS, contradictions, parser, with_defaults
from .plot import draw_curves
from .task import Sample, Task
from .training import random_state, run_epoch, set_random_state, shared_batches


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, train, and print the test metrics. Exits with 2, and one line, on wrong options."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser().parse_args(given)
    wrong = contradictions(options, given)
    if wrong:
        refuse(wrong)
    saved = _load_run(options) if options.resume else None
    options = with_defaults(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = ranks.join(choose_device(options.device))
    folder = ranks.from_first(_run_folder(options) if ranks.is_first() else Path())
    try:
        task = load_task(options)
    except (OSError, ValueError) as error:
        refuse(str(error))
    if saved is not None and (saved["words"], saved["classes"]) != (task.words, task.classes):
        refuse(f"--resume {folder}: the data is not what this run began with; its words or classes differ")
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    model = build_model(options, len(task.words), len(task.classes)).to(device)
    try:
        plan = plans.choose(options.plan, model, task.train, options.batch_size, device)
        vf.parallel.check_same(model=model, plan=plan)
    except (OSError, ValueError, vf.VertexFlowError) as error:
        refuse(f"--plan {options.plan}: {error}")
    if not ranks.is_first():
        torch.manual_seed(options.seed * 100_003 + ranks.this())  # dropout is another on each rank
    say(
        f"{task.name}: {len(task.train)} training trees, {len(task.valid)} for validation; {options.model} with "
        f"{sum(p.numel() for p in model.parameters()):,} parameters on {ranks.count()} x {device.type}; run folder {folder}"
    )
    if options.plan:
        say(str(plan))
    try:
        train(options, task, model, plan, device, folder, saved)
    except KeyboardInterrupt:
        say(f"\nstopped; continue with --resume {folder}", file=sys.stderr)
        sys.exit(130)
    except FloatingPointError as error:
        say(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    report(options, task, model, device, folder)
    ranks.leave()


def train(
    options: argparse.Namespace,
    task: Task,
    model: torch.nn.Module,
    plan: vf.parallel.Plan,
    device: torch.device,
    folder: Path,
    saved: Any,
) -> None:
    """Epochs of training and validation, until the last or until nothing has become better for `--patience` epochs."""
    try:
        call = plans.apply(plan, model, device)
    except vf.VertexFlowError as error:
        refuse(f"--plan {options.plan}: {error}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    history: list[dict[str, Any]] = []
    best, best_epoch = -1.0, 0
    if saved is not None:
        plans.load(model, saved["model"])
        plans.load_optimizer(model, optimizer, saved["optimizer"])
        if ranks.this() < len(saved["random"]):  # the run may have had fewer ranks
            set_random_state(saved["random"][ranks.this()], device)
        history, best, best_epoch = saved["history"], saved["best"], saved["best_epoch"]
        _write_metrics(folder, history)  # forgets an epoch that was cut off
    sampler = vf.parallel.BalancedSampler(task.train, options.batch_size, seed=options.seed * 100_003)
    trained_on = shared_batches(task.train, sampler)
    valid = evaluated(task.valid, options)
    vf.parallel.check_same(model=model, sampler=sampler, epochs=options.epochs, done=len(history))

    def save_last() -> None:
        state = {
            "optimizer": plans.state_of_optimizer(model, optimizer),
            "random": ranks.from_all(random_state(device)),
            "history": history,
        }
        _save(folder / "last.pt", _checkpoint(options, task, model) | state | {"best": best, "best_epoch": best_epoch})

    if saved is None:
        save_last()  # a run can be resumed from its first moment
    for epoch in range(len(history) + 1, options.epochs + 1):
        if epoch - best_epoch > options.patience:
            say(f"no better epoch since {best_epoch}: stopping early")
            break
        sampler.set_epoch(epoch)
        started = time.perf_counter()
        trained = run_epoch(call, trained_on, device, f"epoch {epoch}", optimizer)
        checked = run_epoch(model, valid, device, "validation")
        history.append(
            {
                "epoch": epoch,
                "train": asdict(trained),
                "valid": asdict(checked),
                "seconds": time.perf_counter() - started,
            }
        )
        if checked.root_accuracy > best:
            best, best_epoch = checked.root_accuracy, epoch
            _save(folder / "best.pt", _checkpoint(options, task, model))
        save_last()
        _write_metrics(folder, history)
        if ranks.is_first():
            draw_curves(history, folder / "curves.png")
        say(
            f"epoch {epoch}: loss {trained.loss:.4f}, validation loss {checked.loss:.4f}, root accuracy "
            f"{checked.root_accuracy:.4f}{' (best)' if best_epoch == epoch else ''}, {trained.trees_per_second:.0f} trees/s"
        )


def report(options: argparse.Namespace, task: Task, model: torch.nn.Module, device: torch.device, folder: Path) -> None:
    """Evaluate the best epoch's model and print a table."""
    ranks.from_first(None)  # waits until it is written
    plans.load(model, checkpoint.load(folder / "best.pt", device)["model"])
    tested = run_epoch(model, evaluated(task.test, options), device, "test")
    if not ranks.is_first():
        return
    (folder / "test.json").write_text(json.dumps(asdict(tested)) + "\n")
    table = Table(title=f"{task.name}, {options.model}: {task.test_name}, {len(task.test)} trees")
    for column in ("loss", "root accuracy", "vertex accuracy"):
        table.add_column(column, justify="right")
    table.add_row(f"{tested.loss:.4f}", f"{tested.root_accuracy:.4f}", f"{tested.vertex_accuracy:.4f}")
    Console().print(table)


def evaluated(samples: Sequence[Sample], options: argparse.Namespace) -> DataLoader[Sample]:
    """The batches of validation and test, each shared by all ranks."""
    return shared_batches(samples, vf.parallel.BalancedSampler(samples, 2 * options.batch_size, shuffle=False))


def say(text: str, file: TextIO | None = None) -> None:
    """Print, once for all ranks."""
    if ranks.is_first():
        print(text, file=file)


def load_task(options: argparse.Namespace) -> Task:
    """The data that the options ask for."""
    if options.dataset == "sst":
        return sst.load(options.data, options.binary)
    return listops.load(options.train_size, options.max_depth, options.seed)


def build_model(options: argparse.Namespace, vocabulary: int, num_classes: int) -> vf.VertexFunction:
    """The model that the options ask for."""
    return MODELS[options.model](vocabulary, options.embed, options.hidden, num_classes, options.dropout)


def choose_device(name: str) -> torch.device:
    """`auto` is a GPU if there is one; a device that is not there is refused."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        refuse(f"--device {name}: {str(error).splitlines()[0]}")
    return device


def refuse(message: str) -> NoReturn:
    """Leave with one line that says what is wrong."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _run_folder(options: argparse.Namespace) -> Path:
    if options.resume:
        return Path(options.resume)
    name = f"{options.dataset}-{options.model}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(options.out or Path("runs") / name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        refuse(f"{folder} is in use; continue that run with --resume {folder}, or choose another --out")
    return folder


def _load_run(options: argparse.Namespace) -> Any:
    """The last checkpoint of the run to be resumed, whose settings replace the options that may not change."""
    path = Path(options.resume) / "last.pt"
    saved = load_checkpoint(path, f"--resume {options.resume}")
    for name, value in saved["options"].items():
        if name not in RUN_SETTINGS or getattr(options, name) is None:
            setattr(options, name, value)
    return saved


def load_checkpoint(path: Path, option: str) -> Any:
    """Read a checkpoint; anything else is refused with a message that begins with `option`, as given on the command line."""
    if not path.exists():
        refuse(f"{option}: there is no {path}")
    try:
        saved = checkpoint.load(path)
        saved["model"], saved["options"]
    except Exception as error:  # a damaged file can fail in any way
        refuse(f"{option}: {path} is no checkpoint of this program ({type(error).__name__})")
    return saved


def _checkpoint(options: argparse.Namespace, task: Task, model: torch.nn.Module) -> dict[str, Any]:
    return {
        "model": plans.state(model), "options": vars(options) | {"resume": None, "plan": None}, "words": task.words,
        "classes": task.classes,
    }  # fmt: skip


def _save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint, once for all ranks."""
    if ranks.is_first():
        checkpoint.save(path, content)


def _write_metrics(folder: Path, history: list[dict[str, Any]]) -> None:
    if not ranks.is_first():
        return
    lines = "".join(json.dumps(entry) + "\n" for entry in history)
    partial = folder / "metrics.partial"
    partial.write_text(lines)
    partial.replace(folder / "metrics.jsonl")


if __name__ == "__main__":
    main()
