from typing import Any

import numpy as np

_Ints = np.ndarray[Any, np.dtype[np.int32]]
_Wide = np.ndarray[Any, np.dtype[np.int64]]

class Malformed(Exception): ...  # noqa: N818 - args: what is wrong, where, and where else

def pack(
    graphs: list[Any], type: type[Any], kinds: list[_Ints] | None
) -> tuple[_Ints, _Ints, int, int, int] | None: ...
def graph(num_vertices: int, child: _Wide, parent: _Wide, slots: _Wide | None, kind: _Ints | None) -> _Ints: ...
def reversed(child: _Ints, slot: _Ints, offset: _Ints, edge: _Ints | None) -> tuple[_Ints, int]: ...
def schedule(
    child: _Ints,
    slot: _Ints,
    offset: _Ints,
    kind: _Ints | None,
    num_kinds: int,
    num_external: int,
    num_slots: list[int],
    policy: str | _Ints,
    graph_offset: _Ints | None,
    ragged: list[bool],
    at_most: bool,
) -> tuple[_Ints, _Ints, _Ints, bool]: ...
def edges(
    child: _Ints, slot: _Ints, offset: _Ints, num_external: int, order: _Ints, row: _Ints, edge: _Ints | None
) -> _Ints: ...
def depth(child: _Ints, slot: _Ints, offset: _Ints, num_external: int) -> _Ints: ...
def height(child: _Ints, slot: _Ints, offset: _Ints, num_external: int) -> _Ints: ...
def greedy(
    child: _Ints,
    slot: _Ints,
    offset: _Ints,
    kind: _Ints | None,
    num_kinds: int,
    num_external: int,
    table: dict[tuple[int, ...], int] | None,
) -> _Ints: ...
def check(child: _Ints, slot: _Ints, offset: _Ints, kind: _Ints | None, num_kinds: int, num_external: int) -> None: ...
def launch(
    driver: int,
    stream: int,
    multiprocessors: int,
    threads: int,
    inner: list[tuple[bool, int, _Wide, _Wide]],
    leaf: list[tuple[bool, int, _Wide, _Wide]],
    arguments: _Wide,
    num_leaves: int,
    group_start: int,
    lines: _Ints,
    first: int,
) -> int: ...
def hash(array: _Ints, seed: int) -> int: ...
def holds_the_same(containers: list[Any], before: list[tuple[Any, ...]]) -> bool: ...
def have_keys(dictionaries: list[dict[str, Any]], before: list[tuple[str, ...]]) -> bool: ...

class Simulation:
    def __init__(self, child: _Ints, slot: _Ints, offset: _Ints, kind: _Ints | None, num_kinds: int) -> None: ...
    def reset(self) -> None: ...
    def done(self) -> bool: ...
    def complete(self) -> int: ...
    def state(self) -> tuple[int, ...]: ...
    def run(self, kind: int) -> None: ...
    def part_ready(self, kind: int) -> float: ...
