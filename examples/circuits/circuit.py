"""Logic circuits as arrays: read from AIGER files, and cones cut from them."""

from __future__ import annotations

import heapq
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vertexflow as vf
from vertexflow.graph.inputs.readers.aiger import AND, CONSTANT

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Circuit:
    """A circuit of G two-input AND gates with optional inversion of each operand, over S sources.

    Vertices are numbered level by level: first the sources, 0 .. S - 1, then the gates, so that operands come before
    their gate and every level is a slice.

    Attributes:
        name: for messages and tables.
        source: float64 [S], the probability of 1 at each source: 0.5 at an input, 0 at the constant false.
        operands: int64 [G, 2], the vertices that each gate reads.
        inverted: bool [G, 2], whether it reads them inverted.
        levels: int64 [L + 1], where each level of gates begins, counted in gates; the last one ends at G.
        graph: the same as an input graph, with the kinds "source" and "gate".
    """

    name: str
    source: Floats
    operands: Ints
    inverted: Bools
    levels: Ints
    graph: vf.InputGraph

    def __len__(self) -> int:
        """How many gates there are."""
        return len(self.operands)


def circuit(name: str, source: Floats, operands: Ints, inverted: Bools) -> Circuit:
    """A circuit from gates in any order; vertex S + g is gate g.

    Raises:
        vf.GraphError: no vertices at all, an operand out of range, or a cycle.
    """
    sources, gates = len(source), len(operands)
    parents, slots = np.repeat(sources + np.arange(gates), 2), np.tile([0, 1], gates)
    plain = vf.graph(sources + gates, np.stack([operands.ravel(), parents]), slots=slots)
    schedule = vf.schedule(vf.pack([plain]))  # by depth: the steps are the levels
    order = schedule.order[sources:] - sources
    operands = schedule.row[operands[order]].astype(np.int64)
    return Circuit(
        name=name,
        source=source[schedule.order[:sources]],
        operands=operands,
        inverted=inverted[order],
        levels=np.append(schedule.steps[1:, 0] - sources, gates),
        graph=vf.graph(
            sources + gates,
            np.stack([operands.ravel(), parents]),
            kind=["source"] * sources + ["gate"] * gates,
            slots=slots,
        ),
    )


def read(path: str | os.PathLike[str]) -> Circuit:
    """A circuit from an AIGER file; latches are inputs (`vf.from_aiger`).

    Raises:
        vf.GraphError: the file is malformed.
        FileNotFoundError: there is no such file.
    """
    graph = vf.from_aiger(path)
    kind = graph.data["type"]  # sources first, gates last
    source = np.where(kind[kind != AND] == CONSTANT, 0.0, 0.5)
    operands = graph.child.reshape(-1, 2).astype(np.int64)
    return circuit(Path(path).stem, source, operands, graph.data["inverted"][kind == AND])


def cone(whole: Circuit, gate: int, most: int) -> Circuit:
    """The gates that a gate depends on, the deepest levels first, up to `most` of them; their other operands become free inputs.

    Whole levels are kept rather than whole paths, so that what forks in the cone also meets in it again.
    """
    sources = len(whole.source)
    left, taken, seen = [-(sources + gate)], set[int](), {sources + gate}
    while left and -left[0] >= sources and len(taken) < most:
        vertex = -heapq.heappop(left)
        taken.add(vertex)
        for operand in whole.operands[vertex - sources].tolist():
            if operand not in seen:
                seen.add(operand)
                heapq.heappush(left, -operand)
    inner = np.array(sorted(taken), np.int64)
    outer = np.array(sorted(seen - taken), np.int64)
    number = np.zeros(sources + len(whole), np.int64)
    number[outer] = np.arange(len(outer))
    number[inner] = len(outer) + np.arange(len(inner))
    known = np.concatenate([whole.source, np.full(len(whole), 0.5)])
    gates = inner - sources
    return circuit(f"{whole.name}, gate {gate}", known[outer], number[whole.operands[gates]], whole.inverted[gates])
