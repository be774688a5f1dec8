"""A run that grows: states and outputs are kept as vertices are added, and backward goes through all extensions.

A token, a tensor without content, leads through the nodes that a run has in PyTorch's autograd graph, so that backward visits
readings before the extensions that they read, and extensions in reverse. The gradients themselves lie in buffers of one row a
vertex, so that backward takes a time linear in what was computed, however often the run was extended.

Where all is native code, one call computes an extension, its reading of earlier states and its writing of new ones, and one
call its backward pass (`extension`). Such extensions wait until something that they computed is read: all that wait then are
one node. What they read of parameters is behind a node of its own, which stands before all of them, and which gets the sums
of their gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ... import _core
from ..autograd import (  # fmt: skip
    check_backward,
    gradients,
    keep_values,
    kept_values,
    outputs_and_values,
    save_tensors,
    saved_tensors,
    set_differentiable,
)
from ..bound import Bound
from ..memory.layout import Values
from ..order import Order, Wide
from ..plain import are_rows_in_memory, check_plain
from ..prepared.passes import sums_of
from ..ranges import is_profiling
from ..second_order import gradients as second
from .entered import Added, Entered, State
from .extension import Extension, extension_for
from .grown import Gradients, GradientsOfCall, Grown, add_rows
from .strips import Strip, Sweep


@dataclass(eq=False)
class Trail:
    """What leads a backward pass through a run. Nodes of the graph must not refer to it: it refers to them."""

    token: Tensor
    waiting: list[Added] = field(default_factory=list)  # extensions that are in no node yet
    entered: dict[int, Entered] = field(default_factory=dict)  # by the address of the programs
    # Of programs without gradients, whose extensions all have the same rows, by their address: with the state of parameters.
    passing: dict[int, tuple[Bound, Strip, State | None]] = field(default_factory=dict)

    @property
    def wants_gradients(self) -> bool:
        return self.token.requires_grad  # as it does behind parameters that extensions wait for

    def enter(
        self, grown: Grown, bound: Bound, read: Sequence[int], params: Sequence[Tensor], state: State | None
    ) -> Entered:
        """The parameters of these programs, in this state, behind a node; the backward pass reads those with the numbers `read`,
        and constants, which have the numbers behind inputs."""
        entered = self.entered.get(id(bound))
        if entered is None or not entered.holds(params, state):
            numbered = [*params, *bound.pulls, *bound.constants.values()]
            saved = [numbered[at] for at in read]
            # A leaf makes it a node even where these parameters want no gradients, and there is nothing before it.
            leaf = None if self.token.requires_grad else torch.zeros((), device=self.token.device, requires_grad=True)
            nodes: list[Any] = []
            self.token = _apply(_Enter, grown.gradients, nodes, saved, leaf, self.token, *params)
            entered = self.entered[id(bound)] = Entered(bound, params, state, nodes[0], [])
        return entered

    def end(self, grown: Grown, inputs: Sequence[Tensor] = ()) -> None:
        """Make a node of the extensions that wait; `inputs` are those of the last one, if they want gradients."""
        if self.waiting:
            added, self.waiting = self.waiting, []
            self.token = _apply(_Extensions, grown, added, self.token, *inputs)


class Mark(NamedTuple):
    """How far a run was."""

    num_vertices: int
    without_gradients: tuple[int, ...]  # its last number, and how many there were
    token: Tensor
    waiting: list[Added]
    num_waiting: int
    entered: dict[int, Entered]

    @classmethod
    def of(cls, grown: Grown, trail: Trail) -> Mark:
        """How far it is."""
        bounds, waiting = grown.without_gradients, trail.waiting
        return cls(grown.count, (*bounds[-1:], len(bounds)), trail.token, waiting, len(waiting), dict(trail.entered))

    def return_to(self, grown: Grown, trail: Trail) -> None:
        """Forget the vertices that were computed since, of which nothing has been read."""
        *last, number = self.without_gradients
        grown.count, grown.without_gradients[max(0, number - 1) :] = self.num_vertices, last
        del self.waiting[self.num_waiting :]
        trail.token, trail.waiting, trail.entered = self.token, self.waiting, self.entered


class Extended(NamedTuple):
    """What an extension in memory of its own was computed with, and further ones of as many vertices are."""

    bound: Bound
    order: Order
    extension: Extension
    entered: Entered | None  # None: it is not kept for a backward pass
    params: Sequence[Tensor]
    state: State | None  # of parameters


def extend(
    grown: Grown,
    trail: Trail,
    bound: Bound,
    order: Order,
    earlier: Tensor,
    flat: Sequence[Tensor],
    state: State | None,
) -> Extended | None:
    """Compute `order.num_rows` new vertices and add them; returns what others like them are computed with, if native code did it.

    `earlier` int32 [num_external]: the rows, in buffers of states, of the vertices that the new ones read; `flat` are parameters,
    which are in this state, then inputs, in vertex order.
    """
    extension = extension_for(bound, order)
    if extension is not None:
        entered = _add(grown, trail, bound, order, extension, earlier, flat, state)
        return Extended(bound, order, extension, entered, flat[: len(bound.params)], state)
    if bound.wants_gradients:
        trail.end(grown)
        trail.token = _apply(_Extend, grown, bound, order, earlier, trail.token, *flat)
    else:
        with torch.no_grad():
            _run(grown, bound, order, earlier, trail.token, flat)
    return None


def extend_alike(
    grown: Grown,
    trail: Trail,
    before: Extended,
    table: object,
    inputs: Mapping[str, Tensor],
    unchanged: tuple[Any, ...],
) -> int:
    """`extend` by vertices with these children, all of which came earlier, and inputs, if they are as many as before and all
    that decided that extension is what it was; returns how many they are, 0 where they must be added as those before were."""
    bound, order, extension, entered, params, state = before
    if is_profiling() or (entered is not None and trail.entered.get(id(bound)) is not entered):
        return 0
    count, given = order.num_rows, list(inputs.values())
    rows = np.empty((count, order.groups[0].num_slots), np.int32)
    if _core.take_rows(table, rows, 0, grown.count, unchanged, given) != count:
        return 0
    if not are_rows_in_memory(given, count):
        return 0
    earlier = torch.from_numpy(rows.reshape(-1))
    _add(grown, trail, bound, order, extension, earlier, [*params, *(inputs[name] for name in bound.pulls)], state)
    return count


def _add(
    grown: Grown,
    trail: Trail,
    bound: Bound,
    order: Order,
    extension: Extension,
    earlier: Tensor,
    flat: Sequence[Tensor],
    state: State | None,
) -> Entered | None:
    """Compute vertices natively, which wait for their node; returns the parameters as they read them, if they have one."""
    if not bound.wants_gradients:
        _run_prepared(grown, bound, order, extension, earlier, trail.token, flat)
        return None
    count, read = len(bound.params), extension.prepared.read
    is_saved_by_hooks = second.are_saved_by_hooks()
    if is_saved_by_hooks:  # each extension saves what it would save alone
        trail.entered.clear()
    entered = trail.enter(grown, bound, read, flat[:count], state)
    first = grown.count
    kept = _run_prepared(grown, bound, order, extension, earlier, trail.token, flat)
    trail.waiting.append(Added(bound, order, extension, earlier, first, entered, kept))
    inputs = flat[count:]
    if is_saved_by_hooks or any(value.requires_grad for value in inputs):
        trail.end(grown, inputs)
    return entered


def _apply(function: Any, *arguments: Any) -> Any:
    """`function.apply`, without its search for tensors of torch.func, which were refused before."""
    return super(torch.autograd.Function, function).apply(*arguments)


def read(grown: Grown, trail: Trail, names: Sequence[str], rows: Tensor, on_host: Wide | None) -> dict[str, Tensor]:
    """The pushed values of the given rows, int64 [n], which are in memory as well, or on a device alone."""
    if not torch.is_grad_enabled() or grown.are_without_gradients(on_host):
        return {name: grown.pushes[name].index_select(0, rows) for name in names}
    trail.end(grown)
    outputs = _apply(_Read, grown, trail.token, rows, *names)
    return dict(zip(names, outputs, strict=True))


class _Enter(torch.autograd.Function):
    """Parameters, whose gradients are those that extensions behind it have added up."""

    @staticmethod
    def forward(
        ctx: Any,
        gradients_of_run: Gradients,
        nodes: list[Any],
        saved: Sequence[Tensor],
        leaf: Tensor | None,
        token: Tensor,
        *params: Tensor,
    ) -> Tensor:
        save_tensors(ctx, saved)
        ctx.gradients = gradients_of_run
        nodes.append(ctx)
        return token.new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        of_call = ctx.gradients.of_this_call()
        for strip, (node, sweep) in list(of_call.sweeps.items()):
            if node is ctx:
                del of_call.sweeps[strip]
                _end(of_call, ctx, sweep)
        terms = of_call.params.pop(ctx, None)
        num_params = len(ctx.needs_input_grad) - 5
        sums = [None] * num_params if terms is None else sums_of(*terms)
        return (None, None, None, None, grad, *sums)


class _Extensions(torch.autograd.Function):
    """Extensions, the last of which may have inputs that want gradients."""

    @staticmethod
    def forward(ctx: Any, grown: Grown, added: list[Added], token: Tensor, *inputs: Tensor) -> Tensor:
        ctx.grown, ctx.added = grown, added
        kept: dict[int, Tensor] = {id(each.kept): each.kept for each in added}
        ctx.numbers = dict(zip(kept, range(len(kept)), strict=True))
        save_tensors(ctx, list(kept.values()))
        return token.new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        check_backward((), ())
        grown, saved = ctx.grown, saved_tensors(ctx)
        of_call = grown.gradients.of_this_call()
        of_inputs: Sequence[Tensor | None] = ()
        read_of: dict[Any, list[Tensor]] = {}
        for each in reversed(ctx.added):
            bound, entered, kept = each.bound, each.entered, saved[ctx.numbers[id(each.kept)]]
            read = read_of.get(entered.node)
            if read is None:
                read = read_of[entered.node] = saved_tensors(entered.node)
            if each.strip is not None:
                _sweep(grown, of_call, each, each.strip, kept, read)
                continue
            states = {name: grown.state_gradient(name, node) for name, node in each.extension.state_gradients.items()}
            pushed = [of_call.pushes.get(name) for name in bound.pushes]
            backward = each.extension.backward_for(bound, each.order, pushed)
            sums = of_call.params.get(entered.node)
            if sums is None:
                sums = of_call.params[entered.node] = backward.new_sums(len(bound.params))
            terms = each.extension.backward(backward, kept, read, each.first, pushed, states, each.earlier, sums[0])
            if each is ctx.added[-1] and len(ctx.needs_input_grad) > 3:
                of_inputs = backward.of_inputs(terms, len(bound.params))
        return (None, None, grad, *of_inputs)


def _sweep(
    grown: Grown, of_call: GradientsOfCall, added: Added, strip: Strip, kept: Tensor, read: Sequence[Tensor]
) -> None:
    """The backward pass of an extension in a strip, but for sums over rows."""
    bound, node = added.bound, added.entered.node
    _, sweep = of_call.sweeps.get(strip, (node, None))
    pushed = [of_call.pushes.get(name) for name in bound.pushes]
    if sweep is None or not sweep.goes_on(pushed, added.stop):
        if sweep is not None:
            _end(of_call, node, sweep)
        nodes = added.extension.state_gradients
        states = {name: grown.state_gradient(name, like) for name, like in nodes.items()}
        backward = added.extension.backward_for(bound, added.order, pushed)
        sweep = Sweep.of(strip, backward, kept, read, pushed, states, added.stop)
        of_call.sweeps[strip] = node, sweep
    sweep.run(added.row, added.first)


def _end(of_call: GradientsOfCall, node: Any, sweep: Sweep) -> None:
    """Add the sums over rows of a sweep to those of parameters."""
    sums, terms = of_call.params.get(node), sweep.end()
    if sums is None:
        of_call.params[node] = terms, sweep.backward.sums
        return
    for total, term in zip(sums[0], terms, strict=True):
        total.add_(term)


class _Extend(torch.autograd.Function):
    """One extension that is not native code throughout."""

    @staticmethod
    def forward(
        ctx: Any, grown: Grown, bound: Bound, order: Order, earlier: Tensor, token: Tensor, *flat: Tensor
    ) -> Tensor:
        ctx.start, ctx.grown, ctx.bound, ctx.order, ctx.earlier = grown.count, grown, bound, order, earlier
        keep_values(ctx, bound, _run(grown, bound, order, earlier, token, flat))
        return token.new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        order, grown = ctx.order, ctx.grown
        of_call = grown.gradients.of_this_call()
        first, end = ctx.start, ctx.start + order.num_rows
        pushed = {
            name: _of_vertices(of_call.pushes[name][first:end], order.vertices_of(groups))
            for name, groups in ctx.bound.pushes.items()
            if name in of_call.pushes
        }
        received = {name: grads[1 + first : 1 + end] for name, grads in of_call.states.items()}
        flat, external = gradients(ctx.bound, order, kept_values(ctx), pushed, received)
        for name, sums in external.items():
            gradient = grown.state_gradient(name, ctx.bound.state_gradients[name])
            add_rows(gradient, ctx.earlier, sums)
        return (None, None, None, None, grad, *flat)


def _run(
    grown: Grown, bound: Bound, order: Order, earlier: Tensor, token: Tensor, flat: Sequence[Tensor]
) -> list[Values]:
    """Compute an extension; returns its values."""
    first, count, groups = grown.count, order.num_rows, order.groups
    grown.reserve(bound, count, token.device)
    children = {name: rows.index_select(0, earlier) for name, rows in grown.states.items()} if len(earlier) else {}
    outputs, values = outputs_and_values(bound, order, flat, children)
    for name, rows in grown.states.items():
        new_rows = rows[1 + first : 1 + first + count]
        for group, compiled, values_of_group in zip(groups, bound.compiled, values, strict=True):
            new_rows.index_copy_(
                0, group.of(order.vertex).long(), values_of_group[compiled.program.trace.scatters[name]]
            )
    for (name, pushing), rows in zip(bound.pushes.items(), outputs, strict=True):
        new_rows, vertices_pushing = grown.pushes[name][first : first + count], order.vertices_of(pushing)
        if vertices_pushing is None:
            new_rows.copy_(rows)
        else:
            new_rows.zero_().index_copy_(0, vertices_pushing.long(), rows)
    grown.add(bound, count)
    return values


def _run_prepared(
    grown: Grown,
    bound: Bound,
    order: Order,
    extension: Extension,
    earlier: Tensor,
    token: Tensor,
    flat: Sequence[Tensor],
) -> Tensor:
    """The same where it is prepared; returns the memory that the backward pass reads."""
    grown.reserve(bound, order.num_rows, token.device)
    kept = extension.forward(flat, grown.count, grown.states, grown.pushes, earlier)
    grown.add(bound, order.num_rows)
    return kept


def _of_vertices(rows: Tensor, vertices: Tensor | None) -> Tensor:
    return rows if vertices is None else rows.index_select(0, vertices)


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grown: Grown, token: Tensor, rows: Tensor, *names: str) -> tuple[Tensor, ...]:
        outputs = tuple(grown.pushes[name].index_select(0, rows) for name in names)
        set_differentiable(ctx, dict(zip(names, outputs, strict=True)), grown.differentiable)
        ctx.grown, ctx.rows, ctx.names = grown, rows, names
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        gradients_by_name = {name: grad for name, grad in zip(ctx.names, grads, strict=True) if grad is not None}
        check_plain("the gradient of output", gradients_by_name)
        for name, grad in gradients_by_name.items():
            ctx.grown.add_output_gradient(name, ctx.rows, grad)
        token = next((grad.new_zeros(()) for grad in gradients_by_name.values()), None)
        return (None, token, None, *(None for _ in ctx.names))
