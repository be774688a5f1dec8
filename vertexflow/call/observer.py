"""Who wants to see the calls of vertex functions in the place of running them; one for each thread, usually none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .arguments import Arguments
    from .outputs import Outputs


class Observer(Protocol):
    """Sees calls, and gives what the model goes on with."""

    def see(self, model: Any, call: Arguments) -> Outputs: ...


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
