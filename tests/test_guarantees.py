"""Same bits for same seeds; NaN stays in its sample; a run that was resumed is the run that was not interrupted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import vertexflow as vf

from .models import FromCode
from .promises import SHAPES, graphs_of, inputs_of, outputs_and_gradients, same_bits

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ["torch", "native", "eager"]


def model_of(name, backend):
    torch.manual_seed(0)
    model = SHAPES[name].model()
    model.backend = backend
    return model


class Run:
    """A training run: a model whose policy may be learned, an optimizer, dropout, and a DataLoader's random order."""

    def __init__(self, name, backend, seed=0):
        shape = SHAPES[name]
        torch.manual_seed(seed)
        self.model = shape.model()
        self.model.backend = backend
        self.rate = nn.Dropout(0.3)
        graphs = graphs_of(shape, 12)
        if name == "kinds":
            self.model.policy = vf.FSM.learn([vf.pack(graphs)], episodes=20)
        rows = [inputs_of(shape, [graph], at) for at, graph in enumerate(graphs)]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.order = torch.Generator().manual_seed(seed)
        self.loader = DataLoader(
            list(zip(graphs, rows, strict=True)), batch_size=5, shuffle=True, generator=self.order,
            collate_fn=lambda samples: (vf.pack([graph for graph, _ in samples]), torch.cat([x for _, x in samples])),
        )  # fmt: skip

    def epochs(self, count):
        for _ in range(count):
            for batch, x in self.loader:
                loss = self.rate(self.model(batch, x=x).h).square().mean()
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
        return self

    def state(self):
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "random": torch.get_rng_state(),
            "order": self.order.get_state(),
        }  # fmt: skip

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.order.set_state(state["order"])
        return self


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for key in value for tensor in tensors_in(value[key])]
    return [tensor for each in value for tensor in tensors_in(each)] if isinstance(value, list | tuple) else []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["ragged", pytest.param("kinds", marks=pytest.mark.slow)])
@pytest.mark.cases(2)
def test_the_same_seed_gives_the_same_bits(name, backend):
    runs = [Run(name, backend, seed).epochs(2) for seed in (0, 0, 1)]
    first, second, other = (tensors_in(run.state()) for run in runs)
    assert same_bits(first, second)
    assert not same_bits(first, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.cases(1)
def test_native_code_gives_the_same_bits_with_any_number_of_threads(dtype):
    for name in ("trees", "ragged"):
        model = model_of(name, "native").to(dtype)
        graphs = graphs_of(SHAPES[name], 300)  # enough that threads are woken
        batch, x, results = vf.pack(graphs), inputs_of(SHAPES[name], graphs).to(dtype), []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(outputs_and_gradients(model, batch, x))
        assert "vertex.core: native code" in model.explain()
        assert same_bits(results[0], results[1]), name
        assert same_bits(results[0], results[2]), name


def poisoned(name, backend, value, interpreted=False):
    """Outputs and gradients before, with and after a bad value in one sample, and masks of the rows of all other samples."""
    shape, model = SHAPES[name], model_of(name, backend).eval()
    graphs = graphs_of(shape, 3 if interpreted else 9)
    batch, x = vf.pack(graphs), inputs_of(shape, graphs)
    bad = max(range(len(graphs)), key=lambda number: graphs[number].num_edges)  # its edges read it, too
    of_inputs = np.repeat(np.arange(len(graphs)), [shape.has_input(graph) for graph in graphs])
    of_vertices = np.repeat(np.arange(len(graphs)), [graph.num_vertices for graph in graphs])
    spoilt = x.clone()
    spoilt[torch.from_numpy(of_inputs == bad)] = value
    before = outputs_and_gradients(model, batch, x)
    during = outputs_and_gradients(model, batch, spoilt)
    after = outputs_and_gradients(model, batch, x)  # in the same memory
    others = torch.from_numpy(of_vertices != bad), torch.from_numpy(of_inputs != bad)
    return before, during, after, others


def check_poisoned(before, during, after, others):
    assert same_bits(before, after)
    assert not during[0].isfinite().all()
    for clean, with_bad, other in zip(before, during, others, strict=False):  # what was pushed; the input's gradient
        assert same_bits([clean[other]], [with_bad[other]])
        assert clean[other].isfinite().all()
    for gradient in during[2:]:  # a sum over all rows has the bad one's
        assert gradient.isnan().any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.cases(3)
def test_nan_stays_in_its_sample(name, backend):
    check_poisoned(*poisoned(name, backend, float("nan")))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", ["DAGs", "ragged"])
@pytest.mark.cases(1)
def test_nan_stays_in_its_sample_in_triton_kernels(name, interpreter):
    check_poisoned(*poisoned(name, "triton", float("nan"), interpreted=True))


@pytest.mark.parametrize("name", ["DAGs", "kinds"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(2)
def test_a_resumed_run_is_the_run_that_was_not_interrupted(name, backend, tmp_path):
    whole = Run(name, backend).epochs(2)
    torch.save(whole.state(), tmp_path / "stopped.pt")
    expected = tensors_in(whole.epochs(2).state())
    resumed = Run(name, backend, seed=9)
    resumed.model.policy = "depth"
    resumed.load(torch.load(tmp_path / "stopped.pt", weights_only=True))
    assert same_bits(tensors_in(resumed.epochs(2).state()), expected)
    if name == "kinds":
        assert resumed.model.policy.dump() == whole.model.policy.dump()


@pytest.mark.slow
def test_a_run_that_is_resumed_in_another_process_is_the_same_run(tmp_path):
    expected = tensors_in(Run("kinds", "native").epochs(4).state())
    torch.save(Run("kinds", "native").epochs(2).state(), tmp_path / "stopped.pt")
    program = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from tests.test_guarantees import Run\n"
        "run = Run('kinds', 'native', seed=9).load(torch.load(sys.argv[1], weights_only=True))\n"
        "torch.save(run.epochs(2).state(), sys.argv[2])\n"
    )
    files = [str(tmp_path / name) for name in ("stopped.pt", "ended.pt")]
    subprocess.run([sys.executable, "-c", program, *files], cwd=ROOT, check=True, timeout=120)
    assert same_bits(tensors_in(torch.load(files[1], weights_only=True)), expected)


@pytest.mark.parametrize("backend", ["torch", "native", "eager"])
@pytest.mark.parametrize("has_rows", [True, False])
@pytest.mark.cases(4)
def test_random_numbers_are_new_in_each_call(has_rows, backend):
    def vertex(self, v):
        x = v.pull("x") + 0 * v.gather(0).h
        size = x.shape if has_rows else (1,)
        noise = torch.rand(size) + F.dropout(torch.ones(size), 0.5)
        v.scatter(h=x)
        v.push(y=x * noise)

    model = FromCode(vertex, {"h": 1})
    model.backend = backend
    calls = []
    for _ in range(2):
        x = torch.ones(6, 1, requires_grad=True)
        y = model([vf.chain(6)], x=x).y
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0][-1], y[-1])
        calls += y.flatten().tolist()
    of_a_call = 6 if has_rows or backend == "eager" else 1
    assert len(set(calls)) == 2 * of_a_call


@pytest.mark.parametrize("outputs", [None, torch.tensor([0, 5])])
def test_noise_that_a_call_shares_is_not_drawn_for_each_part_of_a_batch(outputs):
    def vertex(self, v):
        h = torch.tanh(F.linear(v.pull("x"), F.dropout(self.w, 0.5, self.training)) + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 2}, w=torch.nn.Parameter(torch.ones(2, 2)))
    graphs, x = [vf.chain(3), vf.chain(3)], torch.ones(6, 2)
    model.max_vertices = 3
    with pytest.raises(vf.VertexFunctionError, match=r"all vertices of a call share(.|\n)*F\.dropout\(self\.w"):
        model(graphs, x=x, outputs=outputs)
    in_eval = model.eval()(graphs, x=x).h
    model.train().max_vertices = 6
    y = model(graphs, x=x).h
    assert torch.equal(y[:3], y[3:])
    assert torch.equal(in_eval[:3], in_eval[3:])


@pytest.mark.parametrize("page", ["guarantees.md", "wrappers.md", "parallel.md"])
def test_every_test_that_the_guarantees_name_exists(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|csrc|examples)/[\w/]+\.[ch]?py?p?p?)(?:::(\w+))?`", text)
    assert len(named) >= 6
    for file, test in named:
        code = (ROOT / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test}\(", code, re.MULTILINE), f"{file}::{test}"
