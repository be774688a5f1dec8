"""A method of a model for `backend="eager"`: called as it is, or on a made-up vertex, to see what it uses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..call.kinds import check_rows, check_together
from ..call.selection import Selection, are_of_edges
from ..errors import VertexFunctionError
from ..graph.symbolic.method import code_of
from ..graph.symbolic.roles import Pull, Role, is_per_edge
from ..graph.symbolic.states import StateDtypes
from ..graph.symbolic.vertex import Vertex
from ..kernels import autograd
from ..kernels.eager import Method, Uses, note_pushes

if TYPE_CHECKING:
    from ..function import VertexFunction


class MethodCall:
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


def probe(
    call: MethodCall,
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
    uses.left_out = frozenset(model.state) - frozenset(v.scattered)
    uses.first_slot, uses.arc_size = v.first_slot, v.arc_size
    note_pushes(uses, v.pushed, v.push_sorts)


def run_empty(
    model: VertexFunction,
    tensors: Mapping[str, Tensor],
    dtypes: StateDtypes,
    inputs: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
    external: Mapping[str, Tensor],
    device: torch.device,
    selection: Selection | None,
) -> dict[str, Tensor]:
    """The outputs of a batch without graphs; every method is called on a made-up vertex to see what it pushes."""
    calls = {name: MethodCall(model, name, tensors) for name in dict.fromkeys(model._methods.values())}
    uses = {name: Uses(call.code) for name, call in calls.items()}
    for name, call in calls.items():
        try:
            probe(call, uses[name], model, dtypes, inputs, shared, device)
        except Exception as error:
            raise VertexFunctionError(
                f"the batch has no graphs, and what `{name}` pushes cannot be told: it fails for one vertex without children, "
                f"{type(error).__name__}: {error}"
            ) from error
    check_together(uses, inputs, shared)
    check_rows(uses, inputs, dict.fromkeys(calls, (0, 0)), model._methods, "the batch")
    if selection is not None:
        selection.check_names(are_of_edges(uses.values()))
    likes = {name: like for method_uses in uses.values() for name, like in method_uses.pushes.items()}
    return autograd.with_zero_gradients(
        likes, [*tensors.values(), *inputs.values(), *shared.values(), *external.values()]
    )


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))
