"""Choose a backend, and compile a program with it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from .. import log
from ..errors import BackendError
from ..graph.symbolic.program import CORES, Program
from . import native, triton
from . import torch as calls
from .compiled import Compiled, Loop, NoSteps

_AVAILABLE = ("eager", "torch", "native", "triton")


def named_backend(requested: str) -> str:
    """The backend that the environment variable `VERTEXFLOW_BACKEND` names if it is set, else the requested one."""
    name = os.environ.get("VERTEXFLOW_BACKEND") or requested
    return "native" if name == "compile" else name  # its former name


def choose_backend(requested: str, device: torch.device | None = None) -> str:
    """The backend to use where this one is named: another one in place of `"auto"`."""
    name = named_backend(requested)
    if name == "auto":
        on_cpu = device is None or device.type == "cpu"
        if on_cpu:
            return "native" if native.compiler() is not None else "torch"
        return "triton" if device is not None and device.type == "cuda" and triton.is_available() else "torch"
    if name not in _AVAILABLE:
        known = ", ".join(repr(backend) for backend in ("auto", *_AVAILABLE))
        raise BackendError(f"there is no backend {name!r} in this version; choose one of {known}")
    if name == "native" and device is not None and device.type != "cpu":
        raise BackendError(
            f'backend "native" makes code for the CPU, but the model is on {device}; use backend="torch"'
        )
    if name == "triton" and device is not None and device.type != "cuda" and not triton.interprets():
        raise BackendError(
            f'backend "triton" makes kernels for a GPU, but the model is on {device}; move it with .to("cuda"), use '
            'backend="auto", or set TRITON_INTERPRET=1 before Python starts: Triton\'s interpreter is slow, but needs no GPU'
        )
    return name


def compile_program(program: Program, backend: str) -> Compiled:
    """Every part of `program` as a loop of the backend where that is possible, else as calls of PyTorch."""
    loops: dict[str, Loop] = {core: NoSteps() for core in CORES if core not in program.parts}
    reasons: Mapping[str, str] = {}
    if backend == "native":
        native_loops, reasons = native.loops_of(program)
        loops.update(native_loops)
    elif backend == "triton":
        kernels, reasons = triton.loops_of(program)
        loops.update(kernels)
    loops.update(calls.loops_of(program, loops))
    for name in filter(loops.__contains__, program.parts):
        log.show("kernels", loops[name].text)
    return Compiled(program, loops, reasons)
