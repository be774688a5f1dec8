"""A model in stages: its parts on different ranks, through which micro-batches of graphs go one after the other (GPipe).

Each rank runs the model's own `forward` once for each micro-batch. Parts of its stage compute; those of others do not, and what
they give is `Staged`. A value that a later stage reads is sent when it is first read. Sends and receives are in one order on all
ranks, that of the micro-batches and, in each, of the program; in the backward pass, of the micro-batches backwards and, in each,
of the stages backwards: whichever comes first can be done, so that no rank waits for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup
from torch.utils._pytree import (
    TreeSpec,
    tree_flatten,
    tree_leaves,
    tree_structure,
    tree_unflatten,
    treespec_dumps,
    treespec_loads,
)

from ..errors import InputError, InputTypeError, VertexFlowError
from ..graph.inputs.pack import GraphBatch
from ..graph.uncompiled import uncompiled
from .graph_part import GraphPart
from .micro_batches import Cutter, packed
from .same_batch import check_same_graphs
from .staged import Staged, checked, moved
from .transfer import Sender, no_tensor, receive


class Given(NamedTuple):
    """A piece of an output that a micro-batch gave: rows `start` to `end` of the output of this number."""

    number: int
    start: int
    end: int
    value: Tensor


class Passage:
    """A micro-batch on its way through the stages, as one rank sees it: what it sent and received, in order."""

    def __init__(self, stage: int, sender: Sender) -> None:
        self.stage, self.sender = stage, sender
        self.sent: list[tuple[int, Tensor]] = []  # those that have gradients, with the stage to which they went
        self.received: list[tuple[int, Tensor]] = []
        self.given: list[Given] = []

    def send(self, value: Any, source: int, target: int) -> Tensor | None:
        """Bring a value from one stage to another; all ranks call it. Returns it where it arrives."""
        if self.stage == source:
            if not isinstance(value, Tensor):
                self.sender.refuse(target)
                raise no_tensor(source, target)
            self.sender.send(value, target)
            if value.requires_grad:
                self.sent.append((target, value))
        elif self.stage == target:
            arrived = receive(source, self.sender.group, self.sender.device)
            arrived.requires_grad_(arrived.requires_grad and torch.is_grad_enabled())
            if arrived.requires_grad:
                self.received.append((source, arrived))
            return arrived
        return None

    def backward(self, grads: Sequence[Tensor | None], leaves: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The gradients of leaves, where those of the outputs are given; all ranks call it."""
        roots: list[tuple[Tensor, Tensor]] = []
        for number, start, end, value in self.given:
            grad = grads[number]
            if grad is not None and value.requires_grad:
                roots.append((value, grad[start:end]))
        for target, value in sorted(self.sent, key=lambda each: -each[0]):  # the last stage has its gradients first
            roots.append((value, receive(target, self.sender.group, self.sender.device)))
        wanted = [*leaves, *(value for _, value in self.received)]
        gradients: Sequence[Tensor | None] = [None] * len(wanted)
        if roots and wanted:
            values, given = zip(*roots, strict=True)
            gradients = torch.autograd.grad(values, wanted, given, allow_unused=True)
        for (source, value), grad in zip(self.received, gradients[len(leaves) :], strict=True):
            self.sender.send(torch.zeros_like(value) if grad is None else grad, source)
        return gradients[: len(leaves)]


class _OfThread(threading.local):
    """The micro-batch that is under way in this thread; None between calls. No part holds it: a vertex function is traced anew
    when something changes that its hooks hold."""

    passage: Passage | None = None


_of_thread = _OfThread()


class Pipeline(nn.Module):
    """A model whose parts are in stages; made by `Plan.apply`. It is called as the model is, on all ranks of the stages, with the
    same arguments.

    Attributes:
        module: the model, with the parts of this rank's stage alone.
        stage: this rank's.
    """

    def __init__(
        self,
        module: nn.Module,
        stages: Mapping[str, int],
        group: ProcessGroup,
        cutter: Cutter,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.stage, self.group, self.device = distributed.get_rank(group), group, device
        self._cutter = cutter
        self._anchor = torch.zeros(
            (), device=device, requires_grad=True
        )  # a rank without parameters goes backward as well
        modules = dict(module.named_modules())
        for name, stage in stages.items():
            if stage == self.stage:
                modules[name].register_forward_pre_hook(_Enter(stage), with_kwargs=True)
                modules[name].register_forward_hook(_Leave(stage))
            else:
                parent, _, attribute = name.rpartition(".")
                modules[parent]._modules[attribute] = Elsewhere(name, stage)
        self.module = module

    @uncompiled
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model on a batch: what it gives, on all ranks."""
        flat, form = tree_flatten((args, kwargs))
        call = _Call(self, flat, form)
        if not torch.is_grad_enabled():
            return tree_unflatten(list(call.run({})), call.result)
        inputs = {number: leaf for number, leaf in enumerate(flat) if isinstance(leaf, Tensor) and leaf.requires_grad}
        leaves = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        outputs = _Through.apply(call, list(inputs), self._anchor, *inputs.values(), *leaves)  # type: ignore[no-untyped-call]
        return tree_unflatten(list(outputs), call.result)


@dataclass
class _Call:
    """One call of a pipeline. `result` is the form of what it gives, `passages` its micro-batches, once it has run."""

    pipeline: Pipeline
    flat: list[Any]
    form: TreeSpec
    result: TreeSpec = field(init=False)
    passages: list[Passage] = field(default_factory=list)

    def run(self, own: Mapping[int, Tensor]) -> list[Tensor]:
        """All micro-batches; returns the outputs, on all ranks. `own` are arguments, by number, in the place of those given."""
        pipeline, results = self.pipeline, []
        sender = Sender(pipeline.group, pipeline.device)
        args, kwargs = tree_unflatten([own.get(number, leaf) for number, leaf in enumerate(self.flat)], self.form)
        args, kwargs = packed((args, kwargs))
        batches = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, (GraphBatch, GraphPart))]
        check_same_graphs(batches, pipeline.group, pipeline.device)
        pieces_of_arguments, row_counts = pipeline._cutter.cut(args, kwargs)
        for piece, named in pieces_of_arguments:
            passage = Passage(pipeline.stage, sender)
            _of_thread.passage = passage
            try:
                results.append(pipeline.module(*piece, **named))
            except VertexFlowError:
                sender.finish()  # what is refused on all ranks is so once they have what was sent before
                raise
            finally:
                _of_thread.passage = None
            self.passages.append(passage)
        flat = [tree_flatten(result) for result in results]
        outputs: list[Tensor] = []
        forms = []
        for number in range(len(flat[0][0])):
            pieces = [
                _staged(leaves[number], passage) for (leaves, _), passage in zip(flat, self.passages, strict=True)
            ]
            values, form = self._joined(pieces, len(outputs), row_counts)
            outputs += values
            forms.append(tree_unflatten([0] * len(values), form))
        sender.finish()
        self.result = tree_structure(tree_unflatten(forms, flat[0][1]))
        return outputs

    def _joined(
        self, pieces: Sequence[Staged], number: int, row_counts: Mapping[str, tuple[int, ...]]
    ) -> tuple[list[Tensor], TreeSpec]:
        """Outputs of all micro-batches, one after the other, on all ranks; the first of them has this number."""
        pipeline, stage = self.pipeline, pieces[0]._stage
        message: list[Any] = [None]
        joined: list[Tensor] = []
        if pipeline.stage == stage:
            try:
                columns, form = _columns([piece._value for piece in pieces])
                for column in columns:
                    _check_rows(column, row_counts)
                    self._note(number + len(joined), column)
                    joined.append(torch.cat([value.detach() for value in column]))
                kinds = [any(value.requires_grad for value in column) for column in columns]
                message = [
                    (treespec_dumps(form), [(v.shape, v.dtype, kind) for v, kind in zip(joined, kinds, strict=True)])
                ]
            except VertexFlowError as error:  # which all ranks raise: they wait for this one
                message = [error]
        source = distributed.get_global_rank(pipeline.group, stage)
        distributed.broadcast_object_list(message, source, pipeline.group, pipeline.device)
        if isinstance(message[0], VertexFlowError):
            raise message[0]
        form, described = treespec_loads(message[0][0]), message[0][1]
        if pipeline.stage != stage:
            joined = [torch.empty(shape, dtype=dtype, device=pipeline.device) for shape, dtype, _ in described]
        for value, (_, _, is_differentiable) in zip(joined, described, strict=True):
            if value.numel():
                distributed.broadcast(value, source, pipeline.group)
            value.requires_grad_(is_differentiable)
        return joined, form

    def _note(self, number: int, column: Sequence[Tensor]) -> None:
        start = 0
        for passage, value in zip(self.passages, column, strict=True):
            passage.given.append(Given(number, start, start + len(value), value))
            start += len(value)


class _Through(torch.autograd.Function):
    """All micro-batches forward, and all of them backward."""

    @staticmethod
    def forward(ctx: Any, call: _Call, inputs: list[int], anchor: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        own = {number: value.detach().requires_grad_() for number, value in zip(inputs, leaves, strict=False)}
        with torch.enable_grad():
            outputs = call.run(own)
        ctx.call, ctx.leaves, ctx.num_inputs = call, [*own.values(), *leaves[len(own) :]], len(own)
        ctx.set_materialize_grads(False)
        results = tuple(value.detach() for value in outputs)
        ctx.mark_non_differentiable(
            *(result for result, value in zip(results, outputs, strict=True) if not value.requires_grad)
        )
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        if not call.passages:
            raise VertexFlowError(
                "backward was called twice on what a model in stages gave, which keeps nothing after the first time"
            )
        totals: list[Tensor | None] = [None] * len(ctx.leaves)
        while call.passages:  # backwards; what a micro-batch kept is free when it is done
            passage = call.passages.pop()
            gradients = passage.backward(grads, ctx.leaves)
            totals = [_sum(total, grad) for total, grad in zip(totals, gradients, strict=True)]
        sender = passage.sender
        sender.finish()
        for number in range(ctx.num_inputs):  # each stage has its part of them
            grad = totals[number]
            total = torch.zeros_like(ctx.leaves[number]) if grad is None else grad.contiguous()
            distributed.all_reduce(total, group=sender.group)
            totals[number] = total
        return (None, None, None, *totals)


def _sum(total: Tensor | None, grad: Tensor | None) -> Tensor | None:
    return grad if total is None else total if grad is None else total + grad


def _staged(value: Any, passage: Passage) -> Staged:
    """What a model gives: of the first stage, where it does not come of parts."""
    if isinstance(value, Staged):
        return value
    if not isinstance(value, Tensor):
        raise InputTypeError(
            f"a model in stages gives a {type(value).__name__}; it gives tensors, alone or in mappings and tuples"
        )
    return Staged(passage, 0, value if passage.stage == 0 else None)


def _columns(values: Sequence[Any]) -> tuple[list[list[Tensor]], TreeSpec]:
    """Each tensor of an output, of all micro-batches, and the form of the output."""
    flat = [tree_flatten(value) for value in values]
    for leaves, _ in flat:
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise InputTypeError(f"a model in stages gives a {type(leaf).__name__}; it gives tensors")
            if not leaf.dim():
                raise InputError(
                    "a model in stages gives a single number, of each micro-batch; give one value for each row, such as losses "
                    'with reduction="none", and vf.parallel.mean of them'
                )
    return [list(column) for column in zip(*(leaves for leaves, _ in flat), strict=True)], flat[0][1]


def _check_rows(column: Sequence[Tensor], row_counts: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse an output that has no row for each vertex, graph or the like: of all micro-batches one after the other, it would be
    none that the whole batch has."""
    lengths = tuple(map(len, column))
    if len(lengths) > 1 and lengths not in row_counts.values():
        raise InputError(
            f"a model in stages gives a tensor of {', '.join(map(str, lengths))} rows in its micro-batches, which have "
            f"{'; '.join(f'{list(counts)} {sort}' for sort, counts in row_counts.items())}. What micro-batches give is put one "
            "behind the other: give a row for each of these, and what belongs to the model itself (a parameter, say) outside "
            "of its forward"
        )


@dataclass(frozen=True)
class _Enter:
    """Before a part of this stage runs: its arguments are brought here."""

    stage: int

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return moved((args, kwargs), self.stage) if _of_thread.passage is not None else (args, kwargs)


@dataclass(frozen=True)
class _Leave:
    """After a part of this stage has run: what it gives is of this stage."""

    stage: int

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        passage = _of_thread.passage
        return output if passage is None else Staged(passage, self.stage, checked(output))


class Elsewhere(nn.Module):
    """A part of another stage."""

    def __init__(self, name: str, stage: int) -> None:
        super().__init__()
        self._name, self._stage = name, stage

    def forward(self, *args: Any, **kwargs: Any) -> Staged:
        passage = _of_thread.passage
        if passage is None:
            raise InputError(f"part {self._name!r} is in stage {self._stage}, on another rank; call the whole model")
        moved((args, kwargs), self._stage)
        return Staged(passage, self._stage, None)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise AttributeError(
                f"part {self.__dict__.get('_name')!r} is in stage {self.__dict__.get('_stage')}, on another rank, which alone "
                f"has its {name!r}; a model in stages calls its parts and reads nothing else of them"
            ) from None
