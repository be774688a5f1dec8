"""The Triton source of a persistent kernel: the bodies of a core's kernels, as functions of a tile, in a loop over stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...arguments import RunArgument, Seed
from ..source import INTEGERS, Launch, Source, constants, wrapped
from .work import WIDTH

HEAD = '''"""Generated from a vertex function: all steps of a core in one launch.

A line of `work` is a stage: the number of a kernel, five numbers as a launch of it for one step has them, and whether programs
must meet before the next stage. Programs share the tiles of each stage; of kernels whose weights they keep, the rows of their own
columns."""

import triton
import triton.language as tl

from vertexflow.kernels.triton.persistent.barrier import meet
from vertexflow.kernels.triton.runtime import *  # noqa: F403
'''
OWN = ("work", "first", "end", "meeting")  # arguments beside those of the kernels
TILE = ("tile_row", "tile_column")
MOST_LOOKS = 1 << 24  # at a barrier, in debug builds: seconds


OfKind = tuple[int, RunArgument]  # an argument of kernels of a kind, which is given by its number
Names = dict[OfKind, str]


@dataclass(frozen=True)
class PersistentSource:
    """Triton source, the name of its kernel, and the arguments that come before `work`, each of a kind, with their names."""

    name: str
    text: str
    pointers: list[OfKind]
    names: list[str]
    launches: Sequence[Launch]  # the kernels that it consists of, numbered as in `work`


def write_persistent(sources: Sequence[Source], keeps: bool = False) -> PersistentSource:
    """One kernel of all kernels of a core, a source for each kind; with `keeps`, its programs keep the weights of products."""
    kinds = [number for number, source in enumerate(sources) for _ in (*source.inner, *source.leaf)]
    launches = [launch for source in sources for launch in (*source.inner, *source.leaf)]
    names = _names(kinds, launches)
    if len(sources) > 1:  # kernels of several kinds have the same names
        launches = [
            replace(launch, name=f"kind_{kind}_{launch.name}") for kind, launch in zip(kinds, launches, strict=True)
        ]
    given = [
        [names[kind, pointer] for pointer in launch.pointers] for kind, launch in zip(kinds, launches, strict=True)
    ]
    name = f"{sources[0].name}_persistent{'_kept' if keeps else ''}"
    seeds = [name for (_, pointer), name in names.items() if isinstance(pointer, Seed)]
    signature = [*(f"{name}: tl.int64" if name in seeds else name for name in names.values()), *OWN]  # however small
    signature += [f"{block}: tl.constexpr" for number in range(len(launches)) for block in _blocks(number)]
    not_specialized = ["first", "end", *seeds]
    kept = [number for number, launch in enumerate(launches) if keeps and launch.kept is not None]
    stages = [line for number in kept for line in _kept_stage(number, launches[number], given[number])]
    others = [number for number in range(len(launches)) if number not in kept]
    stages += [
        line for number in others for line in _stage(number, launches[number], given[number], number == others[0])
    ]
    text = [
        *(line for number, launch in enumerate(launches) for line in _tile_function(launch, number in kept)),
        "",
        f"@triton.jit(do_not_specialize={not_specialized!r})",
        f"def {name}(",
        *(f"    {line}," for line in wrapped([*signature, "PRECISION: tl.constexpr"])),
        "):",
        '    """Stages [first, end)."""',
        "    program, programs = tl.program_id(0), tl.num_programs(0)",
        *(f"    {line}" for number in kept for line in _kept_columns(number, launches[number], given[number])),
        "    at = first",
        "    while at < end:",
        f"        line = work + at * {WIDTH}",
        "        kernel = tl.load(line)",
        *(f"        {number} = tl.load(line + {place})" for place, number in enumerate(INTEGERS, 1)),
        *(f"        {line}" for line in stages),
        "        at += 1",
        "        if at < end:",
        "            if tl.load(line + 6) != 0:",
        f"                meet(meeting, program, programs, {MOST_LOOKS})",
    ]
    return PersistentSource(name, "\n".join([HEAD, *text]) + "\n", list(names), list(names.values()), launches)


def _names(kinds: Sequence[int], launches: Sequence[Launch]) -> Names:
    """The arguments of all kernels without duplicates, under names that are none twice."""
    names: Names = {}
    for kind, launch in zip(kinds, launches, strict=True):
        for pointer, name in zip(launch.pointers, launch.names, strict=True):
            stem, _, ending = name.rpartition("_")
            number, unique = 1, name
            while (kind, pointer) not in names and unique in names.values():
                number += 1
                unique = f"{stem}_{number}_{ending}" if stem else f"{name}_{number}"
            names.setdefault((kind, pointer), unique)
    return names


def _blocks(number: int) -> list[str]:
    return [f"{name}_{number}" for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K")]


def _tile_function(launch: Launch, keeps: bool) -> list[str]:
    """The body of a kernel, for one tile; and before it a function that loads the weights that programs keep."""
    if not keeps or launch.kept is None:
        return _function(f"{launch.name}_tile", [*launch.names, *INTEGERS, *TILE, *constants()], launch.lines)
    blocks = [constant for constant in constants() if constant.startswith(("BLOCK_N", "BLOCK_K"))]
    return [
        *_function(f"{launch.name}_weights", [*launch.names, "tile_column", *blocks], launch.kept.weights),
        *_function(f"{launch.name}_tile", [*launch.names, *INTEGERS, *TILE, "kept", *constants()], launch.kept.lines),
    ]


def _function(name: str, arguments: list[str], lines: list[str]) -> list[str]:
    return [
        "",
        "@triton.jit",
        f"def {name}(",
        *(f"    {line}," for line in wrapped(arguments)),
        "):",
        *(f"    {line}" for line in lines),
        "",
    ]


def _stage(number: int, launch: Launch, pointers: list[str], is_first: bool) -> list[str]:
    """The tiles of a stage that are this program's."""
    height, width, depth = _blocks(number)
    given = [*pointers, *INTEGERS, "tile // across", "tile % across"]
    return [
        f"{'if' if is_first else 'elif'} kernel == {number}:",
        f"    across = tl.cdiv({launch.tile.columns}, {width})",
        "    tile = program",
        f"    while tile < tl.cdiv(rows, {height}) * across:",
        f"        {launch.name}_tile(",
        *(f"            {line}," for line in wrapped([*given, height, width, depth, "PRECISION"])),
        "        )",
        "        tile += programs",
    ]


def _kept_columns(number: int, launch: Launch, pointers: list[str]) -> list[str]:
    """What a program has for all stages of a kernel: its columns, and their weights."""
    _, width, depth = _blocks(number)
    given = [*pointers, f"program % across_{number}", width, depth]
    return [
        f"across_{number} = tl.cdiv({launch.tile.columns}, {width})",
        f"kept_{number} = {launch.name}_weights(",
        *(f"    {line}," for line in wrapped(given)),
        ")",
    ]


def _kept_stage(number: int, launch: Launch, pointers: list[str]) -> list[str]:
    """The tiles of a stage that are this program's: rows of its columns, which it shares with the other programs that have these.

    It is not inside of an `if`, out of which Triton does not move the stores of all weights to shared memory.
    """
    height, width, depth = _blocks(number)
    own = f"kept_{number}"
    given = [*pointers, *INTEGERS, "tile_row", f"program % across_{number}", own]
    return [
        f"tile_row, sharing = program // across_{number}, programs // across_{number}",
        f"most = tl.where((kernel == {number}) & (tile_row < sharing), tl.cdiv(rows, {height}), 0)",
        "while tile_row < most:",
        f"    {launch.name}_tile(",
        *(f"        {line}," for line in wrapped([*given, height, width, depth, "PRECISION"])),
        "    )",
        "    tile_row += sharing",
    ]
