"""A batch in parts, one after the other: what one part computes is forgotten, and computed once more in the backward pass.

Outputs and gradients are those of the whole batch; memory holds what the largest part needs. `torch.utils.checkpoint` does
the same for a model as it is when backward comes; this runs the very programs of the forward pass again, with the tensors
that it was given, whatever has become of the model since, and refuses tensors that were changed in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from ..errors import VertexFlowError
from . import autograd, pool
from .bound import Bound
from .order import Order

Role = Literal["tensor", "input", "external"]  # parameters and buffers; inputs; states of external vertices
Key = tuple[Role, str]  # of what a run is given
Given = Mapping[Key, Tensor]


@dataclass(frozen=True, eq=False)
class Part:
    """Graphs of a batch, what computes them, and how many rows of each input and of external vertices are theirs."""

    bound: Bound
    order: Order
    num_inputs: Mapping[str, int]
    num_external: int

    def num_rows(self, key: Key) -> int:
        """How many rows it has of an input, or of the states of external vertices."""
        return self.num_external if key[0] == "external" else self.num_inputs[key[1]]

    def num_outputs(self, name: str) -> int:
        """How many rows it has of an output."""
        return sum(self.order.groups[group].num_rows for group in self.bound.pushes.get(name, []))

    def constants(self) -> Iterator[Tensor]:
        """Tensors that are neither parameters nor inputs, which programs read where they are."""
        for one in self.bound.compiled:
            yield from one.program.trace.constants.values()

    def run(self, rows: Given) -> dict[str, Tensor]:
        """The outputs of this part."""
        by_role: dict[Role, dict[str, Tensor]] = {"tensor": {}, "input": {}, "external": {}}
        for (role, name), value in rows.items():
            by_role[role][name] = value
        return autograd.run(self.bound, self.order, by_role["tensor"], by_role["input"], by_role["external"])


def run_parts(
    parts: Sequence[Part],
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    external: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """As `autograd.run` for all parts together; rows of inputs, external vertices and outputs are in the order of the parts."""
    if len(parts) == 1:
        return autograd.run(parts[0].bound, parts[0].order, tensors, inputs, external)
    read = {name for part in parts for name in part.bound.params}
    given: dict[Key, Tensor] = {("tensor", name): value for name, value in tensors.items() if name in read}
    given |= {("input", name): value for name, value in inputs.items()}
    given |= {("external", name): value for name, value in external.items()}
    names = list(dict.fromkeys(name for part in parts for name in part.bound.pushes))
    if any(part.bound.wants_gradients for part in parts):
        outputs = _Parts.apply(parts, names, list(given), *given.values())  # type: ignore[no-untyped-call]
    else:
        outputs, _ = _run_all(parts, names, given)
    return dict(zip(names, outputs, strict=True))


def _run_all(parts: Sequence[Part], names: Sequence[str], given: Given) -> tuple[tuple[Tensor, ...], list[_Randomness]]:
    """The outputs of these names, and where the random numbers of each part began."""
    outputs: dict[str, Tensor] = {}
    starts = dict.fromkeys(names, 0)
    randomness = []
    for part, rows in zip(parts, _rows_of_parts(parts, given), strict=True):
        randomness.append(_Randomness(part.order.vertex.device))
        for name, value in part.run(rows).items():
            if name not in outputs:
                total = sum(each.num_outputs(name) for each in parts)
                outputs[name] = pool.empty((total, *value.shape[1:]), value.dtype, value.device)
            outputs[name].narrow(0, starts[name], len(value)).copy_(value)
            starts[name] += len(value)
    return tuple(outputs[name] for name in names), randomness


def _rows_of_parts(parts: Sequence[Part], given: Given) -> Iterator[dict[Key, Tensor]]:
    """For each part its rows of inputs and of external states, and parameters and buffers whole."""
    starts = dict.fromkeys(given, 0)
    for part in parts:
        rows = {}
        for key, value in given.items():
            if key[0] == "tensor":
                rows[key] = value
            else:
                count = part.num_rows(key)
                rows[key] = value.narrow(0, starts[key], count)
                starts[key] += count
        yield rows


class _Parts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, parts: Sequence[Part], names: Sequence[str], keys: Sequence[Key], *values: Tensor
    ) -> tuple[Tensor, ...]:
        outputs, randomness = _run_all(parts, names, dict(zip(keys, values, strict=True)))
        differentiable = {name for part in parts for name in part.bound.differentiable}
        ctx.mark_non_differentiable(
            *(value for name, value in zip(names, outputs, strict=True) if name not in differentiable)
        )
        ctx.set_materialize_grads(False)
        ctx.parts, ctx.names, ctx.keys, ctx.randomness = parts, names, keys, randomness
        ctx.constants = list({id(constant): constant for part in parts for constant in part.constants()}.values())
        autograd.save_tensors(ctx, [*values, *ctx.constants])
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        pushed = {name: grad for name, grad in zip(ctx.names, grads, strict=True) if grad is not None}
        autograd.check_backward(pushed)
        saved = autograd.saved_tensors(ctx)
        given = dict(zip(ctx.keys, saved, strict=False))
        _check_constants(saved[len(given) :], ctx.constants)
        wanted = [key for key, wants in zip(ctx.keys, ctx.needs_input_grad[3:], strict=True) if wants]
        starts = dict.fromkeys(pushed, 0)
        gradients = _Gradients(given)
        for part, rows, randomness in zip(ctx.parts, _rows_of_parts(ctx.parts, given), ctx.randomness, strict=True):
            leaves = {key: rows[key].detach().requires_grad_() for key in wanted}
            with torch.enable_grad(), randomness.again():
                outputs = part.run({**rows, **leaves})
            grads_of_part = {}
            for name in pushed.keys() & outputs.keys():
                grads_of_part[name] = pushed[name].narrow(0, starts[name], len(outputs[name]))
                starts[name] += len(outputs[name])
            gradients.add(part, _backward(outputs, grads_of_part, leaves))
        return (None, None, None, *map(gradients.total.get, ctx.keys))


def _check_constants(saved: Sequence[Tensor], constants: Sequence[Tensor]) -> None:
    """Refuse to compute again with other data; that a tensor was changed in place, PyTorch notices itself."""
    for was, constant in zip(saved, constants, strict=True):
        if was.untyped_storage().data_ptr() != constant.untyped_storage().data_ptr():
            raise VertexFlowError(
                f"a tensor {list(was.shape)} that a vertex function read has been given other data before its backward pass, "
                "which computes with it once more (max_vertices); call backward before it changes"
            )


def _backward(outputs: Mapping[str, Tensor], grads: Mapping[str, Tensor], leaves: Given) -> dict[Key, Tensor | None]:
    """The gradients of leaves, from those of some outputs."""
    through = [name for name in grads if outputs[name].requires_grad]
    if not through:
        return dict.fromkeys(leaves)
    made = torch.autograd.grad(
        [outputs[name] for name in through],
        list(leaves.values()),
        [grads[name] for name in through],
        allow_unused=True,
    )
    return dict(zip(leaves, made, strict=True))


class _Gradients:
    """The gradients of the whole batch, while those of parts come in."""

    def __init__(self, given: Given) -> None:
        self.total: dict[Key, Tensor] = {}
        self._given = given
        self._starts = dict.fromkeys(given, 0)

    def add(self, part: Part, gradients: Mapping[Key, Tensor | None]) -> None:
        """Those of the next part: added up for parameters, side by side for rows."""
        for key, gradient in gradients.items():
            if key[0] == "tensor":
                if gradient is not None:
                    self.total[key] = self.total[key].add_(gradient) if key in self.total else gradient
                continue
            if key not in self.total:
                whole = self._given[key]
                self.total[key] = pool.empty(whole.shape, whole.dtype, whole.device)
            rows = self.total[key].narrow(0, self._starts[key], part.num_rows(key))
            if gradient is None:
                rows.zero_()
            else:
                rows.copy_(gradient)
            self._starts[key] += len(rows)


class _Randomness:
    """Where PyTorch's generators stood."""

    def __init__(self, device: torch.device) -> None:
        self._cpu = torch.get_rng_state()
        self._device = device
        like = torch.empty(0, device=device)
        self._devices, self._states = get_device_states(like)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Stand there again, and afterwards where they stand now."""
        with torch.random.fork_rng(self._devices, device_type=self._device.type if self._devices else "cuda"):
            torch.set_rng_state(self._cpu)
            set_device_states(self._devices, self._states)
            yield
