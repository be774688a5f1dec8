"""What the kernels of the ready-made models cost, compiled ahead of time: no GPU is needed for that.

    python -m vertexflow.kernels.triton.report [--hidden 256] [--target cuda:90] [--dtype float32] [--json FILE] [MODEL ...]

prints a line for each kernel: registers, spilled bytes and shared memory, as NVIDIA's assembler, which comes with Triton,
or AMD's back end tells them. It ends with 1 if a kernel spills.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import BackendError
from ...graph.program import CORES, Program
from ...graph.vertex import CHILDREN
from ..native.plan import Unsupported
from .build import load
from .source import Launch, write_core
from .tiles import WARPS

TARGETS = {"cuda:80": ("cuda", 80, 32), "cuda:90": ("cuda", 90, 32), "hip:gfx942": ("hip", "gfx942", 64)}
INDEX_ROLES = {"child_rows", "edge_rows", "edge_offset", "owner", "placed_places", "placed_offset", "listed_places",
               "listed_offset"}  # fmt: skip
TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float64: "*fp64",
         torch.bool: "*i1", torch.int32: "*i32", torch.int64: "*i64"}  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """A kernel to be compiled: where its source is, the types of its arguments, and its tile."""

    model: str
    name: str
    source: str
    signature: dict[str, str]
    constants: dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a compiled kernel takes; registers of one thread, bytes of spills of one thread, bytes of shared memory."""

    model: str
    kernel: str
    target: str
    registers: int
    spills: int
    shared: int


def models(hidden: int) -> dict[str, Callable[[], Iterable[Program]]]:
    """The ready-made models of this size, by name: each gives the programs of its vertex functions with all gradients."""
    import vertexflow as vf

    tree = vf.pack([vf.tree(((0, 1), 2))])
    chain, ring = vf.pack([vf.chain(3)]), vf.pack([vf.unroll((3, [(0, 1), (1, 2), (2, 0)]), rounds=2)])
    words = vf.pack([vf.nn.lattice(4, [(0, 1), (1, 3)])])

    def programs(make: Callable[[], nn.Module], batch: Any, *args: str, **inputs: tuple[int, ...]) -> Any:
        def run() -> Iterator[Program]:
            module = make()
            given = {name: torch.zeros(shape) for name, shape in inputs.items()}
            module(batch, **given)
            functions = [part for part in (*module.modules(), getattr(module, "cell", None)) if hasattr(part, "_compiled")]
            for function in functions:
                for compiled in function._compiled.values():
                    yield from (one.program for one in compiled.values())

        return run

    size = hidden
    return {
        "NaryTreeLSTM": programs(lambda: vf.nn.NaryTreeLSTM(size, size), tree, x=(5, size)),
        "ChildSumTreeLSTM": programs(lambda: vf.nn.ChildSumTreeLSTM(size, size), tree, x=(5, size)),
        "TreeGRU": programs(lambda: vf.nn.TreeGRU(size, size), tree, x=(5, size)),
        "TreeFC": programs(lambda: vf.nn.TreeFC(size), tree, x=(5, size)),
        "LSTM": programs(lambda: vf.nn.LSTM(size, size), chain, x=(3, size)),
        "GRU": programs(lambda: vf.nn.GRU(size, size), chain, x=(3, size)),
        "DAGNN": programs(lambda: vf.nn.DAGNN(size, size), tree, x=(5, size)),
        "LatticeLSTM": programs(lambda: vf.nn.LatticeLSTM(size, size, size), words, char=(4, size), word=(2, size)),
        "GGNN": programs(lambda: vf.nn.GGNN(size), ring, x=(3, size)),
        "RNTN": programs(lambda: vf.nn.RNTN(min(size, 32)), tree, x=(5, min(size, 32))),
        "MVRNN": programs(lambda: vf.nn.MVRNN(min(size, 32)), tree, x=(5, min(size, 32)),
                          matrix=(5, min(size, 32), min(size, 32))),
    }  # fmt: skip


def kernels_of(model: str, program: Program) -> list[Kernel]:
    """The kernels of both cores of a program, over forests, with the tallest of their tiles."""
    found = []
    for core in CORES:
        if core not in program.parts:
            continue
        try:
            source = write_core(program, core)
        except Unsupported as reason:
            raise BackendError(f"{model} has no kernels for {core}: {reason}") from None
        module = load(source.text)
        for launch in (*source.inner, *source.leaf):
            function = getattr(module, launch.name)
            names = list(getattr(function, "arg_names"))  # noqa: B009 - of Triton, which has no types
            found.append(_kernel(model, program, source.text, launch, names))
    return found


def _kernel(model: str, program: Program, text: str, launch: Launch, names: list[str]) -> Kernel:
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    for name, (role, what) in zip(names, launch.pointers, strict=False):
        kind = _pointer(program, role, what)
        signature[name] = kind or "constexpr"
        if kind is None:
            constants[name] = None
    for name in names[len(launch.pointers) : -4]:
        signature[name] = "i32"
    tile = launch.tile
    for name, value in zip(names[-4:], (tile.heights[0], tile.block_n, tile.block_k, "ieee"), strict=True):
        signature[name], constants[name] = "constexpr", value
    return Kernel(model, launch.name, text, signature, constants)


def _pointer(program: Program, role: str, what: Any) -> str | None:
    """The type of an argument; None if it is missing in a forest."""
    sends = {slot == CHILDREN for _, slot in program.gather_grads}
    missing = (
        (role == "placed_offset" and False in sends)
        or role == "outside"
        or (role.startswith("placed") and False not in sends)
        or (role.startswith("listed") and True not in sends)
    )
    if missing:
        return None
    if role in INDEX_ROLES:
        return "*i32"
    node = what[0] if role == "value" else what if role in ("param", "result") else None
    return TYPES[program.trace.state_dtype if node is None else node.meta["val"].dtype]


def cost(kernel: Kernel, target: str) -> Cost:
    """Compile a kernel for a target, and read what it takes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(load(kernel.source), kernel.name)
    names = list(kernel.signature)
    aligned = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if kernel.signature[name].startswith("*")}
    constants = {(names.index(name),): value for name, value in kernel.constants.items()}
    source = ASTSource(function, kernel.signature, constants, aligned)
    made = triton.compile(source, target=GPUTarget(*TARGETS[target]), options={"num_warps": WARPS})
    registers, spills = _of_amd(made.asm["amdgcn"]) if target.startswith("hip") else _of_nvidia(made.asm["ptx"], target)
    return Cost(kernel.model, kernel.name, target, registers, spills, int(made.metadata.shared))


def _of_nvidia(ptx: str, target: str) -> tuple[int, int]:
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx, encoding="utf-8")
        architecture = re.search(r"\.target (\w+)", ptx)
        command = [str(knobs.nvidia.ptxas.path), "-v", f"--gpu-name={architecture[1] if architecture else target}", str(path)]
        done = subprocess.run([*command, "-o", os.devnull], capture_output=True, text=True, check=True)
    registers = re.search(r"Used (\d+) registers", done.stderr)
    spills = re.findall(r"(\d+) bytes spill", done.stderr)
    assert registers is not None, done.stderr
    return int(registers[1]), sum(map(int, spills))


def _of_amd(code: str) -> tuple[int, int]:
    numbers = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)", code)}
    return numbers["vgpr_count"], 4 * numbers["vgpr_spill_count"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vertexflow.kernels.triton.report", description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="some of vertexflow.nn; by default all")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="by default all")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        print("compiling ahead of time needs Triton's compiler: unset TRITON_INTERPRET", file=sys.stderr)
        return 2
    known = models(options.hidden)
    unknown = set(options.models) - set(known)
    if unknown:
        print(f"no model {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    os.environ["VERTEXFLOW_BACKEND"] = "torch"
    kernels = {}
    for model in options.models or known:
        for program in known[model]():
            kernels.update({(model, kernel.source, kernel.name): kernel for kernel in kernels_of(model, program)})
    costs = []
    with ProcessPoolExecutor() as pool:
        tasks = [pool.submit(cost, kernel, at) for at in options.target or TARGETS for kernel in kernels.values()]
        for task in tasks:
            found = task.result()
            costs.append(found)
            print(
                f"{found.model:18} {found.kernel:18} {found.target:10} {found.registers:4} registers "
                f"{found.spills:5} spilled {found.shared:7} shared", flush=True,
            )  # fmt: skip
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(found) for found in costs], indent=1), encoding="utf-8")
    spilling = sum(found.spills > 0 for found in costs)
    print(f"{len(costs)} kernels compiled, {spilling} of them spill")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
