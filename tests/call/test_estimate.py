"""What `estimate_memory` says beforehand is what a step then takes."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch

import vertexflow as vf
from benchmarks.workloads.treelstm import BinaryTreeLSTM
from benchmarks.zoo import ZOO
from vertexflow.kernels import native
from vertexflow.kernels.memory import pool, rehearsal
from vertexflow.kernels.prepared import passes

from ..models import FromCode
from ..promises import Circuit

needs_a_compiler = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")
SIZE = 64
BATCH = vf.pack([vf.tree((((0, 1), (2, 3)), ((4, 5), (6, 7))))] * 500)
META = torch.empty(BATCH.num_vertices, SIZE, device="meta")


@pytest.fixture(scope="module")
def lstm():
    model = BinaryTreeLSTM(SIZE, SIZE)
    model.backend = "native"
    return model


def bytes_of(tensors):
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def step(model, batch, **inputs):
    outputs = model(batch, **inputs)
    differentiable = [value for value in outputs.values() if value.requires_grad]
    torch.autograd.backward(differentiable, [torch.ones_like(value) for value in differentiable])
    return outputs


@needs_a_compiler
@pytest.mark.parametrize("max_vertices", [None, 2000])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.slow
def test_a_step_asks_for_the_pieces_that_were_counted(lstm, monkeypatch, max_vertices, training):
    """The same new pieces of the pool, in the same order, from an empty pool on."""
    monkeypatch.setattr(lstm, "max_vertices", max_vertices)
    counted, taken, new = [], [], pool._of_the_system
    with monkeypatch.context() as patched:
        patched.setattr(rehearsal, "Piece", lambda *sizes, kind=rehearsal.Piece: counted.append(sizes) or kind(*sizes))
        lstm.estimate_memory(BATCH, x=META, training=training)
    x = torch.randn(META.shape)
    gc.collect()
    pool.clear()
    monkeypatch.setattr(pool, "_of_the_system", lambda *sizes: taken.append(sizes) or new(*sizes))
    if training:
        _ = step(lstm, BATCH, x=x)
    else:
        with torch.no_grad():
            lstm(BATCH, x=x)
    assert taken == counted
    assert counted or max_vertices is None


@needs_a_compiler
def test_each_size_is_that_of_a_step(lstm, monkeypatch):
    seen, forward, backward = {}, passes.Forward.run, passes.Backward.run

    def run_forward(self, flat):
        seen["kept"], seen["forward"] = self.kept_size, self.temporary_size
        return forward(self, flat)

    def run_backward(self, kept, read, grads):
        seen["backward"], seen["loss"] = self.temporary_size, bytes_of(grads)
        return backward(self, kept, read, grads)

    monkeypatch.setattr(passes.Forward, "run", run_forward)
    monkeypatch.setattr(passes.Backward, "run", run_backward)
    x = torch.randn(META.shape, requires_grad=True)
    outputs = step(lstm, BATCH, x=x)
    seen["outputs"] = bytes_of(outputs.values())
    seen["gradients"] = bytes_of(tensor.grad for tensor in (x, *lstm.parameters()))
    estimate = lstm.estimate_memory(BATCH, x=META.clone().requires_grad_())
    assert {name: getattr(estimate, name) for name in seen} == seen
    in_use = seen["kept"] + seen["outputs"] + seen["loss"] + seen["backward"] + seen["gradients"]
    assert estimate.peak - estimate.structure - estimate.waiting == in_use
    assert estimate == lstm.estimate_memory(BATCH, x=x)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("name", ZOO)
def test_outputs_and_gradients_of_every_model(name, backend):
    animal = ZOO[name](5)
    (function,) = animal.functions()[:1]
    if function is not animal.model:
        pytest.skip("a network of several vertex functions")
    function.backend = backend
    batch, inputs = vf.pack(animal.graphs), animal.inputs(torch.float32)
    torch.manual_seed(0)
    expected = step(function, vf.pack(animal.graphs), **inputs)
    function.zero_grad()
    estimate = function.estimate_memory(batch, **inputs)
    torch.manual_seed(0)
    outputs = step(function, batch, **inputs)
    assert all(torch.equal(outputs[name], expected[name]) for name in expected)
    assert estimate.outputs == bytes_of(outputs.values())
    grads = [tensor.grad for tensor in (*function.parameters(), *inputs.values()) if tensor.grad is not None]
    assert estimate.gradients == bytes_of(grads)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_kinds_initial_states_and_the_other_direction(backend):
    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h + torch.rand_like(v.gather(1).h))
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 4})
    model.backend = backend
    batch = vf.pack([vf.chain(3), vf.tree((0, 1))])
    x, initial = torch.randn(6, 4, requires_grad=True), {"h": torch.randn(2, 4, requires_grad=True)}
    before = torch.get_rng_state()
    estimate = model.estimate_memory(batch, reverse=True, initial=initial, x=x)
    assert torch.equal(torch.get_rng_state(), before)
    outputs = model(batch, reverse=True, initial=initial, x=x)
    outputs.h.sum().backward()
    assert (estimate.outputs, estimate.gradients) == (4 * 6 * 4, 4 * (6 + 2) * 4)
    assert x.grad.shape == (6, 4)


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("max_vertices", [None, 6])
@pytest.mark.parametrize("has_kinds", [False, True])
@pytest.mark.cases(1)
def test_a_call_after_it_is_as_without_it(has_kinds, backend, max_vertices):
    """What is kept of a structure, index arrays and prepared calls, is real: any number of children, kinds."""
    found, kinds = [], ["in", "in", "and", "not", "and"]
    for estimates in (False, True):
        torch.manual_seed(0)
        if has_kinds:
            model, graph = Circuit(), vf.graph(5, [(0, 2), (1, 2), (2, 3), (3, 4), (0, 4)], kind=kinds)
            x = torch.randn(4, 8, requires_grad=True)
        else:
            model, graph = vf.nn.DAGNN(8, 4, num_layers=1).layers[0], vf.tree((0, (1, 2)))
            x = torch.randn(10, 8, requires_grad=True)
        model.backend, model.max_vertices, batch = backend, max_vertices, vf.pack([graph, graph])
        if estimates:
            model.estimate_memory(batch, x=x)
            model.estimate_memory(batch, training=False, x=x)
        outputs = step(model, batch, x=x)
        found.append([*outputs.values(), x.grad, *(parameter.grad for parameter in model.parameters())])
    assert all(map(torch.equal, *found))


def test_nothing_is_computed_and_no_trace_of_zeros_is_kept():
    calls = []

    def vertex(self, v):
        calls.append(v)
        v.push(y=self.w(v.pull("x")))

    model = FromCode(vertex, {}, w=torch.nn.Linear(4, 2))
    batch = vf.pack([vf.graph(3, [])])
    model.estimate_memory(batch, x=torch.empty(3, 4, device="meta"))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(not version.traces for version in model._programs.versions.values())
    before = len(calls)
    model.estimate_memory(batch, x=torch.randn(3, 4))  # whose trace may be used again
    traced = len(calls)
    assert traced > before
    model(batch, x=torch.randn(3, 4))
    model.estimate_memory(batch, x=torch.empty(3, 4, device="meta"))
    assert len(calls) == traced


@needs_a_compiler
@pytest.mark.parametrize("max_vertices", [None, 300])
@pytest.mark.slow
def test_what_is_known_of_a_structure_is_counted(max_vertices):
    """Python says so itself: what its objects take, and the numbers of NumPy; of tensors it knows no C++."""
    model = BinaryTreeLSTM(4, 4)
    model.backend, model.max_vertices, x = "native", max_vertices, torch.randn(30_000, 4)
    for count in (2, 400):  # the first step traces and compiles
        graphs = [vf.tree_from_parents([-1, *(torch.arange(size) // 2).tolist()]) for size in range(2, 2 + count)]
        batch = vf.pack([graph for graph in graphs if graph.num_vertices < 100] * (1 if count == 2 else 5))
        gc.collect()
        tracemalloc.start()
        _ = step(model, batch, x=x[: batch.num_vertices])
        gc.collect()
        held, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    estimate = model.estimate_memory(batch, x=x[: batch.num_vertices])
    assert estimate.structure == pytest.approx(1.1 * held, rel=0.15)


def test_fewer_vertices_at_once_take_less(lstm):
    whole = lstm.estimate_memory(BATCH, x=META)
    lstm.max_vertices = 1000
    try:
        parts = lstm.estimate_memory(BATCH, x=META)
    finally:
        lstm.max_vertices = None
    assert parts.peak < whole.peak
    assert parts.outputs == whole.outputs


def test_what_the_loss_takes(lstm):
    """The square is saved by nobody, h is; roots alone enter the loss, and their gradient is as large as h."""
    size = BATCH.num_vertices * SIZE * 4
    estimate = lstm.estimate_memory(BATCH, x=META, loss=lambda out: out.h[BATCH.roots].square().mean())
    assert size <= estimate.loss <= size + 8 * len(BATCH.roots)
    of_all = lstm.estimate_memory(BATCH, x=META, loss=lambda out: out.h.square().mean())
    assert of_all.loss == size
    assert of_all.peak > lstm.estimate_memory(BATCH, x=META).peak
    kept = lstm.estimate_memory(BATCH, x=META, loss=lambda out: out.h.exp().sum(), holds_outputs=False)
    assert kept.loss == size


def test_it_can_be_read(lstm):
    lines = str(lstm.estimate_memory(BATCH, x=META)).splitlines()
    assert [line.split()[0] for line in lines][-1] == "peak"
    assert all(line.endswith(" MiB") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, vf.VertexFlowError, "'x'"),
        ({"x": META[1:]}, vf.InputError, "has 7499 rows"),
        ({"x": 1}, vf.InputTypeError, "is a int"),
        ({"x": META, "loss": lambda out: out.h.sum().item()}, vf.InputError, "without numbers"),
        ({"x": META, "loss": lambda out: out.h}, vf.InputTypeError, "loss returned a tensor"),
        ({"x": META, "loss": lambda out: 1.0}, vf.InputTypeError, "loss returned a float"),
        ({"x": META, "loss": lambda out: out.h.detach().sum()}, vf.InputError, "does not depend"),
    ],
)
def test_what_cannot_be_estimated_is_said(lstm, arguments, error, message):
    with pytest.raises(error, match=message):
        lstm.estimate_memory(BATCH, **arguments)
    assert rehearsal.current() is None


def test_the_method_itself_cannot_be_gone_through():
    with pytest.raises(vf.BackendError, match='backend "eager"'):
        vf.nn.TreeFC(4, backend="eager").estimate_memory(BATCH, x=META[:, :4])


@pytest.mark.slow
@needs_a_compiler
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize("is_in_parts", [False, True])
@pytest.mark.parametrize("name", ["treelstm", "childsum", "circuits", "treefc"])
def test_a_process_grows_by_what_was_estimated(name, is_in_parts):
    parts = ["--max-vertices", "4000" if name == "treefc" else "1000"] if is_in_parts else []
    command = [sys.executable, "-m", "benchmarks.memory", name, "--only", "vertexflow", "--steps", "1", *parts]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert found["estimated"] == pytest.approx(found["steps"][0]["peak"], rel=0.1)
