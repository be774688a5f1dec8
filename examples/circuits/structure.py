"""What a gate can know of the structure around it, before anything is computed: where its operands have common origins."""

from __future__ import annotations

import itertools

import numpy as np

from .circuit import Bools, Circuit, Ints

REACH = 3  # steps below an operand that are looked at
PAIRS = [(i, j) for i, j in itertools.product(range(REACH + 1), repeat=2) if i or j]
COLUMNS = 6 + 2 * len(PAIRS)
NOTHING = -1  # below a source


def structure(circuit: Circuit) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """What the vertex function pulls for each gate, float32 [G, COLUMNS].

    Columns 0 and 1: whether the operand in that slot is inverted; 2 and 3: whether it is a source; 4 and 5: the logarithm
    of how many gates read it. Then for each (i, j) of `PAIRS` two columns: how many paths of i steps down from the first
    operand end where one of j steps from the second does, and the same with -1 for those that have inversions of
    different parity. So x AND NOT y meets NOT x AND y, which an OR then makes an XOR, with 2 and -2 at (1, 1).

    No label or probability is used.
    """
    sources = len(circuit.source)
    first, second = (_paths(circuit, slot) for slot in (0, 1))
    readers = np.bincount(circuit.operands.ravel(), minlength=sources + len(circuit))
    columns = [*circuit.inverted.T, *(circuit.operands < sources).T, *np.log1p(readers[circuit.operands].T) / 3]
    for i, j in PAIRS:
        (ends, odd), (other_ends, other_odd) = first[i], second[j]
        same = (ends[:, :, None] == other_ends[:, None, :]) & (ends != NOTHING)[:, :, None]
        differ = odd[:, :, None] != other_odd[:, None, :]
        columns += [same.sum((1, 2)), same.sum((1, 2)) - 2 * (same & differ).sum((1, 2))]
    return np.stack(columns, axis=1).astype(np.float32)


def _paths(circuit: Circuit, slot: int) -> list[tuple[Ints, Bools]]:
    """For 0 .. REACH steps down from the operand in that slot of each gate: the ends of all paths, and their parities."""
    sources = len(circuit.source)
    ends, odd = circuit.operands[:, slot : slot + 1], circuit.inverted[:, slot : slot + 1]
    paths = [(ends, odd)]
    for _ in range(REACH):
        gate = np.maximum(ends - sources, 0)
        below = np.where((ends >= sources)[:, :, None], circuit.operands[gate], NOTHING)
        ends = below.reshape(len(circuit), -1)
        odd = (odd[:, :, None] ^ circuit.inverted[gate]).reshape(len(circuit), -1)
        paths.append((ends, odd))
    return paths
