"""A vertex function against the same model as a plain recursion, one vertex at a time."""

from __future__ import annotations

from functools import cache

import torch

import vertexflow as vf
from tests.agreement import TOLERANCE, join
from tests.strategies import Structure


def tree(nested) -> Structure:
    """A tree from nested lists of children; `[]` is a leaf, None a missing child."""
    edges: list[tuple[int, int, int]] = []

    def add(children, number):
        """Number what is below, then the vertex itself; returns the next free number."""
        below = []
        for slot, child in enumerate(children):
            if child is not None:
                number = add(child, number)
                below.append((number - 1, slot))
        edges.extend((child, number, slot) for child, slot in below)
        return number + 1

    return Structure(add(nested, 0), edges)


def recurse(parts, inputs, compose):
    """Rows, in vertex order, of what `compose(inputs, {slot: what it returned for that child})` returns for each vertex."""
    count, edges = join(parts)
    children = [{slot: child for child, parent, slot in edges if parent == vertex} for vertex in range(count)]

    @cache
    def compute(vertex):
        below = {slot: compute(child) for slot, child in children[vertex].items()}
        return compose({name: rows[vertex] for name, rows in inputs.items()}, below)

    by_vertex = [compute(vertex) for vertex in range(count)]
    return {name: torch.stack([one[name] for one in by_vertex]) for name in by_vertex[0]}


def agree(model, parts, inputs, compose):
    """Compare outputs, and gradients of a random weighting of all of them: of inputs that require it, and parameters."""
    ours = dict(model(vf.pack([part.graph() for part in parts]), **inputs))
    expected = recurse(parts, inputs, compose)
    weights = {name: torch.randn_like(value) for name, value in ours.items()}
    leaves = {name: value for name, value in inputs.items() if value.requires_grad} | dict(model.named_parameters())

    def gradients(outputs):
        loss = sum((outputs[name] * weight).sum() for name, weight in weights.items())
        return torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)

    for name, value in ours.items():
        torch.testing.assert_close(value, expected[name], **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
    for name, actual, wanted in zip(leaves, gradients(ours), gradients(expected), strict=True):
        torch.testing.assert_close(actual, wanted, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
