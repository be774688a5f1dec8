"""Compile persistent kernels ahead of time, for GPUs that need not be there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ....errors import BackendError
from ....graph.symbolic.program import CORES, Program
from ..ahead import SHARED, assembled, type_of
from ..loop import precision
from ..source import write_core
from .keep import REGISTERS, sizes_that_fit
from .source import OWN, PersistentSource, write_persistent
from .work import Sizes, most_sizes, sizes_at


@dataclass(frozen=True)
class TypedPersistent:
    """A persistent kernel, the types of its arguments, the precision of products, and whether its programs keep their weights."""

    source: PersistentSource
    signature: Mapping[str, str]
    precision: str
    keeps: bool


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


def persistent_kernels_of(
    programs: Sequence[Program], dag: bool = False, keeps: bool = False
) -> Iterator[TypedPersistent]:
    """Those of both cores of a vertex function, whose kinds have these programs, where none is cut by calls of PyTorch. `dag` as
    in `ahead.kernels_of`. With `keeps`, those whose programs keep their weights, where there are some."""
    for core in CORES:
        of_core = [program for program in programs if core in program.parts]
        pieces = [write_core(program, core).pieces for program in of_core]
        if not pieces or any(len(each) != 1 for each in pieces):
            continue
        source = write_persistent([piece for (piece,) in pieces], keeps)
        if keeps and not any(launch.kept for launch in source.launches):
            continue
        types = [type_of(of_core[kind], pointer, dag) for kind, pointer in source.pointers]
        names = [*source.names, *OWN]
        blocks = [f"{name}_{number}" for number in range(len(source.launches)) for name in ("M", "N", "K")]
        kinds = [*types, "*i32", "i32", "i32", "*i32", *["constexpr"] * (len(blocks) + 1)]
        signature = dict(zip([*names, *(f"BLOCK_{block}" for block in blocks), "PRECISION"], kinds, strict=True))
        yield TypedPersistent(source, signature, precision(), keeps)


def compile_persistent(kernel: TypedPersistent, target: str, debug: bool = False) -> Assembled:
    """Compile a persistent kernel for one of `ahead.TARGETS`, with the largest tiles that do not spill, and with which kept
    weights fit. `debug`: as TRITON_DEBUG=1.

    Raises:
        BackendError: as `ahead.compile_ahead`; or weights do not fit.
    """
    launches = kernel.source.launches
    registers = REGISTERS[:1]
    choice = [sizes_at(launches, number) for number in range(most_sizes(launches))]
    if kernel.keeps:
        choice, registers = sizes_that_fit(launches, SHARED.get(target, 0), kernel.precision), REGISTERS
        if not choice:
            raise BackendError(f"{kernel.source.name}: there are no tiles with which weights can be kept on {target}")
    for sizes, options in itertools.product(choice, registers):
        blocks = [block for launch, size in zip(launches, sizes, strict=True) for block in launch.tile.blocks(size)]
        constants = [*blocks, kernel.precision]
        name, text = kernel.source.name, kernel.source.text
        compiled = assembled(
            name, text, kernel.signature, constants, target, launch_cooperative_grid=True, debug=debug, **options
        )
        if not compiled[1]:
            break
    return Assembled(name, target, sizes, *compiled)
