"""What a drawn vertex function is called with, and what the reference says of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vertexflow as vf

from ..agreement import join
from ..reference import run_reference
from ..strategies import Structure
from .functions import EDGE_INPUTS, INPUTS, STATES, Function, draw_rows

LAYOUTS = ("plain", "strided", "turned", "expanded", "offset")
LARGEST = 1e5  # beyond, 1e-10 is no longer a matter of rounding
Leaves = dict[str, Tensor]


class UnsuitableError(Exception):
    """The reference cannot tell right from wrong: the code fails in plain PyTorch, or its values are too large."""


@dataclass
class Sample:
    """Structures, how they are read, and the seed of all values; `fixed` has the names of what needs no gradient."""

    parts: list[Structure]
    kinds: list[str] | None
    reverse: bool
    initial: bool
    training: bool
    gain: float
    flag: bool
    seed: int
    layouts: dict[str, str] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)

    @staticmethod
    def read(kept: dict[str, Any]) -> Sample:
        parts = [Structure(part["num_vertices"], [tuple(edge) for edge in part["edges"]]) for part in kept["parts"]]
        return Sample(**{**kept, "parts": parts})

    @property
    def count(self) -> int:
        return sum(part.num_vertices for part in self.parts)

    @property
    def num_edges(self) -> int:
        return sum(len(part.edges) for part in self.parts)

    def graphs(self) -> list[vf.InputGraph]:
        graphs, at = [], 0
        for part in self.parts:
            kind = None if self.kinds is None else self.kinds[at : at + part.num_vertices]
            pairs = [(child, parent) for child, parent, _ in part.edges]
            graphs.append(vf.graph(part.num_vertices, pairs, kind=kind, slots=[slot for *_, slot in part.edges]))
            at += part.num_vertices
        return graphs

    def starts(self) -> list[int]:
        """The vertices without children, in their order."""
        _, edges = join(self.parts)
        taken = {edge[0 if self.reverse else 1] for edge in edges}
        return [vertex for vertex in range(self.count) if vertex not in taken]


def draw_sample(rng: random.Random, function: Function, fixed: list[str], small: bool = False) -> Sample:
    methods = function.methods.values()
    reverse = rng.random() < 0.35
    limit = 3 if function.has_kinds else (5 if methods_read_all(function) else next(iter(methods)).slots)
    loose = 1 if rng.random() < 0.4 else 4
    most_children, most_parents = (loose + 1, limit) if reverse else (limit, min(loose, 3))
    dense = function.has_kinds or reverse
    most = 4 if small else rng.choice([2, 6, 9, 9, 20])
    parts = [
        draw_structure(rng, most, most_children, most_parents, dense)
        for _ in range(rng.randint(1, 2 + 2 * (not small)))
    ]
    count = sum(part.num_vertices for part in parts)
    kinds = None
    if function.has_kinds:
        among = rng.choice([list(function.methods), list(function.methods), ["a", "b"], ["c"]])
        kinds = [rng.choice([kind for kind in among if kind in function.methods] or ["a"]) for _ in range(count)]
    one = next(iter(methods))
    may_start = not function.has_kinds and not one.edge_inputs and (one.ragged or one.slots > 0)
    return Sample(
        parts=parts,
        kinds=kinds,
        reverse=reverse,
        initial=may_start and rng.random() < 0.3,
        training=True,
        gain=1.0,
        flag=False,
        seed=rng.randrange(10_000),
        layouts={name: rng.choice(LAYOUTS) for name in [*INPUTS, *EDGE_INPUTS] if rng.random() < 0.3},
        fixed=fixed,
    )


def methods_read_all(function: Function) -> bool:
    return all(method.ragged for method in function.methods.values())


def draw_structure(rng: random.Random, most: int, most_children: int, most_parents: int, dense: bool) -> Structure:
    """Chains, forests, DAGs and single vertices, numbered at random, with edges in any order."""
    count = rng.randint(1, most)
    names = rng.sample(range(count), count)
    chain = rng.random() < 0.2
    parents, edges = [0] * count, []
    for parent in range(1, count):
        slots = list(range(1 if chain else rng.randint(0, most_children)))
        if not dense and rng.random() < 0.3:
            slots = sorted(rng.sample(range(most_children), len(slots)))
        taken = 0
        for slot in slots:
            child = parent - 1 if chain or rng.random() < 0.3 else rng.randrange(parent)
            if parents[child] < most_parents:
                parents[child] += 1
                edges.append((names[child], names[parent], taken if dense else slot))
                taken += 1
    return Structure(count, rng.sample(edges, len(edges)))


def bases_of(function: Function, sample: Sample) -> Leaves:
    """The leaves from which inputs and initial states are made, as `laid_out` makes them."""
    generator = torch.Generator().manual_seed(sample.seed)
    bases = {}
    for table, rows in ((INPUTS, sample.count), (EDGE_INPUTS, sample.num_edges)):
        for name, (shape, _) in table.items():
            layout = sample.layouts.get(name)
            size = (rows, *shape)
            if layout == "strided" and shape:
                size = (*size[:-1], 2 * size[-1])
            if layout == "turned":
                size = size[::-1]
            if layout == "expanded":
                size = (1, *size[1:])
            if layout == "offset":
                size = (rows + 1, *size[1:])
            bases[name] = draw_rows(name, size, generator)
    if sample.initial:
        for name in function.states:
            shape, dtype = STATES[name]
            values = torch.randn(len(sample.starts()), *shape, dtype=torch.float64, generator=generator)
            bases[f"initial.{name}"] = values if dtype.is_floating_point else (values > 0).to(dtype)
    for name, value in bases.items():
        if value.is_floating_point() and name not in sample.fixed:
            value.requires_grad_()
    return bases


def laid_out(function: Function, sample: Sample, bases: Leaves) -> tuple[Leaves, Leaves, Leaves | None]:
    """The inputs of vertices, of edges, and the initial states; views of the bases, with rows for all."""
    tensors = {}
    for name, value in bases.items():
        layout = sample.layouts.get(name)
        rows = sample.count if name in INPUTS else sample.num_edges
        if layout == "strided" and value.dim() > 1:
            value = value[..., ::2]
        if layout == "turned":
            value = value.permute(*reversed(range(value.dim())))
        if layout == "expanded":
            value = value.expand(rows, *value.shape[1:])
        tensors[name] = value[1:] if layout == "offset" else value
    initial = {name[8:]: value for name, value in tensors.items() if name.startswith("initial.")}
    pulled = {name for method in function.methods.values() for name in (*method.inputs, *method.edge_inputs)}
    inputs = {name: tensors[name] for name in INPUTS if name in pulled}
    return inputs, {name: tensors[name] for name in EDGE_INPUTS if name in pulled}, initial or None


def of_pulling_kinds(function: Function, sample: Sample, inputs: Leaves, edge_inputs: Leaves) -> Leaves:
    """The rows that the model wants: those of vertices, and edges, of the kinds that pull them."""
    if sample.kinds is None:
        return {**inputs, **edge_inputs}
    ends = [edge[0 if sample.reverse else 1] for edge in join(sample.parts)[1]]
    given = {}
    for name, value in {**inputs, **edge_inputs}.items():
        kinds = sample.kinds if name in INPUTS else [sample.kinds[end] for end in ends]
        pulling = [kind for kind, method in function.methods.items() if name in (*method.inputs, *method.edge_inputs)]
        given[name] = value[torch.from_numpy(np.isin(np.array(kinds, dtype=object), pulling))]
    return given


@dataclass
class Expected:
    """What the reference says: outputs, gradients of a weighting of them by leaf, and gradients of a function of these."""

    outputs: Leaves
    weights: Leaves
    gradients: dict[str, Tensor | None]


def expect(model: Any, function: Function, sample: Sample, shake: float = 0.0) -> Expected:
    """With `shake`, after all numbers were changed by that much."""
    bases = bases_of(function, sample)
    own = {name: value.detach().clone() for name, value in model.named_parameters()}
    if shake:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for value in (*bases.values(), *model.parameters()):
                if value.is_floating_point():
                    value.mul_(1 + shake * torch.randn(value.shape, dtype=torch.float64, generator=generator))
    try:
        inputs, edge_inputs, initial = laid_out(function, sample, bases)
        methods = None
        if sample.kinds is not None:
            methods = [getattr(model, f"of_{kind}") for kind in sample.kinds]
        outputs = run_reference(
            model, *join(sample.parts), inputs, sample.reverse, edge_inputs, methods=methods, initial=initial
        )
        weights = weights_of(outputs)
        gradients = gradients_of(outputs, weights, {**dict(model.named_parameters()), **bases})
    except RuntimeError as error:
        raise UnsuitableError(f"in plain PyTorch: {error}") from error
    finally:
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(own[name])
    values = [value for value in (*outputs.values(), *gradients.values()) if value is not None]
    if any(
        value.is_floating_point() and value.nan_to_num(0, 0, 0).abs().max() > LARGEST
        for value in values
        if value.numel()
    ):
        raise UnsuitableError("values that are too large")
    return Expected(outputs, weights, gradients)


def weights_of(outputs: Leaves) -> Leaves:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, dtype=value.dtype, generator=generator)
        for name, value in outputs.items()
        if value.requires_grad
    }


def gradients_of(outputs: Leaves, weights: Leaves, leaves: Leaves, **options: bool) -> dict[str, Tensor | None]:
    """Of the weighted outputs with respect to all leaves that require grad; None where nothing leads to a leaf."""
    wanted = [name for name, leaf in leaves.items() if leaf.requires_grad]
    if not wanted or not weights:
        return dict.fromkeys(wanted)
    loss = sum((outputs[name] * weight).sum() for name, weight in weights.items())
    found = torch.autograd.grad(loss, [leaves[name] for name in wanted], allow_unused=True, **options)
    return dict(zip(wanted, found, strict=True))
