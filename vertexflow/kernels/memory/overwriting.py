"""Whether a backward pass may overwrite what a run has kept: if no other pass reads that, neither at the same time nor later."""

from __future__ import annotations

from threading import Lock

import torch
from torch import Tensor


class Readers:
    """The backward passes that read what one run has kept. Threads may have several under way."""

    __slots__ = ("_address", "_count", "_is_overwritten", "_lock")

    def __init__(self, kept: Tensor) -> None:
        self._address, self._count, self._is_overwritten, self._lock = kept.data_ptr(), 0, False, Lock()

    def begin(self, kept: Tensor) -> bool:
        """Begin a pass that reads `kept`, as hooks on saved tensors have brought it back; returns whether it may overwrite it.

        Raises:
            RuntimeError: another pass has overwritten it, or does so now.
        """
        is_retained = _is_graph_retained()
        with self._lock:
            if self._is_overwritten:  # and PyTorch has not freed it
                raise RuntimeError(
                    "a backward pass through this vertex function did not come to its end, and what it read is overwritten; "
                    "run the model again, or call the first backward with retain_graph=True"
                )
            # PyTorch frees what is kept when nobody retains the graph. What hooks have brought back is theirs.
            self._is_overwritten = not is_retained and not self._count and kept.data_ptr() == self._address
            self._count += 1
            return self._is_overwritten

    def end(self) -> None:
        """End a pass, also one that failed."""
        with self._lock:
            self._count -= 1


def _is_graph_retained() -> bool:
    """Whether there may be another backward pass after the one that is under way."""
    keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return keeps_graph is None or bool(keeps_graph())
