"""What the memory of a step will be, before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from ..errors import BackendError, InputError, InputTypeError, VertexFlowError
from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch
from ..graph.uncompiled import uncompiled
from ..kernels.compile import choose_backend
from ..kernels.memory.rehearsal import rehearsed, size_of, stand_in
from .arguments import Arguments
from .backward_hooks import ReturnsOutputs
from .bind import BoundCall, bind_call
from .outputs import Outputs
from .programs import Version

Loss = Callable[[Outputs], Tensor]


@dataclass(frozen=True)
class MemoryEstimate:
    """What a step will take of the memory of a process, in bytes, on top of parameters, inputs and the optimizer's state.

    Attributes:
        structure: index arrays of the schedule, and what is prepared for its passes, which stay with the batch.
        outputs: what the model returns.
        kept: what the backward pass reads: states and saved values, from the forward pass to the end of the backward pass.
        forward: what the forward pass takes beside these, while it runs.
        loss: the gradients of the outputs, and what else the loss has in use when the backward pass of the model begins.
        backward: what the backward pass takes beside all these, while it runs.
        gradients: those of parameters, and of inputs that require grad.
        waiting: what the process holds at its peak though it is not in use: freed memory, for what comes next.
        peak: by how much the resident memory of a fresh process rises in its first step.

    Example:
        >>> print(model.estimate_memory(batch, x=x))
    """

    structure: int
    outputs: int
    kept: int
    forward: int
    loss: int
    backward: int
    gradients: int
    waiting: int
    peak: int

    def __str__(self) -> str:
        """A table in MiB."""
        return "\n".join(f"{field.name:<9} {getattr(self, field.name) / 2**20:10.1f} MiB" for field in fields(self))


class EstimatesMemory(ReturnsOutputs):
    """A module that knows beforehand what a call and its derivative will take."""

    backend: str

    @uncompiled
    def estimate_memory(
        self,
        graphs: GraphBatch | Sequence[InputGraph],
        *,
        training: bool = True,
        loss: Loss | None = None,
        holds_outputs: bool = True,
        reverse: bool = False,
        initial: Mapping[str, Tensor] | None = None,
        shared: Mapping[str, Tensor] | None = None,
        outputs: Tensor | Mapping[str, Tensor] | None = None,
        **inputs: Tensor,
    ) -> MemoryEstimate:
        """What a step will take of the memory of a process, on top of parameters, inputs and the optimizer's state.

        The step is gone through without computing anything: every piece of memory is asked for as in a real step and counted.
        The vertex function is traced and compiled, unless it was already; for inputs on "meta", which have no values to check
        it with, it is traced once more at the first call. `max_vertices` is heeded: lower it until the peak fits.

        Args:
            graphs, reverse, initial, shared, outputs, inputs: as of `forward`. Tensors may be without memory, as
                `torch.empty(n, 128, device="meta")`; those with `requires_grad` get a gradient here as well.
            training: with what is kept for the backward pass, and that pass; False: a call under `torch.no_grad()`.
            loss: from the outputs (on "meta": shapes without values) to a number, to count what it takes and keeps; what it takes
                for parameters of its own is not. By default each output gets a gradient of its size, and the loss takes nothing.
            holds_outputs: whether outputs are alive during the backward pass, as in `out = model(batch, x=x)`; False where nobody
                has them any more, as in `model(batch, x=x).h[batch.roots]`.

        Returns:
            A `MemoryEstimate` in bytes, readable when printed: within 10 % of what a step of 5 MiB and more takes with
            generated code. Backend "torch" takes from 6 % less to 32 % more.

        Raises:
            as `forward`; BackendError on a GPU and with "eager"; InputError of a loss that asks for values.

        Example:
            >>> print(model.estimate_memory(batch, x=torch.empty(batch.num_vertices, 128, device="meta")))
        """
        with torch.inference_mode(False), torch.set_grad_enabled(training):
            version, tensors = self._see()
            device = next((tensor.device for tensor in tensors.values()), torch.device("cpu"))
            check_estimated(self.backend, device)
            groups = [initial, inputs, shared]
            given = [real(group, device) for group in groups]
            if any(group is not before for group, before in zip(given, groups, strict=True)):
                version = version.apart()  # traces are checked with the inputs: with zeros, they are for nobody else
            call = Arguments(None, graphs, reverse, given[0], given[1] or {}, given[2], outputs)
            bound, _ = bind_call(cast(Any, self), version, tensors, call, in_two=True)
            return rehearse(bound, inputs, loss, holds_outputs)

    def _see(self) -> tuple[Version, dict[str, Tensor]]:
        raise NotImplementedError


def check_estimated(requested: str, device: torch.device) -> None:
    """Refuse backends and devices whose steps cannot be gone through without computing."""
    backend = choose_backend(requested, device)
    if backend not in ("native", "torch") or device.type != "cpu":
        raise BackendError(
            f'there is no estimate of the memory for backend "{backend}" on {device}, only for "native" and "torch" on a CPU; '
            "on a GPU, run a step and ask torch.cuda.max_memory_allocated()"
        )


def real(tensors: Mapping[str, Tensor] | None, device: torch.device) -> Mapping[str, Tensor] | None:
    """The same tensors, with zeros that take no memory in the place of those on "meta", if there are any."""
    if not isinstance(tensors, Mapping):
        return tensors
    zeros = {}
    for name, value in tensors.items():
        if isinstance(value, Tensor) and value.is_meta:
            zero = torch.zeros((), dtype=value.dtype, device=device)
            zeros[name] = zero.expand(value.shape).requires_grad_(value.requires_grad)
    return {**tensors, **zeros} if zeros else tensors


def rehearse(
    call: BoundCall,
    inputs: Mapping[str, Tensor],
    loss: Loss | None,
    holds_outputs: bool,
) -> MemoryEstimate:
    """Go through a step without computing anything; `inputs` may be on "meta".

    Whether it is a training step is told by PyTorch's switch for gradients, as in a call.
    """
    given = [
        {name: stand_in(value) for name, value in group.items()} for group in (call.tensors, inputs, call.external)
    ]
    known = [value for group in given for value in group.values()]
    with rehearsed(known) as rehearsal:
        outputs = Outputs(call.as_given(call.run(*given)))
        in_outputs, after_forward, most_in_forward = size_of(outputs.values()), rehearsal.in_use, rehearsal.next_stage()
        edges = {name: get_gradient_edge(value) for name, value in outputs.items() if value.requires_grad}
        value, grads = None, {name: torch.empty_like(outputs[name]) for name in edges if loss is None}
        if loss is not None:
            value = _value(loss, outputs)
        if not holds_outputs:
            outputs = Outputs()
        if value is not None and edges:
            of_edges = torch.autograd.grad(value, list(edges.values()), allow_unused=True)
            grads = {name: grad for name, grad in zip(edges, of_edges, strict=True) if grad is not None}
            del of_edges
        del value
        before_backward, most_in_loss = rehearsal.in_use, rehearsal.next_stage()
        leaves = [tensor for tensor in known if tensor.requires_grad]
        gradients: Sequence[Tensor | None] = ()
        if grads and leaves:
            begun = [edges[name] for name in grads]
            gradients = torch.autograd.grad(begun, leaves, list(grads.values()), allow_unused=True)
        in_gradients, most_in_backward = (
            size_of(gradient for gradient in gradients if gradient is not None),
            rehearsal.next_stage(),
        )
    in_use = max(most_in_forward, most_in_loss, most_in_backward)
    return MemoryEstimate(
        structure=call.bytes_of_structure,
        outputs=in_outputs,
        kept=after_forward - in_outputs,
        forward=most_in_forward - after_forward,
        loss=before_backward - after_forward + (0 if holds_outputs else in_outputs),
        backward=max(0, most_in_backward - before_backward - in_gradients),
        gradients=in_gradients,
        waiting=rehearsal.most - in_use,
        peak=call.bytes_of_structure + rehearsal.most,
    )


def _value(loss: Loss, outputs: Outputs) -> Tensor:
    """The loss of outputs, checked."""
    try:
        value = loss(outputs)
    except (VertexFlowError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"the loss cannot be gone through without numbers: {type(error).__name__}: {error}. It gets outputs on the device "
            "meta, which have shapes and no values (no .item(), no boolean masks); without loss=..., a gradient for each output "
            "is counted"
        ) from error
    if not isinstance(value, Tensor) or value.dim():
        shown = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputTypeError(f"loss returned {shown}; it shall return a number, a tensor without dimensions")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise InputError("loss returned a number that does not depend on any output with a gradient")
    return value
