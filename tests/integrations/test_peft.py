"""peft: adapters inside a vertex function are seen at the next call, and states seen before are not traced again."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model

import vertexflow as vf

from ..models import BinaryTreeLSTM
from .classifier import classifier, loader, loss_of

GRAPHS = [vf.chain(3), vf.tree(((0, 1), (2, 3)))]
X = torch.randn(sum(graph.num_vertices for graph in GRAPHS), 3, generator=torch.Generator().manual_seed(3))
TARGETS = ["w", "u"]


def lora(**options) -> LoraConfig:
    return LoraConfig(r=2, lora_alpha=4, target_modules=TARGETS, init_lora_weights=False, **options)


def check(model, tree: BinaryTreeLSTM, call) -> torch.Tensor:
    """Values and gradients equal those of the method itself, run on real tensors; returns what was pushed."""
    results = []
    usual = tree.backend
    for backend in (usual, "eager"):
        tree.backend = backend
        model.zero_grad()
        h = call(model)
        if h.requires_grad:
            h.square().sum().backward()
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((h.detach(), grads))
    tree.backend = usual
    torch.testing.assert_close(results[0], results[1])
    return results[0][0]


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_adapters_are_seen_at_the_next_call(backend):
    torch.manual_seed(1)
    tree = BinaryTreeLSTM(3, 4)
    tree.backend = backend
    plain = check(tree, tree, lambda model: model(GRAPHS, x=X).h)
    model = get_peft_model(tree, lora())
    model.add_adapter("other", lora())

    def run():
        return check(model, tree, lambda model: model(GRAPHS, x=X).h)

    one = run()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora" in name and "default" in name for name in trained)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained
    model.set_adapter("other")
    two = run()
    with model.disable_adapter():
        torch.testing.assert_close(run(), plain)
    model.set_adapter("default")
    assert not any(torch.allclose(a, b) for a, b in ((plain, one), (plain, two), (one, two)))
    torch.testing.assert_close(run(), one)
    model.merge_adapter()
    torch.testing.assert_close(run(), one)
    model.unmerge_adapter()
    torch.testing.assert_close(run(), one)

    seen = tree._programs.num_versions
    for _ in range(2):  # all of them were seen before
        model.set_adapter("other")
        torch.testing.assert_close(run(), two)
        with model.disable_adapter():
            torch.testing.assert_close(run(), plain)
        model.set_adapter("default")
        torch.testing.assert_close(run(), one)
        model.merge_adapter()
        torch.testing.assert_close(run(), one)
        model.unmerge_adapter()
    assert tree._programs.num_versions == seen

    whole = model.merge_and_unload()
    assert whole is tree
    torch.testing.assert_close(run(), one)


def test_only_adapters_are_trained_as_by_the_method_itself():
    """Injected below a larger module, with dropout, by Adam."""
    results = []
    for backend in ("torch", "native", "eager"):
        model = inject_adapter_in_model(lora(), classifier(backend))
        before = copy.deepcopy(model.state_dict())
        optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
        for batch, x, labels in loader():
            optimiser.zero_grad()
            loss_of(model(batch, x), labels).backward()
            optimiser.step()
        after = model.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed
        assert changed == {name for name in before if "lora" in name}
        results.append(after)
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[2])


def test_adapters_that_are_disabled_while_merged_are_refused():
    """peft would take them out of the weights in the layer's `forward`, which is a write."""
    torch.manual_seed(1)
    tree = BinaryTreeLSTM(3, 4)
    tree.backend = "torch"
    plain = tree(GRAPHS, x=X).h
    model = get_peft_model(tree, lora())
    one = model(GRAPHS, x=X).h
    model.merge_adapter()
    with (
        model.disable_adapter(),
        pytest.raises(vf.VertexFunctionError, match=r"sets 'w.merged_adapters'.*may only read"),
    ):
        model(GRAPHS, x=X)
    torch.testing.assert_close(model(GRAPHS, x=X).h, one)
    model.unmerge_adapter()
    with model.disable_adapter():
        torch.testing.assert_close(model(GRAPHS, x=X).h, plain)
    torch.testing.assert_close(model(GRAPHS, x=X).h, one)
