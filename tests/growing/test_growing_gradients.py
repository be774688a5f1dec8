"""What backward through a run that grows does where extensions wait for a common node: as PyTorch's own operations would."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from ..agreement import TOLERANCE
from ..models import BinaryTreeLSTM
from ..strategies import RandomFunction
from ..versions import IS_OLD

BACKENDS = ["native", "torch"]


def model_and_input(backend):
    torch.manual_seed(0)
    model = BinaryTreeLSTM(4, 4).double()
    model.backend = backend
    return model, torch.randn(5, 4, dtype=torch.float64)


def grow(model, x, row=None):
    """Leaves and three extensions, of which the second pulls a row; h of the last one, and of one before it."""
    run = model.start(x=x)
    run.extend([[0, 1], [2, 3]])
    run.extend([[5, 4]], x=x[:1] if row is None else row)
    run.extend([[7, 6], [6, 5]])
    return run[[8, 9]].h, run[6].h


def losses(model, x, row=None):
    late, early = grow(model, x, row)
    return late.sin().sum() + early.square().sum()


def agree(ours, expected):
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", ["u.weight", "w.bias", "x", "row"])
@pytest.mark.cases(1)
def test_a_gradient_is_wanted_of_one_tensor_only(backend, wanted):
    results = []
    for each in (backend, "eager"):
        model, x = model_and_input(each)
        row = torch.ones(1, 4, dtype=torch.float64, requires_grad=wanted == "row")
        x.requires_grad_(wanted == "x")
        model.requires_grad_(wanted not in ("x", "row"))
        tensors = {**dict(model.named_parameters()), "x": x, "row": row}
        results.append(torch.autograd.grad(losses(model, x, row), [tensors[wanted]]))
    agree(*results)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_twice_and_of_parts(backend):
    model, x = model_and_input("eager")
    late, early = grow(model, x)
    parameters = list(model.parameters())
    expected = [
        torch.autograd.grad(loss, parameters, retain_graph=True)
        for loss in (early.sum(), late.sum(), late.sum() + early.sum())
    ]
    model.backend = backend
    late, early = grow(model, x)
    for loss, one in zip((early.sum(), late.sum(), late.sum() + early.sum()), expected, strict=True):
        agree(torch.autograd.grad(loss, parameters, retain_graph=True), one)
    late.sum().backward()
    agree([parameter.grad for parameter in parameters], expected[1])
    with pytest.raises(RuntimeError, match="a second time"):
        early.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hook_of_a_parameter_sees_the_whole_gradient(backend):
    model, x = model_and_input(backend)
    expected = torch.autograd.grad(losses(model, x), model.u.weight)[0]
    seen = []
    model.u.weight.register_hook(lambda grad: seen.append(grad) or 2 * grad)
    losses(model, x).backward()
    torch.testing.assert_close(sum(seen), expected, **TOLERANCE)
    torch.testing.assert_close(model.u.weight.grad, 2 * expected, **TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_parameters_that_were_computed_have_the_gradients_of_what_made_them(backend):
    model, x = model_and_input(backend)
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    class Growing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return losses(self.model, x)

    results = []
    for each in (backend, "eager"):
        model.backend = each
        scaled = {f"model.{name}": scale * value for name, value in model.named_parameters()}
        loss = torch.func.functional_call(Growing(), scaled, (x,))
        results.append(torch.autograd.grad(loss, [scale, model.u.weight]))
    agree(*results)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_parameters_given_other_data_between_extensions(backend):
    """Each extension has the gradient at the values that it has read."""
    results = []
    for each in (backend, "eager"):
        model, x = model_and_input(each)
        run = model.start(x=x)
        run.extend([[0, 1]])
        model.u.weight.data = model.u.weight.data * 2
        run.extend([[5, 2]])
        results.append(torch.autograd.grad(run[6].h.sum(), list(model.parameters())))
    agree(*results)


@pytest.mark.parametrize("is_read_first", [False, True])
@pytest.mark.cases(1)
def test_a_parameter_changed_in_place_is_refused(is_read_first):
    model, x = model_and_input("native")
    run = model.start(x=x)
    run.extend([[0, 1]])
    early = run[5].h.sum() if is_read_first else None
    with torch.no_grad():
        model.u.weight.mul_(2)
    run.extend([[5, 1]])
    loss = run[5].h.sum() if early is None else early
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_wanted", [False, True])
@pytest.mark.cases(1)
def test_an_input_changed_in_place_has_been_read(backend, is_wanted):
    """Before what it is an input of has a node of its own, or after."""
    results = []
    for changes in (False, True):
        model, x = model_and_input(backend)
        row = torch.ones(1, 4, dtype=torch.float64)
        leaf = row.clone().requires_grad_(is_wanted)
        run = model.start(x=x)
        given = leaf * 1
        run.extend([[0, 1]], x=given)
        with torch.no_grad():
            given.mul_(1 + changes)
        wanted = [*model.parameters(), *([leaf] if is_wanted else [])]
        results.append(torch.autograd.grad(run[5].h.sum(), wanted))
    agree(*results)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_hooks_of_saved_tensors_see_what_is_saved(backend):
    model, x = model_and_input(backend)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(losses(model, x), parameters)
    packed = []

    def pack(tensor):
        packed.append(tensor)
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run = model.start(x=x)
        before = len(packed)
        run.extend([[0, 1]])
        assert len(packed) > before  # at once, while the hooks are there
    agree(torch.autograd.grad(losses(model, x), parameters), expected)
    run[:].h.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_numbers_of_vertices_may_change_after_they_were_read(backend):
    results = []
    for changes in (False, True):
        model, x = model_and_input(backend)
        run = model.start(x=x)
        table, vertices = np.array([[0, 1], [2, 3]]), torch.tensor([5, 6, 2])
        run.extend(table)
        table[:] = 0
        loss = (run[vertices].h * torch.arange(12).view(3, 4)).sum()
        if changes:
            vertices[:] = 0
        results.append(torch.autograd.grad(loss, list(model.parameters())))
    agree(*results)


def test_a_run_is_freed_without_the_garbage_collector():
    """Parameters that change make new nodes behind earlier extensions, which must not refer back to these."""
    model, x = model_and_input("native")
    gc.collect()
    gc.disable()
    try:
        run = model.start(x=x)
        for _ in range(3):
            run.extend([[0, 1]])
            loss = run[5].h.sum()
            with torch.no_grad():
                model.u.weight.add_(1)
        states = weakref.ref(run._grown.states["h"])
        del run, loss
        assert states() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backward_pass_that_fails_leaves_nothing_behind(backend):
    model, x = model_and_input(backend)
    run = model.start(x=x.requires_grad_())
    run.extend([[0, 1], [2, 3]])
    loss = run[[5, 6]].h.sin().sum()
    expected = torch.autograd.grad(loss, [x, *model.parameters()], retain_graph=True)

    def fail(grad):
        raise KeyError("of a hook")

    hook = x.register_hook(fail)
    with pytest.raises(KeyError, match="of a hook"):
        torch.autograd.grad(loss, [x, *model.parameters()], retain_graph=True)
    assert not run._grown.gradients._of_calls
    hook.remove()
    agree(torch.autograd.grad(loss, [x, *model.parameters()]), expected)
    assert not run._grown.gradients._of_calls


@pytest.mark.skipif(IS_OLD, reason="before PyTorch 2.13, nodes of custom functions do not say what is before them")
def test_extensions_that_nobody_has_read_are_one_node():
    model, x = model_and_input("native")
    run = model.start(x=x)
    for left in range(6):
        run.extend([[left, left + 1]])
        with torch.no_grad():
            assert not run[left].h.requires_grad
    assert not run._trail.waiting or len(run._trail.waiting) == 7
    node, names = run[10].h.sum().grad_fn, []
    while node is not None:
        names.append(type(node).__name__)
        node = next((before for before, _ in node.next_functions if before is not None), None)
    assert names.count("_ExtensionsBackward") == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sum_over_rows_in_memory_of_the_pass_begins_anew(backend):
    model = RandomFunction([("joint", 0, 2), ("scale", 0, 5), ("cumsum", 7, 6)], [2], slots=2, shape=(2, 2), seed=0)
    torch.manual_seed(0)
    inputs = {"x": torch.randn(9, 4), "weight": torch.rand(9)}
    inputs = {name: value.double() for name, value in inputs.items()} | {"k": torch.arange(9) % 5}

    def gradient():
        run = model.start()
        run.extend([[-1, -1]] * 5 + [[0, 1], [2, 5], [3, 6], [7, 4]], **inputs)
        return torch.autograd.grad(run[:].out2.square().sum(), model.scale)

    model.backend = "eager"
    expected, model.backend = gradient(), backend
    for value in range(1, 6):
        left_behind = [torch.full((size,), float(value), dtype=torch.float64) for size in range(1, 400)]
        del left_behind
        agree(gradient(), expected)
