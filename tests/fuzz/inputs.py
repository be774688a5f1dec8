"""The tensors of a sample: leaves, and the inputs that are made of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..agreement import join
from .functions import EDGE_INPUTS, INPUTS, SHARED, STATES, Function, draw_rows
from .samples import Sample

Leaves = dict[str, Tensor]


def bases_of(function: Function, sample: Sample) -> Leaves:
    """The leaves from which inputs and initial states are made, as `laid_out` makes them."""
    generator = torch.Generator().manual_seed(sample.seed)
    bases = {}
    for table, rows in ((INPUTS, sample.count), (EDGE_INPUTS, sample.num_edges)):
        for name, (shape, _) in table.items():
            size = _base_size(sample.layouts.get(name, "plain"), rows, shape)
            bases[name] = draw_rows(name, size, function.floats, generator)
    if sample.initial:
        for name in function.states:
            shape, dtype = STATES[name][0], function.dtype_of(name)
            values = torch.randn(len(sample.starts()), *shape, dtype=torch.float64, generator=generator)
            bases[f"initial.{name}"] = (values if dtype.is_floating_point else values > 0).to(dtype)
    for name in function.shared:
        values = torch.randn(SHARED[name], dtype=torch.float64, generator=generator) / 2
        bases[f"shared.{name}"] = values.to(function.floats)
    for name, value in bases.items():
        if name in sample.special:
            _make_special(value, sample.special[name], generator)
        if value.is_floating_point() and name not in sample.fixed:
            value.requires_grad_()
    return bases


def _base_size(layout: str, rows: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    size = (rows, *shape)
    if layout == "strided" and shape:
        return (*size[:-1], 2 * size[-1])
    if layout == "turned":
        return size[::-1]
    if layout == "expanded":
        return (1, *shape)
    if layout == "offset":
        return (rows + 1, *shape)
    if layout == "every second row":
        return (2 * rows, *shape)
    if layout == "windows" and len(shape) == 1:
        return (rows + shape[0] - 1,)
    if layout == "one number":
        return (1,) * len(size)
    return size


def _make_special(values: Tensor, special: str, generator: torch.Generator) -> None:
    """Some numbers become such as arithmetic has rules of its own for."""
    finfo = torch.finfo(values.dtype)
    choice = {
        "nan": [float("nan")],
        "inf": [float("inf"), -float("inf")],
        "zero": [-0.0, 0.0],
        "huge": [finfo.max / 8, -(finfo.max**0.5), finfo.max**0.4],
        "tiny": [finfo.smallest_normal / 4, -finfo.smallest_normal],
    }[special]
    flat = values.view(-1)
    for at in torch.randint(0, max(1, len(flat)), (3,), generator=generator).tolist():
        if at < len(flat):
            flat[at] = choice[at % len(choice)]


def laid_out(function: Function, sample: Sample, bases: Leaves) -> tuple[Leaves, Leaves, Leaves | None]:
    """The inputs of vertices, of edges, and the initial states; views of the bases, with rows for all."""
    tensors = {}
    for name, value in bases.items():
        if name.startswith("initial."):
            tensors[name] = value
        if "." in name:
            continue
        shape, rows = {**INPUTS, **EDGE_INPUTS}[name][0], sample.count if name in INPUTS else sample.num_edges
        tensors[name] = _view(value, sample.layouts.get(name, "plain"), rows, shape)
    for name, source in sample.aliases.items():
        tensors[name] = _alias(name, tensors[source])
    initial = {name[8:]: value for name, value in tensors.items() if name.startswith("initial.")}
    pulled = {name for method in function.methods.values() for name in (*method.inputs, *method.edge_inputs)}
    inputs = {name: tensors[name] for name in INPUTS if name in pulled}
    return inputs, {name: tensors[name] for name in EDGE_INPUTS if name in pulled}, initial or None


def shared_of(bases: Leaves) -> Leaves:
    """The tensors that all vertices share: `b` as it is, `W` computed from a leaf and transposed."""
    forms = {"W": lambda value: (value * 1.5).mT, "b": lambda value: value}
    return {name[7:]: forms[name[7:]](value) for name, value in bases.items() if name.startswith("shared.")}


def _view(base: Tensor, layout: str, rows: int, shape: tuple[int, ...]) -> Tensor:
    if layout == "strided" and shape:
        return base[..., ::2]
    if layout == "turned":
        return base.permute(*reversed(range(base.dim())))
    if layout in ("expanded", "one number"):
        return base.expand(rows, *shape)
    if layout == "offset":
        return base[1:]
    if layout == "every second row":
        return base[::2]
    if layout == "windows" and len(shape) == 1:
        return base.unfold(0, shape[0], 1) if rows else base[:0].view(0, *shape)
    return base.view(rows, *shape)


def _alias(name: str, tensor: Tensor) -> Tensor:
    """The same memory, seen as another input."""
    if name == "x":
        return tensor[:, 1:5]
    if name == "table":
        return tensor.unflatten(1, (2, 2))
    return tensor if name == "y" else tensor[:, 1]


def of_pulling_kinds(function: Function, sample: Sample, inputs: Leaves, edge_inputs: Leaves) -> Leaves:
    """The rows that the model wants: those of vertices, and edges, of the kinds that pull them."""
    if sample.kinds is None:
        return {**inputs, **edge_inputs}
    ends = [edge[0 if sample.reverse else 1] for edge in join(sample.parts)[1]]
    given = {}
    for name, value in {**inputs, **edge_inputs}.items():
        kinds = sample.kinds if name in INPUTS else [sample.kinds[end] for end in ends]
        pulling = [kind for kind, method in function.methods.items() if name in (*method.inputs, *method.edge_inputs)]
        wanted = torch.from_numpy(np.isin(np.array(kinds, dtype=object), pulling))
        given[name] = value if wanted.all() else value[wanted]  # as it lies, if it may
    return given
