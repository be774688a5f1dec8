"""What extensions of a run have read of parameters, and what they leave for their backward pass."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ..bound import Bound
from ..order import Order
from ..prepared.passes import is_plain
from .extension import Extension
from .strips import Strip

State = list[tuple[int, int, bool]]  # of tensors: the version of each, where it lies, and whether it is plain


class Entered(NamedTuple):
    """Parameters as extensions read them, behind one node of the autograd graph."""

    bound: Bound
    params: Sequence[Tensor]
    state: State | None  # None: nobody knows whether they change
    node: Any  # which has saved those that the backward pass reads, and constants
    strips: list[Strip]  # for extensions that have read them

    def holds(self, params: Sequence[Tensor], state: State | None) -> bool:
        """Whether the parameters are these, and have not changed."""
        return (
            state is not None
            and (self.state is state or self.state == state)
            and all(map(operator.is_, params, self.params))
        )


class Added(NamedTuple):
    """Vertices that native code has computed, as their backward pass needs them."""

    bound: Bound
    order: Order
    extension: Extension
    earlier: Tensor
    first: int
    entered: Entered
    kept: Tensor  # memory of their own, or of their strip, in which inputs are as well
    strip: Strip | None = None
    row: int = 0  # in the strip, rows [row, stop)
    stop: int = 0


def state_of(params: Sequence[Tensor]) -> State | None:
    """The state of parameters; None if nobody knows whether they change."""
    if any(map(Tensor.is_inference, params)):
        return None
    return [(tensor._version, tensor.data_ptr(), is_plain(tensor)) for tensor in params]
