"""Processor seconds to an accuracy on ListOps: batch sizes that follow the noise of the gradients, and fixed ones.

    python -m benchmarks.goodput                             # AdamW, hidden 64, to 90 % of the validation trees
    python -m benchmarks.goodput --optimizer sgd --lr 0.05 --hidden 32 --train-size 4000 --accuracy 0.65

A binary TreeLSTM on one thread. In all runs the learning rate is the one for batches of 16 times AdaScale's gain, of which
AdamW takes the square root (as Pollux scales AdamW's), so that they differ in their batch size alone. The noise is that of the
optimizer's steps. "chosen" asks
`vf.parallel.best_batch` every 20 steps, with the graphs a second that each size was measured to have before. Each step is in two
parts, which show the noise. Seconds are those of the processor in training steps: neither other processes, nor validation,
nor the first call, nor that measurement counts.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

import vertexflow as vf
from examples.treelstm import listops
from examples.treelstm.model import TreeLSTM
from examples.treelstm.task import UNLABELLED, Sample, Task

SIZES = (16, 32, 64, 128, 256, 512)
BASE = SIZES[0]
CHOSEN = 20  # steps, after which a size is chosen again
CHECKED = 1000  # graphs, after which validation comes

# An optimiser, and the power of AdaScale's gain by which its learning rate grows.
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], float], tuple[torch.optim.Optimizer, float]]] = {
    "sgd": lambda parameters, lr: (torch.optim.SGD(parameters, lr=lr, momentum=0.9), 1.0),
    "adamw": lambda parameters, lr: (torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0), 0.5),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.goodput", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accuracy", type=float, default=0.9, help="of the roots of the validation trees")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--train-size", type=int, default=10_000)
    parser.add_argument("--max-depth", type=int, default=2, help="levels of nested lists")
    parser.add_argument("--optimizer", choices=["adamw", "sgd"], default="adamw", help="SGD has a momentum of 0.9")
    parser.add_argument("--lr", type=float, default=2e-3, help="for batches of 16")
    parser.add_argument("--limit", type=float, default=600, help="processor seconds of a run")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="of the runs of one batch size each")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    task = listops.load(options.train_size, options.max_depth, seed=0)
    rates = measured(task, options)
    print("graphs a second:", ", ".join(f"{size}: {rate:.0f}" for size, rate in rates.items()))
    print(f"{'batch':>8}  {'seconds':>8}  {'graphs':>8}  {'steps':>6}  sizes and noise on the way")
    for sizes in (rates, *({size: rates[size]} for size in options.sizes)):
        for seed in range(options.seeds):
            name = "chosen" if len(sizes) > 1 else str(*sizes)
            print(f"{name:>8}  {trained(task, options, sizes, seed)}", flush=True)


def measured(task: Task, options: argparse.Namespace) -> dict[int, float]:
    """Graphs a second of training steps with each batch size, by turns: other processes slow down now these, now those."""
    run = Run(task, options, seed=0)
    rounds = [[run.step(size) for size in SIZES] for _ in range(10)]
    return {size: size / min(seconds) for size, seconds in zip(SIZES, zip(*rounds, strict=True), strict=True)}


class Run:
    """A model that is trained, from the first step on."""

    def __init__(self, task: Task, options: argparse.Namespace, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = TreeLSTM(len(task.words), options.hidden, options.hidden, len(task.classes), 0.0)
        self.rate = options.lr
        self.optimizer, self.power = OPTIMIZERS[options.optimizer](self.model.parameters(), self.rate)
        self.order = endless(task.train, seed)
        losses_of(self.model, task.train[:4]).mean().backward()  # compiles
        self.noise = vf.parallel.GradientNoise(self.model, optimizer=self.optimizer)

    def step(self, size: int) -> float:
        """A step of two parts; its processor seconds."""
        started = time.process_time()
        parts = [[next(self.order) for _ in range(size // 2)] for _ in range(2)]
        rows = sum(int((labels != UNLABELLED).sum()) for part in parts for *_, labels in part)
        self.optimizer.zero_grad()
        for part in parts:
            losses = losses_of(self.model, part)
            (losses.sum() / rows).backward()
            self.noise.add(len(losses))
        self.noise.update(size)
        self.optimizer.param_groups[0]["lr"] = self.rate * vf.parallel.gain(self.noise.scale, size, BASE) ** self.power
        self.optimizer.step()
        return time.process_time() - started


def trained(task: Task, options: argparse.Namespace, rates: dict[int, float], seed: int) -> str:
    """Train to the accuracy; returns a line of seconds, graphs, steps and batch sizes."""
    run = Run(task, options, seed)
    seconds, graphs, steps, checked, size = 0.0, 0, 0, 0, BASE
    progress: list[str] = []
    while seconds < options.limit:
        if steps % CHOSEN == 0:
            size = vf.parallel.best_batch(rates, run.noise.scale, BASE)
        seconds, graphs, steps = seconds + run.step(size), graphs + size, steps + 1
        if graphs // CHECKED > checked:
            checked = graphs // CHECKED
            if checked % 5 == 1:
                progress.append(f"{size}/{run.noise.scale:.0f}")
            if accuracy_of(run.model, task.valid) >= options.accuracy:
                return f"{seconds:8.1f}  {graphs:8}  {steps:6}  {' '.join(progress)}"
    return f"     not  {graphs:8}  {steps:6}  at {accuracy_of(run.model, task.valid):.3f}; {' '.join(progress)}"


def endless(samples: list[Sample], seed: int) -> Iterator[Sample]:
    """The samples in a new order each time."""
    rng = random.Random(seed)
    while True:
        yield from rng.sample(samples, len(samples))


def losses_of(model: TreeLSTM, samples: list[Sample]) -> torch.Tensor:
    """The loss of each labelled vertex."""
    batch, tokens, labels = vf.collate(samples, rows=(1, 2))
    known = labels != UNLABELLED
    return F.cross_entropy(model(batch, token=tokens).logits[known], labels[known], reduction="none")


@torch.no_grad()
def accuracy_of(model: TreeLSTM, samples: list[Sample]) -> float:
    """Of the roots."""
    batch, tokens, labels = vf.collate(samples, rows=(1, 2))
    model.eval()
    hits = model(batch, token=tokens).logits.argmax(-1) == labels
    model.train()
    return float(hits[batch.roots].double().mean())


if __name__ == "__main__":
    main()
