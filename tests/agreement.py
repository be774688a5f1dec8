"""A model against the reference: outputs, and the gradient of everything that requires grad."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import vertexflow as vf

from .reference import run_reference
from .strategies import Case, Structure

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def join(parts: list[Structure]) -> tuple[int, list[tuple[int, int, int]]]:
    """Several structures side by side, as `vf.pack` numbers them."""
    edges, base = [], 0
    for part in parts:
        for child, parent, slot in part.edges:
            moved = (
                tuple(one + base if one >= 0 else one for one in child) if isinstance(child, tuple) else child + base
            )
            edges.append((moved, parent + base, slot))
        base += part.num_vertices
    return base, edges


@dataclass
class Expected:
    """What the reference pushes, and the gradients of a random weighting of all of it, by the names of its leaves."""

    outputs: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor | None]


def check(case: Case, *backends: str, expected: Expected | None = None) -> Expected:
    """Compare outputs, and gradients of a random weighting of all of them, on each of these backends, or the model's own.

    Returns what was expected, for another check of the same case.
    """
    batch = vf.pack([part.graph() for part in case.parts])
    for backend in backends or (case.model.backend,):
        print(f"backend {backend}")
        case.model.backend = backend
        ours = dict(case.model(batch, reverse=case.reverse, **case.inputs, **case.edge_inputs))
        expected = expected or expect(case)
        compare(case, ours, expected=expected)
    return expected


def expect(case: Case) -> Expected:
    """What a case gives by the reference."""
    outputs = run_reference(case.model, *join(case.parts), case.inputs, case.reverse, case.edge_inputs)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(value.shape, dtype=value.dtype, generator=generator)
        for name, value in outputs.items()
        if value.requires_grad
    }
    return Expected(outputs, weights, gradients(outputs, weights, leaves_of(case)) if weights else {})


def leaves_of(case: Case) -> dict[str, torch.Tensor]:
    """All that requires grad."""
    leaves = {**dict(case.model.named_parameters()), **case.inputs, **case.edge_inputs}
    return {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}


def gradients(
    outputs: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], leaves: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor | None]:
    """Those of the weighting of outputs."""
    loss = sum((outputs[name] * weight).sum() for name, weight in weights.items())
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))


def compare(
    case: Case,
    ours: dict[str, torch.Tensor],
    our_leaves: dict[str, torch.Tensor] | None = None,
    expected: Expected | None = None,
) -> None:
    """The same for outputs that were computed in some other way, perhaps from other leaves; rows in vertex order."""
    expected = expected or expect(case)
    assert ours.keys() == expected.outputs.keys()
    for name, output in expected.outputs.items():
        torch.testing.assert_close(ours[name], output, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
    leaves = leaves_of(case)
    if not leaves:
        assert not any(value.requires_grad for value in ours.values())
    if not expected.weights:
        return
    our_gradients = gradients(ours, expected.weights, {name: (our_leaves or leaves)[name] for name in leaves})
    for name, wanted in expected.gradients.items():
        ours_here = our_gradients[name]
        if wanted is None:  # nothing that was computed uses this leaf; a gradient of zeros is as good
            assert ours_here is None or not ours_here.any(), name
        else:
            ours_here = ours_here.to(wanted.device)
            torch.testing.assert_close(ours_here, wanted, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
