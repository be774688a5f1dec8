"""Calls of the methods of a model on real tensors, for `backend="eager"`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .graph.symbolic.method import code_of
from .graph.symbolic.roles import Pull, Role, is_per_edge
from .graph.symbolic.states import StateDtypes
from .graph.symbolic.vertex import Vertex
from .kernels.eager import Method, Uses, note_pushes

if TYPE_CHECKING:
    from .function import VertexFunction


class Call:
    """A method of the model, with `tensors` as its parameters and buffers where these are not its own."""

    def __init__(self, model: VertexFunction, name: str, tensors: Mapping[str, Tensor]) -> None:
        self.method: Method = getattr(model, name)
        self.code = code_of(self.method, name)
        own = own_tensors(model)
        self.scope = _Scope(model, self.method)
        self.substitutes = {f"module.{name}": tensor for name, tensor in tensors.items() if own.get(name) is not tensor}

    def __call__(self, v: Vertex) -> object:
        return torch.func.functional_call(self.scope, self.substitutes, (v,)) if self.substitutes else self.method(v)

    def without_effect(self, v: Vertex) -> None:
        """Call the method on copies of its buffers and of the state of the random number generators."""
        buffers = {f"module.{name}": buffer.clone() for name, buffer in self.scope.module.named_buffers()}
        with torch.no_grad(), torch.random.fork_rng():
            torch.func.functional_call(self.scope, {**buffers, **self.substitutes}, (v,))


class _Scope(nn.Module):
    """A module whose `forward` is a method of another module, as `functional_call` needs it."""

    def __init__(self, module: nn.Module, method: Method) -> None:
        super().__init__()
        self.module = module
        self.method = method

    def forward(self, v: Vertex) -> object:
        return self.method(v)


def probe_method(
    call: Call,
    uses: Uses,
    model: VertexFunction,
    dtypes: StateDtypes,
    inputs: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
    device: torch.device,
) -> None:
    """Call a method on one vertex without children, whose inputs are the first row of each input, to see what it uses."""

    def leaf(role: Role, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if isinstance(role, Pull):
            uses.pulls[role.name] = role.per_edge
            uses.reads_edges |= role.per_edge
            if not role.per_edge and len(inputs[role.name]):
                return inputs[role.name].detach()[:1].clone()
        uses.reads_edges |= is_per_edge(role)
        rows = 0 if is_per_edge(role) else 1
        return torch.zeros((rows, *shape), dtype=dtype, device=device)

    v = Vertex(
        model.state,
        dtypes,
        inputs,
        leaf,
        1,
        lambda _: 0,
        {name: value.detach().clone() for name, value in shared.items()},
    )
    call.without_effect(v)
    uses.shared |= v.shared_names
    uses.first_slot = v.first_slot
    note_pushes(uses, v.pushed, v.push_sorts)


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))
