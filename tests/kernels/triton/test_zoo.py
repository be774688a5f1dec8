"""Every ready-made vertex function as Triton kernels: the same as PyTorch, in all types, and in a fixed number of launches."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from unittest import mock

import pytest
import torch

import vertexflow as vf
from benchmarks.zoo import ZOO
from vertexflow.kernels.triton.loop import Call
from vertexflow.kernels.triton.tiles import Tile

pytestmark = pytest.mark.usefixtures("interpreter")

# Relative to the norm of what is compared.
ERRORS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}


def results(animal, inputs, backend, autocast=None):
    """The outputs, and the gradient of everything of one random weighting of them."""
    for function in animal.functions():
        function.backend = backend
    with nullcontext() if autocast is None else torch.autocast("cpu", autocast):
        h = animal.model(animal.graphs, **inputs).h
    weight = torch.randn(h.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(h)
    leaves = [*inputs.values(), *animal.model.parameters()]
    grads = torch.autograd.grad((h * weight).sum(), leaves, allow_unused=True)
    return [h, *(torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, grads, strict=True))]


def model_and_exact(name, dtype):
    """A model of this dtype with inputs, and both in float64: no size is a power of two."""
    size = 9 if name == "MVRNN" else 21  # which has a matrix for each vertex
    animal, exact = ZOO[name](size), ZOO[name](size)
    animal.model.to(dtype)
    exact.model.double().load_state_dict(animal.model.state_dict())
    inputs = animal.inputs(dtype)
    return animal, inputs, exact, {name: x.detach().double().requires_grad_() for name, x in inputs.items()}


def difference(actual, expected):
    """The largest, relative to the norm of what is expected; NaN if there is one."""
    pairs = zip(actual, expected, strict=True)
    each = [((one.double() - other).norm() / other.norm().clamp(min=1e-6)).item() for one, other in pairs]
    assert not any(value != value for value in each)
    return max(each)


DTYPES = [pytest.param(dtype, marks=[] if dtype == torch.float32 else pytest.mark.slow) for dtype in ERRORS]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.cases(1)
def test_the_same_as_in_float64(name, dtype):
    animal, inputs, exact, exact_inputs = model_and_exact(name, dtype)
    actual = results(animal, inputs, "triton")
    assert difference(actual, results(exact, exact_inputs, "eager")) < ERRORS[dtype]
    if name == "DAGNN":  # where several parents send to one child, and children are weighted
        assert all(map(torch.equal, actual, results(animal, inputs, "triton")))  # twice the same bits
    for function in animal.functions():
        assert "core: calls of PyTorch" not in function.explain(), function.explain()


@pytest.mark.parametrize("name", ["GRU", "DAGNN"])
@pytest.mark.cases(1)
def test_steps_of_few_rows_have_smaller_programs_so_that_all_multiprocessors_have_work(name, monkeypatch):
    sizes = set()
    size = Tile.size

    def of_many(tile, rows, _):
        sizes.add(size(tile, rows, 132))
        return size(tile, rows, 132)

    monkeypatch.setattr(Tile, "size", of_many)
    animal, inputs, exact, exact_inputs = model_and_exact(name, torch.float32)
    assert difference(results(animal, inputs, "triton"), results(exact, exact_inputs, "eager")) < 1e-5
    assert (16, 16) in sizes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README", "DAGNN"])
def test_autocast_multiplies_in_half_precision_and_keeps_states_as_they_are(name):
    animal, inputs, exact, exact_inputs = model_and_exact(name, torch.float32)
    actual = results(animal, inputs, "triton", autocast=torch.bfloat16)
    expected = results(exact, exact_inputs, "eager")
    assert 1e-5 < difference(actual, expected) < 2e-2
    assert actual[0].dtype == torch.float32
    for function in animal.functions():
        assert "core: calls of PyTorch" not in function.explain(), function.explain()
    by_pytorch = results(animal, inputs, "torch", autocast=torch.bfloat16)
    assert difference(actual, [value.double() for value in by_pytorch]) < 1e-3  # each operation is rounded as there


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cell_state_in_float32(dtype):
    """Beside all else in half precision; over a long chain, what is added up keeps more digits."""
    torch.manual_seed(0)
    animal, _, exact, _ = model_and_exact("NaryTreeLSTM", dtype)
    animal.graphs = exact.graphs = [vf.chain(60)]
    inputs = animal.inputs(dtype)
    expected = results(exact, {name: x.detach().double().requires_grad_() for name, x in inputs.items()}, "eager")
    errors = []
    for animal.model.state_dtype in (None, {"c": torch.float32}):
        actual = results(animal, inputs, "triton")
        assert "core: Triton kernels" in animal.model.explain()
        assert difference(actual, expected) < ERRORS[dtype]
        errors.append(difference(actual[:1], expected[:1]))
    assert errors[1] < errors[0]


def launches(model, batch, x):
    """How often each kernel is launched in a training step."""
    counted = Counter()
    start = Call.start

    def count(call, *arguments):
        counted[call.launch.name] += 1
        start(call, *arguments)

    with mock.patch.object(Call, "start", count):
        model(batch, x=x).h.sum().backward()
    return counted


@pytest.mark.parametrize("size", [1, 21])
@pytest.mark.cases(1)
def test_a_fixed_number_of_launches_a_step(size):
    """Whatever the batch and the depth: one forward, two backward; of leaves one each."""
    model = ZOO["README"](size).model
    model.backend = "triton"
    for graphs, depth in (([vf.chain(4)], 4), ([vf.tree(((0, 1), (2, 3))), vf.chain(7)], 7), ([vf.chain(2)] * 20, 2)):
        batch = vf.pack(graphs)
        counted = launches(model, batch, torch.randn(batch.num_vertices, size, requires_grad=True))
        inner = dict.fromkeys(("core_0", "grad_core_0", "grad_core_1"), depth - 1)
        assert counted == {"core_leaf_0": 1, **inner, "grad_core_leaf_0": 1}


@pytest.mark.parametrize("name", ["README", "DAGNN"])
@pytest.mark.cases(1)
def test_nothing_asks_for_values(name):
    """On a GPU whoever asks would wait."""
    animal = ZOO[name](5)
    for function in animal.functions():
        function.backend = "triton"
    batch, inputs = vf.pack(animal.graphs), animal.inputs(torch.float32)
    animal.model(batch, **inputs)
    with NoValues():
        animal.model(batch, **inputs).h.sum().backward()


class NoValues(torch.utils._python_dispatch.TorchDispatchMode):
    """Refuses operations whose results decide, on the host, what is done next."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique", "is_nonzero", "repeat_interleave")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        known = name == "repeat_interleave" and (kwargs or {}).get("output_size") is not None
        assert known or not name.startswith(self.WAITING), f"{name} waits for values"
        return function(*args, **(kwargs or {}))
