"""Formulas such as `(1 and (0 xor 1))`, whose value only their structure tells; made from a seed."""

from __future__ import annotations

import random
from typing import Any

import torch

import vertexflow as vf

TOKENS = "0", "1", "and", "or", "xor"
Sample = dict[str, Any]  # "graph": a binary tree; "token": int64 [num_vertices]; "label": 0 or 1
Nested = Any  # 0 or 1, or a tuple of an operation and two of these


def make(count: int, most: int, seed: int) -> list[Sample]:
    """So many formulas of 2 to `most` values."""
    draw = random.Random(seed)
    return [encode(formula(draw.randint(2, most), draw)) for _ in range(count)]


def formula(values: int, draw: random.Random) -> Nested:
    """A formula of so many values, of any shape."""
    if values == 1:
        return draw.randint(0, 1)
    left = draw.randint(1, values - 1)
    return draw.choice(TOKENS[2:]), formula(left, draw), formula(values - left, draw)


def encode(nested: Nested) -> Sample:
    """A formula as a tree, the token of each of its vertices, and its value."""
    tokens: list[int] = []
    edges: list[tuple[int, int]] = []  # child, parent

    def visit(part: Nested) -> tuple[int, int]:
        """The vertex of a part, which comes after those in it, and the part's value."""
        if not isinstance(part, tuple):
            tokens.append(part)
            return len(tokens) - 1, part
        operation, *inside = part
        (left, a), (right, b) = map(visit, inside)
        tokens.append(TOKENS.index(operation))
        vertex = len(tokens) - 1
        edges.extend([(left, vertex), (right, vertex)])
        return vertex, {"and": a & b, "or": a | b, "xor": a ^ b}[operation]

    _, value = visit(nested)
    return {"graph": vf.graph(len(tokens), edges), "token": torch.tensor(tokens), "label": value}
