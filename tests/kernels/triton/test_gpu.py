"""On a GPU, with `make test-gpu`: the kernels agree in all types, twice to the bit, and nothing waits for the device."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from torch import nn

import vertexflow as vf
from benchmarks.zoo import ZOO
from vertexflow.kernels import triton
from vertexflow.kernels.triton import loop
from vertexflow.kernels.triton.launch import Call
from vertexflow.kernels.triton.persistent.launch import VARIABLE

from ...agreement import compare
from ...budget import tries
from ...ragged import ragged_cases
from ...strategies import OPERATIONS, cases
from .test_zoo import difference, results

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or triton.interprets(), reason="needs a GPU, and Triton's compiler: make test-gpu"
    ),
]

HAS = sorted(OPERATIONS)
# Relative to the norm of what is compared; "tf32" by PyTorch's own switch.
ERRORS = {"float32": 1e-5, "tf32": 5e-3, "bfloat16": 2e-2, "float16": 5e-3}


@pytest.fixture(autouse=True)
def _own_switches() -> Iterator[None]:
    """Whatever a test chooses holds for itself."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    yield
    torch.backends.cuda.matmul.fp32_precision = before


def on_gpu(animal, inputs):
    """The model and its inputs on the device; the parameters' gradients are found there."""
    animal.model.cuda()
    return {name: x.detach().cuda().requires_grad_() for name, x in inputs.items()}


def beside_float64(name, size, kind):
    """A model on the device with its inputs, its outputs and gradients, and how far these are from those in float64."""
    dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)
    animal, exact = ZOO[name](size), ZOO[name](size)
    animal.model.to(dtype)
    exact.model.double().load_state_dict(animal.model.state_dict())
    inputs = animal.inputs(dtype)
    expected = results(exact, {key: x.detach().double().requires_grad_() for key, x in inputs.items()}, "torch")
    if kind == "tf32":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    given = on_gpu(animal, inputs)
    actual = results(animal, given, "triton")
    return animal, given, actual, difference([value.cpu() for value in actual], expected)


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("size", [21, 64, 200])
@pytest.mark.parametrize("name", ZOO)
def test_every_model_agrees_with_float64(name, size, kind, record_property):
    size = min(size, 24) if name in ("MVRNN", "RNTN") else size
    animal, given, actual, error = beside_float64(name, size, kind)
    record_property("kind", kind)  # `make gpu` tells the largest of each
    record_property("difference", error)
    assert error < ERRORS[kind]
    assert all(map(torch.equal, actual, results(animal, given, "triton")))


@pytest.mark.parametrize("name", ["README", "ChildSumTreeLSTM", "GRU", "DAGNN"])
def test_autocast(name):
    animal, exact = ZOO[name](40), ZOO[name](40)
    exact.model.double().load_state_dict(animal.model.state_dict())
    inputs = animal.inputs(torch.float32)
    expected = results(exact, {key: x.detach().double().requires_grad_() for key, x in inputs.items()}, "torch")
    given = on_gpu(animal, inputs)
    with torch.autocast("cuda", torch.bfloat16):
        actual = results(animal, given, "triton")
    assert actual[0].dtype == torch.float32
    assert 1e-5 < difference([value.cpu() for value in actual], expected) < 2e-2


def check_on_gpu(case):
    """The case agrees in float64, all gradients as well."""
    model = deepcopy(case.model).cuda()
    model.backend = "triton"
    inputs = {**case.inputs, **case.edge_inputs}
    inputs = {name: x.detach().cuda().requires_grad_(x.requires_grad) for name, x in inputs.items()}
    actual = model(vf.pack([part.graph() for part in case.parts]).to("cuda"), reverse=case.reverse, **inputs)
    compare(case, {name: x.cpu() for name, x in actual.items()}, {**dict(model.named_parameters()), **inputs})


@tries(50)
@given(cases(HAS, size=36))
def test_random_functions(case):
    check_on_gpu(case)


@tries(50)
@given(ragged_cases(HAS, size=36))
def test_random_functions_of_any_number_of_children(case):
    check_on_gpu(case)


@pytest.mark.parametrize("name", ZOO)
def test_nothing_waits_for_the_device(name):
    """After the first step, which compiles and brings the schedule to the device."""
    animal = ZOO[name](24)
    given = on_gpu(animal, animal.inputs(torch.float32))
    batch = vf.pack(animal.graphs).to("cuda")

    def step():
        animal.model(batch, **given).h.sum().backward()

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["README", "ChildSumTreeLSTM", "DAGNN"])
def test_the_native_core_launches_what_triton_would(name, monkeypatch):
    """The same to the bit; once kernels are compiled Triton is not asked any more."""
    animal = ZOO[name](40)
    given = on_gpu(animal, animal.inputs(torch.float32))
    by_triton = []
    start = Call.start
    monkeypatch.setattr(Call, "start", lambda call, *numbers: (by_triton.append(call), start(call, *numbers)))
    results(animal, given, "triton")
    by_triton.clear()
    native = results(animal, given, "triton")
    assert not by_triton
    monkeypatch.setattr(loop, "driver", lambda: 0)
    assert all(map(torch.equal, native, results(animal, given, "triton")))
    assert by_triton


@pytest.fixture
def one_launch(monkeypatch):
    """All steps of a core are one launch."""
    monkeypatch.setenv(VARIABLE, "1")


@pytest.mark.parametrize("kind", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("name", ZOO)
def test_all_steps_in_one_launch(name, kind, one_launch, record_property):
    """As right as a launch a step, the same bits each time, and of several programs."""
    size = 24 if name in ("MVRNN", "RNTN") else 200
    animal, given, actual, error = beside_float64(name, size, kind)
    said = animal.functions()[0].explain()
    assert "one launch for all steps" in said
    record_property("weights", "kept" if "weights kept in shared memory" in said else "read")
    record_property("kind", f"{kind}, one launch")
    record_property("difference", error)
    assert error < ERRORS[kind]
    for _ in range(20):  # a barrier that does not hold differs now and then
        assert all(map(torch.equal, actual, results(animal, given, "triton")))


def test_one_launch_of_a_deep_batch_on_two_streams_and_as_a_graph(one_launch):
    """Each stream has a barrier of its own, and so has a captured graph."""
    animal = ZOO["LSTM"](64)
    batch = vf.pack([vf.chain(200) for _ in range(8)]).to("cuda")
    animal.model.cuda()
    x = torch.randn(batch.num_vertices, 64, device="cuda")

    def forward():
        with torch.no_grad():
            return animal.model(batch, x=x).h

    expected = forward()
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    actual = []
    for _ in range(10):
        for stream in streams:
            with torch.cuda.stream(stream):
                actual.append(forward())
    torch.cuda.synchronize()
    assert all(torch.equal(one, expected) for one in actual)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = forward()
    for _ in range(10):
        out.zero_()
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, expected)


def test_auto_chooses_kernels_on_a_gpu():
    animal = ZOO["README"](8)
    animal.model(vf.pack(animal.graphs).to("cuda"), **on_gpu(animal, animal.inputs(torch.float32)))
    assert "core: Triton kernels, 1 launch a step" in animal.model.explain()


def test_a_model_is_trained_on_a_gpu():
    """The loss of a small task falls below a hundredth of what it was."""
    animal = ZOO["README"](32)
    given = on_gpu(animal, animal.inputs(torch.float32))
    batch = vf.pack(animal.graphs).to("cuda")
    head = nn.Linear(32, 1).cuda()
    target = torch.randn(len(animal.graphs), 1, device="cuda")
    optimizer = torch.optim.Adam([*animal.model.parameters(), *head.parameters()], 1e-2)
    losses = []
    for _ in range(200):
        loss = (head(animal.model(batch, **given).h[batch.roots]) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert losses[-1] < losses[0] / 100
