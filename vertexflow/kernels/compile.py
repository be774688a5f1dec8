"""Choose a backend and compile a program with it. A backend is a file with a function `compile_part`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from torch import Tensor, fx

from .. import log
from ..errors import BackendError
from ..graph.program import Part, Program
from . import torch_backend
from .executor import Compiled, placed

CompilePart = Callable[[Part, Mapping[fx.Node, bool]], tuple[Callable[..., tuple[Tensor, ...]], str]]

BACKENDS: dict[str, CompilePart] = {"torch": torch_backend.compile_part}


def choose_backend(asked: str) -> str:
    """The backend to use: the environment variable `VERTEXFLOW_BACKEND` if set, else what the user asked for."""
    name = os.environ.get("VERTEXFLOW_BACKEND") or asked
    if name == "auto":
        return "torch"
    if name not in BACKENDS:
        known = ", ".join(repr(backend) for backend in ("auto", *BACKENDS))
        raise BackendError(f"there is no backend {name!r} in this version; choose one of {known}")
    return name


def compile_program(program: Program, backend: str) -> Compiled:
    """Every part of `program` as a function of `backend`."""
    functions, sources = {}, {}
    for name, part in program.parts.items():
        functions[name], sources[name] = BACKENDS[backend](part, placed(program, name))
        log.show("kernels", sources[name])
    return Compiled(program, functions, sources)
