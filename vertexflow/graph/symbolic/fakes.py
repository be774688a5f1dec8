"""PyTorch's tensors without numbers, of which traces are made, in whichever thread they are made first."""

from __future__ import annotations

import threading
from functools import cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv


def fake_mode(sizes: ShapeEnv | None = None) -> FakeTensorMode:
    """The mode whose tensors have no numbers; with `sizes`, they may have symbolic sizes."""
    _keep_stand_in_for_gpu()
    return FakeTensorMode(shape_env=sizes, allow_non_fake_inputs=True)


@cache
def _keep_stand_in_for_gpu() -> None:
    """Let a thread that does not end own what PyTorch built for CUDA puts in the place of the GPU where there is none.

    Before PyTorch 2.13 the first thread that enters the mode owns it, for all threads, and frees it when it ends: whichever
    thread traces next reads freed memory. The main thread needs no other, as it ends with the process.
    """
    if (
        tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
        or torch.version.cuda is None
        or torch.cuda.is_available()
        or threading.current_thread() is threading.main_thread()
    ):
        return
    is_owned = threading.Event()

    def own() -> None:
        torch._C._ensureCUDADeviceGuardSet()
        is_owned.set()
        threading.Event().wait()

    threading.Thread(target=own, name="vertexflow-keeps-stand-in-for-gpu", daemon=True).start()
    is_owned.wait()
