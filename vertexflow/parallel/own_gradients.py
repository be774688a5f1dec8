"""The gradients of this rank's backward passes, before they are averaged with those of other ranks: their squares.

DDP averages what is in `.grad`, after the hooks of a parameter have seen it. `fully_shard` has whole parameters while a module is
called, ordinary tensors in the place of the pieces, which stay the same from call to call; their gradients are averaged and cut
after the hooks of these have seen them. So hooks see the same in both, and `.grad` is the average in both, whole or a piece.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import InputError
from .preconditioned import Preconditioner, preconditioner_of


class OwnGradients:
    """Squares of the gradients of the parameters of a model that are trained.

    Args:
        model: with whole parameters (before DDP or after it), or all of them sharded (after `fully_shard`).
        group: the ranks whose gradients are averaged.
        optimizer: as whose steps the squares are taken, of gradients that are scaled as it scales them.

    Raises:
        InputError: parameters that are sharded in another way, or over other ranks, or that the optimizer does not have.
        InputTypeError: an optimizer of which is not known how it scales gradients.
    """

    def __init__(self, model: nn.Module, group: ProcessGroup | None, optimizer: Any = None) -> None:
        sharded = [module for module in model.modules() if _is_sharded(module)]
        for module in sharded:
            module.reshard()  # type: ignore[operator]  # after an evaluation the outermost has whole parameters
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.parameters = list(named.values())
        self.preconditioner: Preconditioner | None = preconditioner_of(optimizer, named)
        numbers = {id(parameter): number for number, parameter in enumerate(self.parameters)}
        self._places = [
            (module, name, numbers[id(parameter)])
            for module in model.modules()
            for name, parameter in module._parameters.items()
            if id(parameter) in numbers
        ]
        # By parameter: the square of the last gradient, which may be one of `torch.autograd.grad`, and after how many steps of
        # the optimizer it was scaled, if it was.
        self._last: dict[int, tuple[Tensor, int | None]] = {}
        self._added: dict[int, tuple[Tensor, int | None]] = {}  # those of what was added to `.grad`
        self._scaled: set[int | None] = set()  # after how many steps of the optimizer those were scaled that were taken
        self._split: set[int] = set()  # parameters to whose `.grad` was added several times
        self._held: set[int] = set()  # parameters of which `fully_shard` keeps gradients that are not averaged yet
        self._watched = WeakTensorKeyDictionary()  # whole parameters that have hooks
        self._known: set[int] = set()  # parameters of which these are known
        if not any(map(_is_piece, self.parameters)):
            for number, parameter in enumerate(self.parameters):
                self._watch(number, parameter)
            return
        for parameter in self.parameters:
            _check_sharded(parameter, group)
        for number, parameter in enumerate(self.parameters):
            parameter.register_post_accumulate_grad_hook(functools.partial(self._averaged, number))  # type: ignore[no-untyped-call]
        for outer in sharded:
            inside = set(outer.modules())
            places = [place for place in self._places if place[0] in inside]
            outer.register_forward_pre_hook(functools.partial(self._watch_whole, places))  # after that of `fully_shard`

    def take(self) -> Tensor | None:
        """The square of what has been added to the gradients since the last call, float64; None if nothing was.

        Raises:
            InputError: a parameter's gradient came in several pieces, as of two backward passes.
        """
        squares, is_split = [square for square, _ in self._added.values()], bool(self._split)
        self._scaled |= {steps for _, steps in self._added.values()}
        self._added, self._split = {}, set()
        if is_split:
            raise InputError(
                "gradients of one parameter came several times since the last add(), and the square of their sum is not known: "
                "call add() after each backward pass, of one loss; checkpoints are made with use_reentrant=False"
            )
        return torch.stack(squares).sum() if squares else None

    def square(self, ranks: int) -> float:
        """What this rank adds to the square of the averaged gradient, of so many ranks.

        Raises:
            InputError: the model has other parameters than before; gradients that no hook has seen; the optimizer has made a
                step since the backward passes.
        """
        scaled, self._scaled = self._scaled, set()
        if self.preconditioner is not None and scaled - {self.preconditioner.steps}:
            raise InputError(
                "the optimizer has made a step since gradients were seen, by which it scales them otherwise: call update() after "
                "the backward passes of a step and before optimizer.step()"
            )
        for module, name, number in self._places:
            parameter = module._parameters.get(name)
            if parameter is not self.parameters[number] and (parameter is None or parameter not in self._watched):
                raise InputError(
                    f"the model's {name!r} is another parameter than it was; make GradientNoise after fully_shard, and whatever "
                    "else puts parameters in the place of others"
                )
        squares = []
        for number, parameter in enumerate(self.parameters):
            grad: Any = parameter.grad
            if grad is None:
                continue
            if number not in self._known:
                names = [name for _, name, each in self._places if each == number]
                raise InputError(
                    f"the gradient of {names[0]!r} was averaged before it was seen: noise is measured where fully_shard gathers "
                    "parameters for a call of the module, not for another of its methods (register_fsdp_forward_method), and "
                    "where it gathers whole tensors"
                )
            copies = ranks
            if _is_piece(grad):
                copies, grad = _copies(grad), grad.to_local()
            weights = None if self.preconditioner is None else self.preconditioner.own(number)
            squares.append(_square(grad, weights) / copies)
        if self.preconditioner is not None:
            self.preconditioner.forget()
        return float(torch.stack(squares).sum()) if squares else 0.0

    def _watch(self, number: int, parameter: Tensor) -> None:
        if parameter in self._watched:
            return
        self._watched[parameter] = number
        self._known.add(number)
        parameter.register_hook(functools.partial(self._see, number))  # type: ignore[no-untyped-call]
        parameter.register_post_accumulate_grad_hook(functools.partial(self._count, number))  # type: ignore[no-untyped-call]

    def _watch_whole(self, places: list[tuple[nn.Module, str, int]], module: nn.Module, args: Any) -> None:
        for owner, name, number in places:
            parameter = owner._parameters.get(name)
            if isinstance(parameter, Tensor) and not _is_piece(parameter):
                self._watch(number, parameter)
                if self.preconditioner is not None and torch.is_grad_enabled():
                    self.preconditioner.prepare(number)  # here, as all ranks call modules in the same order

    def _see(self, number: int, grad: Tensor) -> None:
        scaled = None
        if self.preconditioner is not None:
            if not _is_piece(self.parameters[number]):
                self.preconditioner.prepare(number)
            scaled = self.preconditioner.whole(number)
        steps, weights = scaled or (None, None)
        self._last[number] = _square(grad.detach(), weights), steps  # of this pass alone, before it is averaged
        if self.parameters[number].grad is None and number not in self._held:
            # A step begins; what came before is not in it.
            self._added.pop(number, None)
            self._split.discard(number)

    def _count(self, number: int, parameter: Tensor) -> None:
        if number in self._added:
            self._split.add(number)
        self._added[number] = self._last.pop(number)
        if parameter is not self.parameters[number]:
            self._held.add(number)

    def _averaged(self, number: int, parameter: Tensor) -> None:
        self._held.discard(number)


def _square(grad: Tensor, weights: Tensor | None) -> Tensor:
    """The sum of the squares of a gradient, each element times its weight; float64."""
    reals = (torch.view_as_real(grad) if grad.is_complex() else grad).double()
    return (reals if weights is None else reals * weights.to(reals.device)).square().sum()


def _is_sharded(module: nn.Module) -> bool:
    """Whether it went through `fully_shard`, which takes a second to import."""
    return hasattr(module, "reshard") and hasattr(module, "set_requires_gradient_sync")


def _is_piece(tensor: Tensor) -> bool:
    """Whether it is a `DTensor`."""
    return hasattr(tensor, "full_tensor")


def _copies(tensor: Any) -> int:
    """How many ranks have the same piece."""
    copies = 1
    for dim, placement in enumerate(tensor.placements):
        copies *= tensor.device_mesh.size(dim) if placement.is_replicate() else 1
    return copies


def _check_sharded(parameter: Any, group: ProcessGroup | None) -> None:
    """Refuse a parameter of which `group` has not all pieces, each cut once."""
    if not _is_piece(parameter):
        raise InputError("some parameters are sharded and others are not; noise is measured where all are, or none")
    if sum(not placement.is_replicate() for placement in parameter.placements) != 1:
        raise InputError(
            f"a parameter is cut as {list(parameter.placements)}; noise is measured of parameters that fully_shard alone cuts"
        )
    of_mesh = sorted(parameter.device_mesh.mesh.flatten().tolist())
    of_group = distributed.get_process_group_ranks(group) if distributed.is_initialized() else [0]
    if of_mesh != sorted(of_group):
        raise InputError(
            f"the parameters are sharded over the ranks {of_mesh}, and noise is asked of {sorted(of_group)}; give GradientNoise "
            "the group= over which fully_shard averages gradients"
        )
