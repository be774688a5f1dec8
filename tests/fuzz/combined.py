"""Ways that mix calls: of other batches, of some outputs, of some rows of a loss, of two models at once."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from unittest import mock

import torch

import vertexflow as vf
from vertexflow.call import readouts
from vertexflow.graph.symbolic import readout

from .call import Call
from .inputs import Leaves

Gradients = dict[str, torch.Tensor | None]


def add(total: Gradients, gradients: Iterable[tuple[str, torch.Tensor | None]]) -> None:
    """Add gradients to others by name."""
    for name, value in gradients:
        before = total.get(name)
        total[name] = value if before is None else before if value is None else before + value


def alternating(call: Call) -> None:
    """With calls of another batch between, whose memory is that of this one before and after."""
    call.model.max_vertices = call.rng.choice([None, None, 1, 3, 7])
    try:
        other = Call(call.model, call.function, _other(call), call.expected, call.batch, call.rng)
        other.batch = vf.pack(other.sample.graphs())
        waiting: list[Leaves] = []
        for _ in range(3):
            first = call.run()
            between = other.run()
            if call.rng.random() < 0.5:
                waiting.append(between)
            elif any(value.requires_grad for value in between.values()):
                sum(value.sum() for value in between.values() if value.requires_grad).backward()  # type: ignore[union-attr]
            call.check(first)
        call.check(call.run())
    finally:
        call.model.max_vertices = None
        for leaf in call.leaves().values():
            leaf.grad = None


def _other(call: Call) -> Any:
    """A sample of some of the graphs, each once or twice, in any order, with other numbers."""
    sample, rng = call.sample, call.rng
    sizes = [part.num_vertices for part in sample.parts]
    firsts = [sum(sizes[:at]) for at in range(len(sizes))]
    chosen = [rng.randrange(len(sizes)) for _ in range(rng.randint(1, 2 * len(sizes)))]
    kinds = None
    if sample.kinds is not None:
        kinds = [kind for at in chosen for kind in sample.kinds[firsts[at] : firsts[at] + sizes[at]]]
    return replace(sample, parts=[sample.parts[at] for at in chosen], kinds=kinds, seed=sample.seed + 1)


def parts_of_a_loss(call: Call) -> None:
    """Some rows of some outputs, then the others; gradients add up."""
    call.model.max_vertices = call.rng.choice([None, None, 1, 3])
    try:
        outputs, leaves = call.run(), call.leaves()
        call.check_values(outputs)
        wanted = [name for name, leaf in leaves.items() if leaf.requires_grad]
        generator = torch.Generator().manual_seed(call.rng.randrange(1000))
        share = call.rng.choice([0.0, 0.2, 0.5])
        masks = {
            name: (torch.rand(len(weight), generator=generator) < share).view(-1, *[1] * (weight.dim() - 1))
            for name, weight in call.expected.weights.items()
        }
        total: Gradients = dict.fromkeys(call.expected.gradients)
        for number in range(2):
            given = {
                name: weight.masked_fill(masks[name] == bool(number), 0)
                for name, weight in call.expected.weights.items()
            }
            if number:  # those without any are left out
                given = {name: value for name, value in given.items() if call.rng.random() < 0.5 or value.any()}
            if not (given and wanted):
                continue
            gradients = torch.autograd.grad(
                [outputs[name] for name in given],
                [leaves[name] for name in wanted],
                [*given.values()],
                allow_unused=True,
                retain_graph=not number or call.rng.random() < 0.5,
            )
            add(total, zip(wanted, gradients, strict=True))
        call.check_gradients(total)
    finally:
        call.model.max_vertices = None


def apart(way: Callable[[Call], None]) -> Callable[[Call], None]:
    """A way in which, mostly, what only outputs need is computed apart, however little that is."""

    @functools.wraps(way)
    def in_two(call: Call) -> None:
        if call.rng.random() < 0.3:
            return way(call)
        with mock.patch.multiple(readouts, _RUN=0, _MOVED=0), mock.patch.object(readout, "_operations", return_value=1):
            way(call)

    return in_two


@apart
def selections(call: Call) -> None:
    """Each vertex in one of several selections, of several forms, which may be empty; gradients add up."""
    count, rng, leaves = call.batch.num_vertices, call.rng, call.leaves()
    groups = rng.choice([1, 2, 3])
    group_of = [rng.randrange(groups) for _ in range(count)]
    wanted = [name for name, leaf in leaves.items() if leaf.requires_grad]
    total: Gradients = dict.fromkeys(call.expected.gradients)
    call.model.max_vertices = rng.choice([None, None, 1, 2, 5])
    try:
        for group in range(groups):
            chosen = [vertex for vertex in range(count) if group_of[vertex] == group]
            if rng.random() < 0.3:
                selection = torch.tensor([one == group for one in group_of])
            else:
                chosen += [rng.choice(chosen) for _ in range(rng.randrange(4)) if chosen]
                rng.shuffle(chosen)
                selection = torch.tensor(chosen, dtype=rng.choice([torch.int64, torch.int32]))
            for _ in range(rng.choice([1, 2])):  # the second is recalled
                outputs = call.run(given={**call.arguments(), "outputs": selection})
                losses = _of_selected(call, outputs, chosen, is_first=not group)
            if losses and wanted:
                gradients = torch.autograd.grad(
                    [loss for loss, _ in losses],
                    [leaves[name] for name in wanted],
                    [weight for _, weight in losses],
                    allow_unused=True,
                )
                add(total, zip(wanted, gradients, strict=True))
        call.check_gradients(total)
    finally:
        call.model.max_vertices = None


def _of_selected(
    call: Call, outputs: Leaves, chosen: list[int], is_first: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Checks outputs of chosen vertices; returns them with their share in the loss."""
    losses = []
    for name, value in call.expected.outputs.items():
        weight = call.expected.weights.get(name)
        assert name in outputs, f"{name} is missing"
        if name.startswith("edge_"):  # which come for all edges
            call.expected.compare(name, outputs[name], value)
            if weight is not None and is_first:
                losses.append((outputs[name], weight))
            continue
        pushing = pushing_vertices(call, name)
        place = {vertex: at for at, vertex in enumerate(pushing)}
        rows = [place[vertex] for vertex in chosen if vertex in place]
        assert len(outputs[name]) == len(rows), f"{name} of {len(rows)} has {len(outputs[name])} rows"
        if rows:
            whole = value.detach().clone()
            for at, row in enumerate(rows):
                whole[row] = outputs[name][at].detach()
                assert torch.equal(outputs[name][at].nan_to_num(0.5), outputs[name][rows.index(row)].nan_to_num(0.5)), (
                    f"{name} of a vertex that was asked for twice"
                )
            call.expected.compare(name, whole, value)
            if weight is not None:
                times = torch.tensor([rows.count(row) for row in rows]).view(-1, *[1] * (weight.dim() - 1))
                losses.append((outputs[name], (weight[rows] / times).to(weight.dtype)))
    return [(value, weight) for value, weight in losses if value.requires_grad]


def pushing_vertices(call: Call, name: str) -> list[int]:
    """The vertices that push an output."""
    kinds, methods = call.sample.kinds, call.function.methods
    pushing = [kind for kind, method in methods.items() if name in [push[0] for push in method.push]]
    return [vertex for vertex in range(call.sample.count) if kinds is None or kinds[vertex] in pushing]


def two_models(call: Call) -> None:
    """Another model with the same weights, of which none, or some, want gradients, computes the same batch in between."""
    other = copy.deepcopy(call.model)
    other.backend = call.rng.choice([call.model.backend, "torch", call.model.backend])
    other.policy = call.rng.choice([call.model.policy, "depth"])
    for parameter in other.parameters():
        parameter.requires_grad_(parameter.requires_grad and call.rng.random() < 0.4)
    first, theirs = call.run(), call.run(other)
    call.check_values(theirs)
    second = call.run()
    differentiable = {
        name: value for name, value in theirs.items() if name in call.expected.weights and value.requires_grad
    }
    leaves = {name: leaf for name, leaf in call.leaves(other).items() if leaf.requires_grad}
    if differentiable and leaves:
        gradients = torch.autograd.grad(
            [*differentiable.values()],
            [*leaves.values()],
            [call.expected.weights[name] for name in differentiable],
            allow_unused=True,
        )
        for name, gradient in zip(leaves, gradients, strict=True):
            value = call.expected.gradients.get(name)
            if gradient is not None and value is not None:
                call.expected.compare(f"gradient of {name}", gradient, value)
    call.check(first)
    call.check(second, retain_graph=True)
    call.check(second)
