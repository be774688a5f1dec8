"""Goodput: how much a step of a batch size is worth, from the noise of gradients, which is measured while training.

With G the gradient of the expected loss and Sigma the covariance of the gradients of single graphs, the noise scale is
tr(Sigma) / |G|^2, in graphs (S. McCandlish et al., An Empirical Model of Large-Batch Training, 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from ..errors import InputError, InputTypeError
from .own_gradients import OwnGradients
from .reduce import group_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

ROUNDED = 1.1  # how much larger a square may be than it can be: gradients are rounded where they are added
PRECONDITIONED = "preconditioned"  # in the state of a noise that is measured of Adam's steps


def efficiency(noise: float, batch: float, base: float) -> float:
    """What a graph in batches of `batch` graphs is worth, beside one in batches of `base`: (noise + base) / (noise + batch), as
    in Pollux (A. Qiao et al., OSDI 2021).

    Raises:
        InputError: numbers that are not positive; a noise below 0.
    """
    _check(noise, batch, base)
    return 1.0 if math.isinf(noise) else (noise + base) / (noise + batch)


def gain(noise: float, batch: float, base: float) -> float:
    """AdaScale's gain r of a step: as many steps of `base` graphs is one of `batch` graphs worth (T. Johnson et al., AdaScale
    SGD, ICML 2020). The learning rate for SGD is r times that for batches of `base`, and schedules of it go on by r steps.

    It is efficiency(noise, batch, base) * batch / base: from 1 (no noise) to batch / base (nothing but noise).

    Raises:
        InputError: as for `efficiency`.
    """
    return efficiency(noise, batch, base) * batch / base


def best_batch(rates: Mapping[int, float], noise: float, base: float) -> int:
    """The batch size of the largest goodput, graphs a second times efficiency.

    Args:
        rates: graphs a second that are measured, or predicted (`plan.prediction.graphs_per_second`), by batch size.
        noise, base: as for `efficiency`.

    Raises:
        InputError: as for `efficiency`; no rates, or one that is not positive.

    Example:
        >>> size = vf.parallel.best_batch({32: 4100.0, 128: 9000.0, 512: 10500.0}, noise.scale, base=32)
    """
    if not rates or not all(0 < rate < math.inf for rate in rates.values()):
        raise InputError(f"rates are {dict(rates)}; give graphs a second for each batch size, positive numbers")
    return max(rates, key=lambda batch: (rates[batch] * efficiency(noise, batch, base), -batch))


class GradientNoise:
    """Measures the noise scale while training, from the gradients of the parts of each step: ranks, or batches whose gradients
    are accumulated, or both.

    Let a step have K parts, with shares w_k of the rows over which the loss is a mean, and B graphs; g_k the gradient of part k
    and g = sum of w_k g_k that of the whole. As `E |g|^2 = |G|^2 + tr(Sigma) / B`, and that of the sum of
    `w_k |g_k|^2` is `|G|^2 + K tr(Sigma) / B`,

        tr(Sigma) = B (sum of w_k |g_k|^2 - |g|^2) / (K - 1)        |G|^2 = (K |g|^2 - sum of w_k |g_k|^2) / (K - 1)

    without bias, however unequal the parts are, if graphs are in parts by chance. Both are averaged exponentially over steps, and
    the scale is their ratio. A step whose gradients are not all finite is left out.

    Adam steps by g / (sqrt(v) + eps), with v the running mean of squares of each element; the noise of its steps is that of these
    quotients, and the squares are then taken of them, with v as it is before the step (A. Qiao et al., Pollux, OSDI 2021).
    Parameters that have made fewer than 5 steps, and elements whose v is 0, do not count. Of sharded parameters, v is gathered
    once a step, when modules are called, and kept until `update`: that takes the memory of all parameters, whole.

    Args:
        model: whose parameters are whole, and their gradients averaged by DDP where there are several ranks; or after
            `fully_shard`, with parameters that are sharded over all ranks of `group`. Losses are made with `vf.parallel.mean` or
            `vf.parallel.sum`.
        optimizer: that makes the steps, exactly `Adam` or `AdamW` of `torch.optim`, with all parameters of the model that are
            trained; or `SGD`, which is the same as none, the noise of the gradients as they are. Weight decay is not counted.
        decay: how much of the averages stays in a step.
        group: the ranks that share the batch; by default all.

    Raises:
        InputError: parameters of which some are sharded and others are not, or that are sharded over other ranks than `group`,
            or that the optimizer does not have; a decay that is not from 0 to 1.
        InputTypeError: another optimizer.

    Example:
        >>> noise = vf.parallel.GradientNoise(model, optimizer=optimizer)
        >>> for parts in steps:                                       # of this rank; one is enough where there are several ranks
        ...     for part in parts:
        ...         (vf.parallel.sum(losses_of(part)) / rows).backward()
        ...         noise.add(num_rows_of(part))
        ...     noise.update(sum(map(len, parts)))                    # before gradients are unscaled or clipped
        ...     gain = vf.parallel.gain(noise.scale, batch, base)
        ...     set_learning_rate(rate * (gain if is_sgd else gain**0.5))     # the square root for Adam, as in Pollux
        ...     optimizer.step()
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        decay: float = 0.98,
        group: ProcessGroup | DeviceMesh | None = None,
    ) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"decay is {decay!r}; give a number from 0 up to, not including, 1")
        self._gradients = OwnGradients(model, group_of(group), optimizer)
        if not self._gradients.parameters:
            raise InputError("the model has no parameters that are trained")
        self.decay, self.updates = decay, 0
        self._group = group
        self._trace, self._square = 0.0, 0.0
        self._begin()

    def _begin(self) -> None:
        self._sum, self._rows, self._parts, self._empty = 0.0, 0.0, 0, 0

    def add(self, rows: float | Tensor) -> None:
        """A backward pass of a part is done; its loss was over so many rows (or weights). Call it after each.

        Raises:
            InputError: a number of rows that is none; a parameter's gradient came in several pieces, as of two backward passes.
        """
        square = self._gradients.take()
        count = float(rows)
        if not 0 <= count < math.inf:
            raise InputError(f"a part has {rows} rows; give a number from 0 up")
        self._parts += count > 0
        self._empty += count == 0
        if count:
            self._rows += count
            self._sum += 0.0 if square is None else float(square) / count

    def update(self, graphs: int) -> None:
        """The gradients of a step are complete; this rank had so many graphs in it. All ranks call it; they get the same.

        A step of which nothing counts, as of the first five of Adam, is left out.

        Raises:
            InputError: the step had one part on one rank, which says nothing of noise; `add` was not called; the gradients of
                the parameters are not those of the parts; the model has other parameters than when this was made; the
                optimizer has made its step already.
        """
        group = group_of(self._group)
        ranks = 1 if group is None else distributed.get_world_size(group)
        square = self._gradients.square(ranks)
        device = self._gradients.parameters[0].device
        totals = torch.tensor(
            [self._sum / ranks**2, self._rows, self._parts, self._empty, graphs, square], dtype=torch.float64
        ).to(device)
        self._begin()
        if group is not None:
            distributed.all_reduce(totals, group=group)
        of_parts, rows, parts, empty, batch, square = totals.tolist()
        if parts + empty < 2:
            raise InputError(
                f"the step had {parts + empty:.0f} parts, of which add() was told; noise shows in the difference between two or "
                "more: several ranks, or gradients that are accumulated"
            )
        if parts < 2:  # the last batch of an epoch may be that small
            return
        mean = rows * of_parts
        if not math.isfinite(mean + square):  # a scaler of float16, for one, makes the step again with another scale
            return
        if self._gradients.preconditioner is not None and not mean:
            return
        if square > ROUNDED * mean:  # it is at most that, whatever the parts are
            raise InputError(
                f"the squared norm of the step's gradients is {square:.3g}, to which parts of {mean:.3g} on average cannot add "
                "up: begin each step with zero_grad(), and call add() after each backward pass"
            )
        trace, gradient = batch * (mean - square) / (parts - 1), (parts * square - mean) / (parts - 1)
        self._trace = self.decay * self._trace + (1 - self.decay) * trace
        self._square = self.decay * self._square + (1 - self.decay) * gradient
        self.updates += 1

    @property
    def scale(self) -> float:
        """The noise scale in graphs; 0 before the first update, infinite where no gradient is seen in the noise."""
        trace = max(self._trace, 0.0)
        return trace / self._square if self._square > 0 else math.inf if trace else 0.0

    def state_dict(self) -> dict[str, Any]:
        """The averages, for a checkpoint."""
        state = {"trace": self._trace, "square": self._square, "updates": self.updates}
        return state if self._gradients.preconditioner is None else {**state, PRECONDITIONED: True}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with averages that `state_dict` gave.

        Raises:
            InputError: one is of an `Adam`'s steps, the other of gradients as they are.
            InputTypeError: it gave something else.
        """
        ours, theirs = set(self.state_dict()), set(state) if isinstance(state, Mapping) else set()
        if ours ^ theirs == {PRECONDITIONED}:
            of = ("gradients as they are", "the steps of Adam")
            there, here = of[PRECONDITIONED in theirs], of[PRECONDITIONED in ours]
            raise InputError(
                f"the state is of the noise of {there}, and this is for {here}: give it the same optimizer="
            )
        if ours != theirs:
            raise InputTypeError("this is no state of a GradientNoise")
        self._trace, self._square, self.updates = state["trace"], state["square"], state["updates"]


def _check(noise: float, batch: float, base: float) -> None:
    if not noise >= 0:
        raise InputError(f"the noise scale is {noise}; it is a number from 0 up")
    for name, value in (("batch", batch), ("base", base)):
        if not 0 < value < math.inf:
            raise InputError(f"{name} is {value}; give a number of graphs, from 1 up")
