"""A model against the reference: outputs, and the gradient of everything that requires grad."""

from __future__ import annotations

import torch

import vertexflow as vf

from .reference import run_reference
from .strategies import Case, Structure

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def join(parts: list[Structure]) -> tuple[int, list[tuple[int, int, int]]]:
    """Several structures side by side, as `vf.pack` numbers them."""
    edges, base = [], 0
    for part in parts:
        edges += [(child + base, parent + base, slot) for child, parent, slot in part.edges]
        base += part.num_vertices
    return base, edges


def check(case: Case, *backends: str) -> None:
    """Compare outputs, and gradients of a random weighting of all of them, on each of these backends, or the model's own."""
    batch = vf.pack([part.graph() for part in case.parts])
    for backend in backends or (case.model.backend,):
        print(f"backend {backend}")
        case.model.backend = backend
        compare(case, dict(case.model(batch, reverse=case.reverse, **case.inputs, **case.edge_inputs)))


def compare(case: Case, ours: dict[str, torch.Tensor], our_leaves: dict[str, torch.Tensor] | None = None) -> None:
    """The same for outputs that were computed in some other way, perhaps from other leaves; rows in vertex order."""
    reference = run_reference(case.model, *join(case.parts), case.inputs, case.reverse, case.edge_inputs)
    assert ours.keys() == reference.keys()
    for name, expected in reference.items():
        torch.testing.assert_close(ours[name], expected, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
    leaves = {**dict(case.model.named_parameters()), **case.inputs, **case.edge_inputs}
    leaves = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if not leaves:
        assert not any(value.requires_grad for value in ours.values())
    differentiable = [name for name, value in reference.items() if value.requires_grad]
    if not differentiable:
        return
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(reference[name].shape, dtype=reference[name].dtype, generator=generator)
        for name in differentiable
    }

    def gradients(outputs, of):
        loss = sum((outputs[name] * weight).sum() for name, weight in weights.items())
        return torch.autograd.grad(loss, [of[name] for name in leaves], allow_unused=True)

    each = zip(leaves, gradients(ours, our_leaves or leaves), gradients(reference, leaves), strict=True)
    for name, found, expected in each:
        if expected is None:  # nothing that was computed uses this leaf; a gradient of zeros is as good
            assert found is None or not found.any(), name
        else:
            found = found.to(expected.device)
            torch.testing.assert_close(found, expected, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
