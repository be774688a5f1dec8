"""By what an optimizer divides each element of a gradient: noise is that of the steps it makes of gradients, not of these.

Adam steps by averages of g / (sqrt(v) + eps), with v the running mean of squares, so that directions count by how their gradients
vary, not by how large they are. Pollux (A. Qiao et al., OSDI 2021, in its code) measures Adam's noise so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, InputTypeError

YOUNGEST = 5  # steps, before which v is too little of a mean


def preconditioner_of(optimizer: Any, parameters: Mapping[str, Tensor]) -> Preconditioner | None:
    """How an optimizer scales the gradients of these parameters, by name; None where it does not.

    Raises:
        InputTypeError: it is no optimizer of which this is known: exactly `SGD`, `Adam` and `AdamW` of `torch.optim`.
        InputError: it does not have all of the parameters.
    """
    kind = type(optimizer)
    if optimizer is None or kind is torch.optim.SGD:
        return None
    if kind is torch.optim.Adam or kind is torch.optim.AdamW:
        return Preconditioner(optimizer, parameters)
    raise InputTypeError(
        f"optimizer is a {kind.__module__}.{kind.__qualname__}, of which it is not known how it scales gradients: noise is "
        "measured for SGD, Adam and AdamW of torch.optim themselves; without optimizer=, of the gradients as they are"
    )


class Preconditioner:
    """1 / (sqrt(v) + eps) for each element of some parameters, from the state of an `Adam` or `AdamW` before its next step.

    It is 0 for elements whose v is 0, and for parameters that have made fewer than `YOUNGEST` steps: 0 times a gradient that is
    not finite is not finite either.
    """

    def __init__(self, optimizer: torch.optim.Adam, parameters: Mapping[str, Tensor]) -> None:
        self.steps = 0  # that the optimizer has made since; its states are others afterwards
        self._optimizer = optimizer
        self._parameters = list(parameters.values())
        self._names = list(parameters)
        self._kept: dict[int, tuple[int, Tensor]] = {}  # of whole parameters, and of which number of steps
        self._groups = self.steps, self._known_groups()  # after which number of steps; loading exchanges them
        optimizer.register_step_post_hook(self._stepped)
        optimizer.register_load_state_dict_post_hook(self._stepped)

    def prepare(self, number: int) -> None:
        """Have the weights of a whole parameter. Of a sharded one, all ranks do it at the same time: its v is gathered."""
        if number not in self._kept or self._kept[number][0] != self.steps:
            self._kept[number] = self.steps, self._weights(number, is_whole=True)

    def whole(self, number: int) -> tuple[int, Tensor] | None:
        """What was prepared: of which number of steps, and the weights."""
        return self._kept.get(number)

    def own(self, number: int) -> Tensor:
        """The weights of what this rank has of a parameter: a piece, or the whole."""
        return self._weights(number, is_whole=False)

    def forget(self) -> None:
        """What was prepared, whose memory is that of the whole parameters."""
        self._kept.clear()

    @torch.no_grad()
    def _weights(self, number: int, is_whole: bool) -> Tensor:
        parameter = self._parameters[number]
        if self._groups[0] != self.steps:
            self._groups = self.steps, self._known_groups()
        state, group = self._optimizer.state.get(parameter), self._groups[1][id(parameter)]
        if not state:
            return torch.zeros((), device=parameter.device)
        v: Any = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
        if hasattr(v, "full_tensor"):
            v = v.full_tensor() if is_whole else v.to_local()
        steps = torch.as_tensor(state["step"]).double().to(v.device)
        v = (torch.view_as_real(v) if v.is_complex() else v).double()
        weights = 1 / ((v / (1 - float(group["betas"][1]) ** steps)).sqrt() + float(group["eps"]))
        weights = torch.where((v == 0) | (steps < YOUNGEST), 0.0, weights)
        return weights.to(torch.promote_types(parameter.dtype.to_real(), torch.float32))

    def _known_groups(self) -> dict[int, dict[str, Any]]:
        """The group of each parameter, by the parameter's address."""
        groups = {id(parameter): group for group in self._optimizer.param_groups for parameter in group["params"]}
        for name, parameter in zip(self._names, self._parameters, strict=True):
            if id(parameter) not in groups:
                raise InputError(
                    f"the optimizer has no parameter {name!r} of the model, which is trained: make it of all of "
                    "model.parameters(), after fully_shard or whatever else puts parameters in the place of others"
                )
        return groups

    def _stepped(self, *_: Any) -> None:
        self.steps += 1
