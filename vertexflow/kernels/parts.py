"""A batch in parts, one after the other: the values of each part are dropped, and computed again in the backward pass.

Outputs and gradients are those of the whole batch; memory holds what the largest part needs. `torch.utils.checkpoint` does
the same with the model as it is when backward comes. This runs the very programs of the forward pass again, on the same
tensors, even if the model has changed since, and refuses tensors that were changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from ..errors import VertexFlowError
from . import autograd
from .bound import Bound
from .memory import pool, rehearsal
from .order import Order
from .second_order import gradients as second
from .second_order import replay

if TYPE_CHECKING:
    from .prepared.structures import Prepared

Role = Literal["tensor", "input", "external"]  # parameters and buffers; inputs; states of external vertices
Key = tuple[Role, str]
Tensors = Mapping[Key, Tensor]
Run = Callable[
    [Bound, Order, Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]
]  # `autograd.run`, or `replay.run`


@dataclass(frozen=True, eq=False)
class BoundPart:
    """Some graphs of a batch, the programs that compute them, and their numbers of rows of inputs and of external states."""

    bound: Bound
    order: Order
    num_inputs: Mapping[str, int]
    num_external: int

    @property
    def prepared(self) -> Prepared | None:
        """The passes that are written down, if they are."""
        return self.bound.prepared.get(self.order)

    def known_of_structure(self) -> list[object]:
        """The objects on which all hangs that is known of the structure: the order, layouts and passes that are written down."""
        layouts = (
            compiled.layouts_of(group) for compiled, group in zip(self.bound.compiled, self.order.groups, strict=True)
        )
        return [self.order, self.prepared, *layouts]

    def num_rows(self, key: Key) -> int:
        """How many rows the part has of an input, or of the states of external vertices."""
        return self.num_external if key[0] == "external" else self.num_inputs[key[1]]

    def num_outputs(self, name: str) -> int:
        """How many rows the part has of an output."""
        groups = self.bound.pushes.get(name, [])
        return self.order.num_outputs(name, groups, self.bound.is_edge_output(name)) if groups else 0

    def constants(self) -> list[Tensor]:
        """Tensors that programs read and that are neither parameters nor inputs."""
        return [value for value in self._constants() if isinstance(value, Tensor)]

    def generators(self) -> list[torch.Generator]:
        """Generators that programs draw random numbers from, beside PyTorch's own."""
        return [value for value in self._constants() if isinstance(value, torch.Generator)]

    def _constants(self) -> Iterator[Tensor | torch.Generator]:
        for compiled in self.bound.compiled:
            yield from compiled.program.trace.constants.values()

    def run(self, rows: Tensors, function: Run | None = None) -> dict[str, Tensor]:
        """The outputs of this part, by `autograd.run` or another such function."""
        by_role: dict[Role, dict[str, Tensor]] = {"tensor": {}, "input": {}, "external": {}}
        for (role, name), value in rows.items():
            by_role[role][name] = value
        return (function or autograd.run)(
            self.bound, self.order, by_role["tensor"], by_role["input"], by_role["external"]
        )


def run_parts(
    parts: Sequence[BoundPart],
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    external: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """`autograd.run` for all parts together; rows of inputs, external vertices and outputs are in the order of the parts."""
    if len(parts) == 1:
        return autograd.run(parts[0].bound, parts[0].order, tensors, inputs, external)
    read = {name for part in parts for name in part.bound.params}
    tensors_read: dict[Key, Tensor] = {("tensor", name): value for name, value in tensors.items() if name in read}
    tensors_read |= {("input", name): value for name, value in inputs.items()}
    tensors_read |= {("external", name): value for name, value in external.items()}
    names = list(dict.fromkeys(name for part in parts for name in part.bound.pushes))
    if any(part.bound.wants_gradients for part in parts):
        outputs = _Parts.apply(parts, names, list(tensors_read), *tensors_read.values())  # type: ignore[no-untyped-call]
    else:
        outputs, _ = _run_all(parts, names, tensors_read)
    return dict(zip(names, outputs, strict=True))


def _run_all(
    parts: Sequence[BoundPart], names: Sequence[str], tensors: Tensors
) -> tuple[tuple[Tensor, ...], list[_Randomness]]:
    """The outputs of these names, and the states of the random generators before each part."""
    outputs: dict[str, Tensor] = {}
    starts = dict.fromkeys(names, 0)
    randomness: list[_Randomness] = []
    for part, rows in zip(parts, _rows_of_parts(parts, tensors), strict=True):
        state = _Randomness(part.order.vertex.device, part.generators())
        randomness.append(randomness[-1] if randomness and state.is_as(randomness[-1]) else state)
        with pool.smaller_pieces():
            outputs_of_part = part.run(rows)
        for name, value in outputs_of_part.items():
            if name not in outputs:
                total = sum(other_part.num_outputs(name) for other_part in parts)
                outputs[name] = pool.empty((total, *value.shape[1:]), value.dtype, value.device)
            outputs[name].narrow(0, starts[name], len(value)).copy_(value)
            starts[name] += len(value)
    return tuple(outputs[name] for name in names), randomness


def _rows_of_parts(parts: Sequence[BoundPart], tensors: Tensors) -> Iterator[dict[Key, Tensor]]:
    """For each part, its rows of inputs and of external states, and all parameters and buffers."""
    starts = dict.fromkeys(tensors, 0)
    for part in parts:
        rows = {}
        for key, value in tensors.items():
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
        ctx: Any, parts: Sequence[BoundPart], names: Sequence[str], keys: Sequence[Key], *values: Tensor
    ) -> tuple[Tensor, ...]:
        outputs, randomness = _run_all(parts, names, dict(zip(keys, values, strict=True)))
        differentiable = {name for part in parts for name in part.bound.differentiable}
        autograd.set_differentiable(ctx, dict(zip(names, outputs, strict=True)), differentiable)
        ctx.parts, ctx.names, ctx.keys, ctx.randomness = parts, names, keys, randomness
        ctx.constants = list({id(constant): constant for part in parts for constant in part.constants()}.values())
        second.remember(ctx, values)
        autograd.save_tensors(ctx, [*values, *ctx.constants])
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        pushed = {name: grad for name, grad in zip(ctx.names, grads, strict=True) if grad is not None}
        saved = autograd.saved_tensors(ctx)
        if torch.is_grad_enabled():

            def outputs_of(values: Sequence[Tensor]) -> dict[str, Tensor]:
                return _replayed(ctx.parts, dict(zip(ctx.keys, values, strict=True)))

            return (None, None, None, *second.gradients(ctx, pushed, outputs_of))
        autograd.check_backward(pushed, pushed.values())
        tensors = dict(zip(ctx.keys, saved, strict=False))
        _check_constants(saved[len(tensors) :], ctx.constants)
        keys = [key for key, needs_grad in zip(ctx.keys, ctx.needs_input_grad[3:], strict=True) if needs_grad]
        starts = dict.fromkeys(pushed, 0)
        gradients = _Gradients(tensors)
        for part, rows, randomness in zip(ctx.parts, _rows_of_parts(ctx.parts, tensors), ctx.randomness, strict=True):
            leaves = {key: rows[key].detach().requires_grad_() for key in keys}
            with torch.enable_grad(), randomness.again(), pool.smaller_pieces():
                outputs = part.run({**rows, **leaves})
            grads_of_part = {}
            for name in pushed.keys() & outputs.keys():
                grads_of_part[name] = pushed[name].narrow(0, starts[name], len(outputs[name]))
                starts[name] += len(outputs[name])
            with pool.smaller_pieces():
                gradients_of_part = _backward(outputs, grads_of_part, leaves)
            gradients.add(part, gradients_of_part)
        return (None, None, None, *map(gradients.total().get, ctx.keys))


def replay_parts(
    parts: Sequence[BoundPart],
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    external: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """`run_parts`, out of operations that PyTorch differentiates."""
    if len(parts) == 1:
        return replay.run(parts[0].bound, parts[0].order, tensors, inputs, external)
    by_role: dict[Role, Mapping[str, Tensor]] = {"tensor": tensors, "input": inputs, "external": external}
    return _replayed(parts, {(role, name): value for role in by_role for name, value in by_role[role].items()})


def _replayed(parts: Sequence[BoundPart], tensors: Tensors) -> dict[str, Tensor]:
    """The outputs of all parts, out of operations that PyTorch differentiates."""
    rows = {
        key: torch.split(value, [part.num_rows(key) for part in parts])
        for key, value in tensors.items()
        if key[0] != "tensor"
    }
    outputs: dict[str, list[Tensor]] = {}
    for number, part in enumerate(parts):
        of_part = {key: value if key[0] == "tensor" else rows[key][number] for key, value in tensors.items()}
        for name, value in part.run(of_part, replay.run).items():
            outputs.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in outputs.items()}


def _check_constants(saved: Sequence[Tensor], constants: Sequence[Tensor]) -> None:
    """Refuse to compute again with other data. (Changes in place are noticed by PyTorch itself.)"""
    for saved_constant, constant in zip(saved, constants, strict=True):
        if saved_constant.untyped_storage().data_ptr() != constant.untyped_storage().data_ptr():
            raise VertexFlowError(
                f"a tensor {list(saved_constant.shape)} that a vertex function read has been given other data before its "
                "backward pass, which computes with it once more (max_vertices); call backward before it changes"
            )


def _backward(outputs: Mapping[str, Tensor], grads: Mapping[str, Tensor], leaves: Tensors) -> dict[Key, Tensor | None]:
    """The gradients of leaves, from those of some outputs."""
    names = [name for name in grads if outputs[name].requires_grad]
    if not names:
        return dict.fromkeys(leaves)
    gradients = torch.autograd.grad(
        [outputs[name] for name in names],
        list(leaves.values()),
        [grads[name] for name in names],
        allow_unused=True,
    )
    return dict(zip(leaves, gradients, strict=True))


class _Gradients:
    """The gradients of the whole batch, collected from those of its parts."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._rows: dict[Key, Tensor] = {}
        self._sums: dict[Key, Tensor] = {}  # in float32 where parameters are of half precision
        self._starts = dict.fromkeys(tensors, 0)

    def add(self, part: BoundPart, gradients: Mapping[Key, Tensor | None]) -> None:
        """Add the gradients of the next part: summed for parameters, concatenated for rows."""
        for key, gradient in gradients.items():
            if key[0] == "tensor":
                if gradient is not None:
                    if key in self._sums:
                        self._sums[key].add_(gradient)
                    else:  # a copy: the same tensor may be the gradient of two parameters
                        is_half = gradient.dtype in (torch.bfloat16, torch.float16)
                        self._sums[key] = gradient.to(torch.float32 if is_half else gradient.dtype, copy=True)
                continue
            if key not in self._rows:
                tensor = self._tensors[key]
                self._rows[key] = pool.empty(tensor.shape, tensor.dtype, tensor.device)
            rows = self._rows[key].narrow(0, self._starts[key], part.num_rows(key))
            if gradient is None:
                rows.zero_()
            else:
                rows.copy_(gradient)
            self._starts[key] += len(rows)

    def total(self) -> dict[Key, Tensor]:
        """The gradients of the whole batch, of what has any."""
        return {**self._rows, **{key: value.to(self._tensors[key].dtype) for key, value in self._sums.items()}}


class _Randomness:
    """The states of PyTorch's random generators, and of further ones, at some moment."""

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self._cpu = torch.get_rng_state()
        self._device = device
        like = torch.empty(0, device=device)
        self._devices, self._states = get_device_states(like)
        self._generators = [(generator, generator.get_state()) for generator in generators]

    def is_as(self, other: _Randomness) -> bool:
        """Whether nothing was drawn between these: then one of them is enough, of 5 KB a generator."""
        states, others = ([one._cpu, *one._states, *(state for _, state in one._generators)] for one in (self, other))
        generators, of_other = ([generator for generator, _ in one._generators] for one in (self, other))
        with rehearsal.interrupted():
            return generators == of_other and len(states) == len(others) and all(map(torch.equal, states, others))

    @contextmanager
    def again(self) -> Iterator[None]:
        """Put the generators into these states, and afterwards back."""
        with torch.random.fork_rng(self._devices, device_type=self._device.type if self._devices else "cuda"):
            torch.set_rng_state(self._cpu)
            set_device_states(self._devices, self._states)
            later_states = [(generator, generator.get_state()) for generator, _ in self._generators]
            for generator, state in self._generators:
                generator.set_state(state)
            try:
                yield
            finally:
                for generator, state in later_states:
                    generator.set_state(state)
