"""Vertices of several kinds that are added to a run at once, taken apart into those of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..kernels.order import Wide
from .groups import Groups


class Part(NamedTuple):
    """The vertices of one method: their children, and inputs."""

    method: str
    table: Wide
    inputs: dict[str, Tensor]


def take_apart(
    groups: Groups, table: Wide, inputs: Mapping[str, Tensor], pulls: Sequence[tuple[str, ...]]
) -> list[Part] | None:
    """The vertices of each method, which `pulls` these inputs; None where inputs have not as many rows as that needs."""
    assert groups.numbers is not None
    children, parts, start = table[groups.order], [], 0
    for method, members in zip(groups.methods, groups.members, strict=True):
        stop = start + len(members)
        parts.append(Part(method, children[start:stop], {}))
        start = stop
    for name, value in inputs.items():
        pulling = [number for number, names in enumerate(pulls) if name in names]
        if len(pulling) == 1:
            parts[pulling[0]].inputs[name] = value
            continue
        count = sum([len(groups.members[number]) for number in pulling])
        if not pulling or type(value) is not Tensor or value.shape[:1] != (count,):
            return None
        before = np.cumsum(np.isin(groups.numbers, pulling)) - 1  # how many rows stand before that of a vertex
        for number in pulling:
            rows = torch.from_numpy(before[groups.members[number]])
            parts[number].inputs[name] = value.index_select(0, rows)
    return parts
