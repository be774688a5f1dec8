"""Contestants for one task: they agree first, then run in turns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import vertexflow as vf
from vertexflow.kernels.memory import pool

from .device import graphed, peak, seconds_of
from .floor import Product, bound_ms, ceilings, floor

FLOOR = "floor"
OURS = "vertexflow"
RATE = 1e-3  # of the updates
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10, torch.bfloat16: 2e-2, torch.float16: 2e-2}
TF32 = 5e-3  # of float32, where products are allowed to be in TF32


@dataclass(frozen=True)
class Settings:
    """What a workload is made from."""

    hidden: int = 256
    batch: int = 64
    seed: int = 0
    dtype: torch.dtype = torch.float32
    data: Path | None = None
    compile: bool = False  # with peers under torch.compile
    device: str = "cpu"

    def randn(self, *shape: int) -> Tensor:
        """Normal numbers, where they belong."""
        return torch.randn(*shape, dtype=self.dtype).to(self.device)

    def place(self, module: nn.Module) -> Any:
        """A module, where it belongs."""
        return module.to(self.device, self.dtype)


@dataclass(frozen=True)
class Contestant:
    """One way to do the task.

    Attributes:
        name: what tables call it.
        forward: the outputs; the loss is the mean of their squares, in whatever order they come.
        train: where the derivative is written by hand: the outputs, with all gradients left in `.grad`.
        every: takes part in each so-many-th round; more than 1 for what is too slow to be waited for.
        by_graph: on a GPU it also takes part as a CUDA graph, captured once: nothing in it asks for values.
        weighs: its memory can be seen from outside; not where a library keeps what it frees for the next step.
    """

    name: str
    forward: Callable[[], Tensor]
    train: Callable[[], Tensor] | None = None
    every: int = 1
    by_graph: bool = False
    weighs: bool = True


@dataclass(frozen=True)
class Case:
    """A task at one setting.

    Attributes:
        title: the data, in words.
        model: has the parameters, which all contestants share.
        contestants: vertexflow, then its peers.
        products: what the floor is made of.
        kept: numbers that the forward pass must keep for the backward pass: states and gates.
        skipped: peers that cannot run here, and why.
        num_indices: numbers that tell the row of each vertex and the vertex of each row, and both ends of each edge.
        estimate: what vertexflow says beforehand of the memory of a training step, where it does.
    """

    title: str
    model: nn.Module
    contestants: Sequence[Contestant]
    products: Sequence[Product]
    kept: int
    skipped: Mapping[str, str] = field(default_factory=dict)
    num_indices: int = 0
    estimate: Callable[[], vf.MemoryEstimate] | None = None


class DisagreementError(Exception):
    """Contestants that find different losses or gradients: there is nothing to compare."""


def mean_square(outputs: Tensor) -> Tensor:
    """The loss. Beside the outputs it takes one tensor of their size at a time; `outputs.square().mean()` has three at once."""
    return mse_loss(outputs, outputs.new_zeros(()).expand_as(outputs))


def training_step(model: nn.Module, contestant: Contestant) -> Callable[[], Tensor]:
    """Gradients from nothing, and an SGD update of every parameter; returns the loss."""

    def step() -> Tensor:
        for parameter in model.parameters():
            parameter.grad = None
        if contestant.train is None:
            loss = mean_square(contestant.forward())
            loss.backward()
        else:
            loss = mean_square(contestant.train())
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:  # as `agree` made sure of
                    parameter.sub_(parameter.grad, alpha=RATE)
        return loss.detach()

    return step


def forward_pass(contestant: Contestant) -> Callable[[], Tensor]:
    """The loss alone, without gradients."""

    def run() -> Tensor:
        with torch.no_grad():
            return mean_square(contestant.forward())

    return run


def agree(case: Case) -> dict[str, float]:
    """How far each contestant is from the first: the largest relative difference of the loss and of all gradients.

    A difference is relative to the norm of what is compared.

    Raises:
        DisagreementError: one of them is above the tolerance, 1e-4 in float32 (5e-3 in TF32), 1e-10 in float64, and 2e-2 in
            half precision; all such are named.
    """
    start = {name: value.clone() for name, value in case.model.state_dict().items()}
    results: dict[str, dict[str, Tensor]] = {}
    for contestant in case.contestants:
        loss = training_step(case.model, contestant)()
        grads = {
            f"the gradient of {name}": torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for name, parameter in case.model.named_parameters()
        }
        results[contestant.name] = {"the loss": loss, "the loss after a step": forward_pass(contestant)(), **grads}
        case.model.load_state_dict(start)
    first, expected = next(iter(results.items()))
    differences: dict[str, float] = {}
    wrong = []
    for name, values in results.items():
        differences[name] = 0.0
        for quantity, value in values.items():
            difference = float(
                (value - expected[quantity]).double().norm() / expected[quantity].double().norm().clamp(min=1e-30)
            )
            differences[name] = max(differences[name], difference)
            if not difference <= tolerance(value):  # nor is NaN
                wrong.append(f"{name!r} and {first!r} differ in {quantity} by {difference:.1e}")
    if wrong:
        raise DisagreementError("; ".join(wrong))
    return differences


def tolerance(value: Tensor) -> float:
    """How far contestants may be from each other, relative to the norm."""
    is_tf32 = value.is_cuda and value.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return TF32 if is_tf32 else TOLERANCE[value.dtype]


def time_in_turns(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    every: Mapping[str, int],
    seed: int = 0,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each in each round in which it takes part, after warm-up; the order is drawn anew for every round."""
    for name, run in runs.items():
        for _ in range(3 if every.get(name, 1) == 1 else 1):
            run()
    order, rng = list(runs), random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        rng.shuffle(order)
        for name in order:
            if number % every.get(name, 1) == 0:
                seconds[name].append(seconds_of(runs[name], device, clock))
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, in milliseconds."""
    low, middle, high = np.percentile(seconds, [25, 50, 75]) * 1e3
    return {"median_ms": float(middle), "quartile_1_ms": float(low), "quartile_3_ms": float(high)}


def _make_room(model: nn.Module) -> None:
    """Let go of gradients, and of the memory that vertexflow keeps for the next step."""
    model.zero_grad()
    pool.clear()


def without_slow(case: Case, why: str) -> Case:
    """The same without contestants that go vertex by vertex."""
    slow = [one.name for one in case.contestants if one.every > 1]
    skipped = {**case.skipped, **dict.fromkeys(slow, why)}
    return replace(case, contestants=[one for one in case.contestants if one.every == 1], skipped=skipped)


def measure(case: Case, rounds: int, forward: bool, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Agree, then time and weigh every contestant; what a result says of them.

    Raises:
        DisagreementError: as `agree`.
    """
    weight = next(case.model.parameters())
    dtype, device = weight.dtype, weight.device.type
    if dtype.itemsize < 4:
        case = without_slow(case, "in half precision its gradients are too far off")  # added up, several per cent
    differences = agree(case)
    runs: dict[str, Callable[[], object]] = {FLOOR: floor(case.products, dtype, forward, device)}
    for one in case.contestants:
        runs[one.name] = forward_pass(one) if forward else training_step(case.model, one)
    for one in case.contestants:
        if one.by_graph and device == "cuda":
            runs[f"{one.name}, CUDA graph"] = graphed(runs[one.name])
    every = {one.name: one.every for one in case.contestants}
    seconds = time_in_turns(runs, rounds, every, device=device, clock=clock)
    summaries = {name: summary(values) for name, values in seconds.items()}
    weighed = {one.name for one in case.contestants if one.weighs} | {
        name for name in runs if name.endswith("CUDA graph")
    }
    figures: dict[str, Any] = {}
    for name, values in seconds.items():
        middle = summaries[name]["median_ms"]
        figures[name] = {
            **summaries[name],
            "x_floor": middle / summaries[FLOOR]["median_ms"],
            "x_vertexflow": middle / summaries[OURS]["median_ms"],
            "peak_bytes": peak(runs[name], lambda: _make_room(case.model), device) if name in weighed else None,
            "difference": differences.get(name),
            "rounds_ms": [round(value * 1e3, 4) for value in values],
        }
    weights = 0 if forward else sum(parameter.numel() for parameter in case.model.parameters())
    operations = sum(2 * p.inputs * p.outputs * p.rows if forward else p.operations for p in case.products)
    kept = 0 if forward else (case.kept + weights) * dtype.itemsize
    limits = ceilings(dtype) if device == "cuda" else {}
    return {
        "title": case.title,
        "kept_bytes": kept,
        "floor_operations": operations,
        **({"ceilings": limits, "bound_ms": bound_ms(limits, operations, kept)} if limits else {}),
        "figures": figures,
        "skipped": dict(case.skipped),
    }
