"""Children of a process that has computed with several threads, made by `os.fork`.

OpenMP keeps its threads from one parallel part to the next. A forked child has none of them, and waits for them for ever, in
PyTorch's own operations as in native code. So it computes with one thread, as workers of a DataLoader do.
"""

from __future__ import annotations

import os

import torch

_computes = False  # whether a model was called in this process


def note_call() -> None:
    """Remember that this process has computed: children that it forks from now on may lack threads."""
    global _computes
    _computes = True


def _in_child() -> None:
    if _computes and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


os.register_at_fork(after_in_child=_in_child)
