"""Rows of states from the ranks that computed them to those that read them: an operation of its own, so that a trace records it.

One exchange moves rows between all ranks of a group. Every rank has a table of rows that leave and rows that arrive, both sorted
by the other rank; gradients go the same ways back. Rows of an exchange are vertices of a rank's graph: the first of them carry
what leaves, and the first of them get what arrives, so that there are as many as the larger of both, and one at least.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from ..errors import InputError
from ..kernels.operations import WHOLE_STEPS

_numbers = itertools.count()
_routes: WeakValueDictionary[int, Routes] = WeakValueDictionary()
_is_alone: ContextVar[bool] = ContextVar("is_alone", default=False)


class Routes:
    """How many rows this rank sends to each rank, and gets of each, in every exchange of a graph.

    Attributes:
        number: by which an exchange knows its routes.
        sent, received: `[exchanges][ranks]`.
    """

    def __init__(self, sent: Sequence[Sequence[int]], received: Sequence[Sequence[int]], group: ProcessGroup) -> None:
        self.number = next(_numbers)
        self.sent, self.received, self.group = sent, received, group
        _routes[self.number] = self


@contextmanager
def nobody_else() -> Iterator[None]:
    """Rows go back to where they come from, for a trace that is tried on numbers: nobody waits for anybody."""
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


def exchange_rows(values: Tensor, table: Tensor, back: bool) -> Tensor:
    """What arrives, of what leaves; zeros in rows to which nothing comes.

    Args:
        values: `[rows, columns]`.
        table: int64 `[rows, 3]`: the number of the `Routes` and that of the exchange, the same in all rows, and the place of each
            row among the rows of this exchange.
        back: gradients, from those that read rows to those that computed them.
    """
    if _is_alone.get():
        return values.clone()
    number, at = table[0, :2].tolist()
    routes, places = _routes[number], table[:, 2]
    sizes, sizes_back = routes.sent[at], routes.received[at]
    leave, arrive = (sizes_back, sizes) if back else (sizes, sizes_back)
    in_order = torch.empty_like(values).index_copy_(0, places, values)
    result = torch.zeros_like(values)
    count = sum(arrive)
    message = in_order[: sum(leave)].view(torch.uint8)  # of any dtype
    arrived = message.new_empty((count, message.shape[1]))
    distributed.all_to_all_single(arrived, message, list(arrive), list(leave), group=routes.group)
    result[:count] = arrived.view(values.dtype)
    return result.index_select(0, places)


exchange: Any = torch.library.custom_op("vertexflow::exchange_rows", exchange_rows, mutates_args=())
exchange.register_fake(lambda values, table, back: torch.empty_like(values))
WHOLE_STEPS.add(torch.ops.vertexflow.exchange_rows.default)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    if not _is_alone.get():  # a pass that PyTorch shall differentiate, which a trace has done otherwise
        raise InputError(
            "there are no gradients of gradients where vertices are on several ranks: backward() without create_graph"
        )
    ctx.save_for_backward(inputs[1])
    ctx.back = inputs[2]


exchange.register_autograd(
    lambda ctx, grad: (exchange(grad.contiguous(), *ctx.saved_tensors, not ctx.back), None, None), setup_context=_keep
)
