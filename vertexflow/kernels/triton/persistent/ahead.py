"""Compile persistent kernels ahead of time, for GPUs that need not be there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ....graph.symbolic.program import CORES, Program
from ..ahead import assembled, type_of
from ..loop import precision
from ..source import write_core
from .source import OWN, PersistentSource, write_persistent
from .work import Sizes, most_sizes, sizes_at


@dataclass(frozen=True)
class TypedPersistent:
    """A persistent kernel, the types of its arguments, and the precision of products."""

    source: PersistentSource
    signature: Mapping[str, str]
    precision: str


@dataclass(frozen=True)
class Assembled:
    """What a persistent kernel takes on one target, as in `ahead.Resources`, the sizes of its tiles, and its assembly."""

    kernel: str
    target: str
    sizes: Sizes
    registers: int
    spills: int
    shared: int
    text: str


def persistent_kernels_of(program: Program, dag: bool = False) -> Iterator[TypedPersistent]:
    """Those of both cores of a program, where they are not cut by calls of PyTorch; `dag` as in `ahead.kernels_of`."""
    for core in CORES:
        pieces = write_core(program, core).pieces if core in program.parts else []
        if len(pieces) == 1:
            source = write_persistent(pieces[0])
            types = [type_of(program, pointer, dag) for pointer in source.pointers]
            names = [*source.names, *OWN]
            blocks = [f"{name}_{number}" for number in range(len(source.launches)) for name in ("M", "N", "K")]
            kinds = [*types, "*i32", "i32", "i32", "*i32", *["constexpr"] * (len(blocks) + 1)]
            signature = dict(zip([*names, *(f"BLOCK_{block}" for block in blocks), "PRECISION"], kinds, strict=True))
            yield TypedPersistent(source, signature, precision())


def compile_persistent(kernel: TypedPersistent, target: str, debug: bool = False) -> Assembled:
    """Compile a persistent kernel for one of `ahead.TARGETS`, with the largest tiles that do not spill. `debug`: as
    TRITON_DEBUG=1.

    Raises:
        BackendError: as `ahead.compile_ahead`.
    """
    launches = kernel.source.launches
    for number in range(most_sizes(launches)):
        sizes = sizes_at(launches, number)
        blocks = [block for launch, size in zip(launches, sizes, strict=True) for block in launch.tile.blocks(size)]
        constants = [*blocks, kernel.precision]
        name, text = kernel.source.name, kernel.source.text
        compiled = assembled(name, text, kernel.signature, constants, target, launch_cooperative_grid=True, debug=debug)
        if not compiled[1]:
            break
    return Assembled(name, target, sizes, *compiled)
