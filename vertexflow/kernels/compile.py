"""Choose a backend, and compile a program with it."""

from __future__ import annotations

import os

import torch

from .. import log
from ..errors import BackendError
from ..graph.program import Program
from . import torch_backend
from .core import Compiled, placed
from .native.build import compiler
from .native.loop import loops_of

_AVAILABLE = ("torch", "compile")


def choose_backend(asked: str, device: torch.device | None = None) -> str:
    """The backend to use: the environment variable `VERTEXFLOW_BACKEND` if set, else what the user asked for."""
    name = os.environ.get("VERTEXFLOW_BACKEND") or asked
    if name == "auto":
        return "compile" if compiler() is not None and (device is None or device.type == "cpu") else "torch"
    if name not in _AVAILABLE:
        known = ", ".join(repr(backend) for backend in ("auto", *_AVAILABLE))
        raise BackendError(f"there is no backend {name!r} in this version; choose one of {known}")
    if name == "compile" and device is not None and device.type != "cpu":
        raise BackendError(
            f'backend "compile" makes code for the CPU, but the model is on {device}; use backend="torch"'
        )
    return name


def compile_program(program: Program, backend: str) -> Compiled:
    """Every part of `program` as a function; with the backend "compile", its cores as native code where that is possible."""
    functions, sources, given = {}, {}, {}
    loops, reasons = loops_of(program) if backend == "compile" else ({}, {})
    for name, part in program.parts.items():
        given[name] = placed(program, name)
        functions[name], sources[name] = torch_backend.compile_part(part, given[name])
        if name.removesuffix("_leaf") not in loops:
            log.show("kernels", sources[name])
    for loop in loops.values():
        log.show("kernels", loop.source.text)
    return Compiled(program, functions, sources, given, loops, reasons)
