"""Compile kernels ahead of time, for GPUs that need not be there, and read what they use: registers, spills, shared memory."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import BackendError
from ...graph.symbolic.program import CORES, Program
from ...graph.symbolic.roles import is_over_edges
from ..arguments import (
    By,
    FirstSending,
    Gathered,
    GroupArgument,
    Outside,
    ParentOffset,
    ParentPlaces,
    Received,
    Result,
    RowsOfChildren,
    RunArgument,
    Scratch,
    Seed,
    Sent,
    SentByAll,
    State,
    Stride,
    Value,
    Whole,
)
from .build import interprets, load
from .loop import precision
from .source import Launch, write_core
from .tiles import WARPS, Tile

TARGETS = {"sm_80": ("cuda", 80, 32), "sm_90": ("cuda", 90, 32), "gfx942": ("hip", "gfx942", 64)}
SHARED = {"sm_80": 166_912, "sm_90": 232_448}  # bytes of shared memory in which a program can keep weights
TYPES = {
    torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64", torch.bool: "i1",
    torch.int64: "i64", torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8",
}  # fmt: skip


@dataclass(frozen=True)
class TypedKernel:
    """A kernel in some source: the types of its arguments ("constexpr" for constants), the precision of products, its tile."""

    name: str
    source: str
    signature: Mapping[str, str]
    precision: str
    tile: Tile


@dataclass(frozen=True)
class Resources:
    """What a kernel uses on one target: rows and columns of a program, registers of a thread, bytes that a thread spills, and
    bytes of shared memory of a program."""

    kernel: str
    target: str
    rows: int
    columns: int
    registers: int
    spills: int
    shared: int


def kernels_of(program: Program, dag: bool = False) -> list[TypedKernel]:
    """The kernels of both cores of a program.

    `dag`: as for graphs whose vertices have several parents, and sum the gradients that these send.

    Raises:
        vertexflow.kernels.operations.Unsupported: as `write_core`.
    """
    kernels: list[TypedKernel] = []
    for core in CORES:
        if core in program.parts:
            for source in write_core(program, core).pieces:
                module = load(source.text)
                launches = (*source.inner, *source.leaf)
                kernels += [
                    _kernel(getattr(module, launch.name), program, source.text, launch, dag) for launch in launches
                ]
    return kernels


def _kernel(function: Any, program: Program, text: str, launch: Launch, dag: bool) -> TypedKernel:
    names = list(function.arg_names)
    types = [type_of(program, pointer, dag) for pointer in launch.pointers]
    types += ["i32"] * (len(names) - len(types) - 4) + ["constexpr"] * 4
    return TypedKernel(launch.name, text, dict(zip(names, types, strict=True)), precision(), launch.tile)


def type_of(program: Program, pointer: RunArgument, dag: bool) -> str:
    """The type of an argument, as Triton writes it; "constexpr" for one that is missing."""
    sends = {By.EDGE if is_over_edges(slot) else By.SLOT for _, slot in program.gather_grads}
    match pointer:
        case Stride():
            return "i32"
        case Seed() | FirstSending():
            return "i64"
        case Outside():
            return "constexpr"
        case SentByAll(state, by):
            return f"*{TYPES[program.trace.state_dtypes[state]]}" if by in sends else "constexpr"
        case ParentPlaces(by, _):
            return "*i32" if by in sends else "constexpr"
        case ParentOffset(by):
            return "*i32" if by in sends and dag else "constexpr"
        case GroupArgument() | RowsOfChildren():
            return "*i32"
        case Scratch():
            return f"*{TYPES[pointer.dtype]}"
        case Value() | Whole() | Result():
            return f"*{TYPES[pointer.node.meta['val'].dtype]}"
        case State(state) | Sent(state, _) | Gathered(state, _) | Received(state):
            return f"*{TYPES[program.trace.state_dtypes[state]]}"


def compile_ahead(kernel: TypedKernel, target: str) -> Resources:
    """Compile a kernel for one of `TARGETS`, with the largest tile that does not spill; no GPU is needed for that.

    Raises:
        BackendError: Triton is not installed, or runs as interpreter.
    """
    for size in kernel.tile.sizes:
        blocks = (*kernel.tile.blocks(size), kernel.precision)
        registers, spills, shared, _ = assembled(kernel.name, kernel.source, kernel.signature, blocks, target)
        if not spills:
            break
    return Resources(kernel.name, target, *size, registers, spills, shared)


def assembled(
    name: str, source: str, signature: Mapping[str, str], constants: Sequence[Any], target: str, **options: Any
) -> tuple[int, int, int, str]:
    """A kernel compiled with its last arguments constant: registers of a thread, bytes that it spills, bytes of shared memory
    of a program, and the assembly.

    Raises:
        BackendError: Triton is not installed, or runs as interpreter.
    """
    if interprets():
        raise BackendError("kernels cannot be compiled while Triton's interpreter runs them; unset TRITON_INTERPRET")
    function = getattr(load(source), name)

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names, kinds = list(signature), list(signature.values())
    fixed: dict[str, Any] = {name: None for name, kind in signature.items() if kind == "constexpr"}
    fixed.update(zip(names[-len(constants) :], constants, strict=True))
    aligned = {(position,): [["tt.divisibility", 16]] for position, kind in enumerate(kinds) if kind.startswith("*")}
    binary = triton.compile(
        ASTSource(function, dict(signature), fixed, aligned),
        target=GPUTarget(*TARGETS[target]),
        options={"num_warps": WARPS, **options},
    )
    text = binary.asm["ptx" if "ptx" in binary.asm else "amdgcn"]
    registers, spills = _resources_of_ptx(text) if "ptx" in binary.asm else _resources_of_amd(text)
    return registers, spills, int(binary.metadata.shared), text


def _resources_of_ptx(ptx: str) -> tuple[int, int]:
    """Registers and bytes of spills as told by NVIDIA's assembler, which comes with Triton."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx, encoding="utf-8")
        architecture = re.findall(r"\.target\s+(\w+)", ptx)[0]
        command = [str(knobs.nvidia.ptxas.path), "-v", f"--gpu-name={architecture}", str(path), "-o", os.devnull]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spills = re.findall(r"(\d+) bytes spill stores", output)
    return int(re.findall(r"Used (\d+) registers", output)[0]), sum(map(int, spills))


def _resources_of_amd(code: str) -> tuple[int, int]:
    """Vector registers and bytes of spills as the assembly states them."""
    numbers = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)", code)}
    return numbers["vgpr_count"], 4 * numbers["vgpr_spill_count"]
