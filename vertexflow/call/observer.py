"""Who wants to see the calls of vertex functions in the place of running them; one for each thread, usually none."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ..graph.inputs.build import InputGraph
    from ..graph.inputs.pack import GraphBatch
    from .outputs import Outputs
    from .selection import Wanted


@dataclass(frozen=True)
class Seen:
    """A call of a vertex function: the arguments of `VertexFunction._run`."""

    tensors: Mapping[str, Tensor] | None
    graphs: GraphBatch | Sequence[InputGraph]
    reverse: bool
    initial: Mapping[str, Tensor] | None
    inputs: Mapping[str, Tensor]
    shared: Mapping[str, Tensor] | None
    wanted: Wanted | None


class Observer(Protocol):
    """Sees calls, and gives what the model goes on with."""

    def see(self, model: Any, call: Seen) -> Outputs: ...


class _OfThread(threading.local):
    observer: Observer | None = None


_of_thread = _OfThread()


def observer_of_thread() -> Observer | None:
    """The observer of this thread."""
    return _of_thread.observer


@contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """Calls inside, in this thread, are seen by this observer and not run."""
    before, _of_thread.observer = _of_thread.observer, observer
    try:
        yield
    finally:
        _of_thread.observer = before
