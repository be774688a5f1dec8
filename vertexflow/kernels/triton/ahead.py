"""Compile kernels ahead of time, for GPUs that are not there, and read what they take: registers, spills, shared memory."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from ...errors import BackendError
from ...graph.program import CORES, Program
from ...graph.vertex import CHILDREN
from .build import interprets, load
from .loop import precision
from .source import Launch, write_core
from .tiles import WARPS

TARGETS = {"sm_80": ("cuda", 80, 32), "sm_90": ("cuda", 90, 32), "gfx942": ("hip", "gfx942", 64)}
INDICES = {"child_rows", "edge_rows", "edge_offset", "owner", "placed_places", "placed_offset", "listed_places",
           "listed_offset"}  # fmt: skip
TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64", torch.bool: "i1"}


@dataclass(frozen=True)
class Resources:
    """What one kernel takes on one target: registers a thread, bytes a thread that do not fit into them, and bytes of
    shared memory a program. `block` are its rows, columns, and how much of a product's operand at a time."""

    kernel: str
    target: str
    block: tuple[int, int, int]
    registers: int
    spills: int
    shared: int


def compile_ahead(program: Program, targets: Collection[str] = tuple(TARGETS), dag: bool = False) -> Iterator[Resources]:
    """Compile the kernels of a program for these targets, with the tallest of their tiles; of what cannot be kernels, none.

    `dag`: as for graphs whose vertices have several parents, which sum what these sent.

    Raises:
        BackendError: Triton is not installed, or runs as interpreter.
        vertexflow.kernels.native.plan.Unsupported: as `write_core`.
    """
    if interprets():
        raise BackendError("kernels cannot be compiled while Triton's interpreter runs them; unset TRITON_INTERPRET")
    for core in CORES:
        if core in program.parts:
            source = write_core(program, core)
            module = load(source.text)
            for launch in (*source.inner, *source.leaf):
                for target in targets:
                    yield _compile(getattr(module, launch.name), program, launch, target, dag)


def _compile(function: Any, program: Program, launch: Launch, name: str, dag: bool) -> Resources:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    tile = launch.tile
    block = (tile.heights[0], tile.block_n, tile.block_k)
    types = [_type(program, role, what, dag) for role, what in launch.pointers]
    types += ["i32"] * (len(function.arg_names) - len(types) - 4) + ["constexpr"] * 4
    signature = dict(zip(function.arg_names, types, strict=True))
    constants = {name: None for name, kind in signature.items() if kind == "constexpr"}
    constants |= {"BLOCK_M": block[0], "BLOCK_N": block[1], "BLOCK_K": block[2], "PRECISION": precision()}  # type: ignore[dict-item]
    aligned = {(at,): [["tt.divisibility", 16]] for at, kind in enumerate(types) if kind.startswith("*")}
    made = triton.compile(
        ASTSource(function, signature, constants, aligned),
        target=GPUTarget(*TARGETS[name]),
        options={"num_warps": WARPS},
    )
    if "ptx" in made.asm:
        registers, spills = _of_ptx(made.asm["ptx"])
    else:
        registers, spills = _number(r"\.vgpr_count:\s+(\d+)", made.asm["amdgcn"]), 4 * _number(
            r"\.vgpr_spill_count:\s+(\d+)", made.asm["amdgcn"]
        )
    return Resources(launch.name, name, block, registers, spills, int(made.metadata.shared))


def _type(program: Program, role: str, what: Any, dag: bool) -> str:
    """The type of an argument, as Triton writes it; "constexpr" for those that are missing."""
    state = TYPES[program.trace.state_dtype]
    slots = {slot == CHILDREN for _, slot in program.gather_grads}
    if role == "stride":
        return "i32"
    if role == "outside" or (role.startswith("listed") and True not in slots):
        return "constexpr"
    if role.startswith("placed") and False not in slots:
        return "constexpr"
    if role in ("placed_offset", "listed_offset"):
        return "*i32" if dag else "constexpr"
    if role in INDICES:
        return "*i32"
    if role in ("value", "param"):
        return f"*{TYPES[(what[0] if role == 'value' else what).meta['val'].dtype]}"
    return f"*{state}"


def _of_ptx(ptx: str) -> tuple[int, int]:
    """Registers and bytes of spills, as the assembler tells them."""
    assembler = files("triton.backends.nvidia").joinpath("bin/ptxas")
    target = re.search(r"\.target\s+(\w+)", ptx)
    assert target is not None
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "kernel.ptx"
        code.write_text(ptx, encoding="utf-8")
        command = [str(assembler), "-v", f"--gpu-name={target[1]}", str(code), "-o", str(code.with_suffix(".cubin"))]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return _number(r"Used (\d+) registers", said), _number(r"(\d+) bytes spill stores", said)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, f"no {pattern!r} in {text[:500]}"
    return int(found[1])
