"""Random structures in small windows, over memory full of NaN that earlier passes have just left, as on the reference backend.

Calls differ in what is wanted (all, roots, some vertices, none), in how the backward passes go, and in what has no gradient.
`VERTEXFLOW_EXAMPLES=20` tries twenty times as many.
"""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.kernels import native

from ...budget import repeats
from ...fuzz.memory import memory
from ..memory.test_partial_states import Some
from .test_leaf_states import MODELS, SIZE, with_kinds

CASES = repeats(8)

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")


class Narrow(vf.VertexFunction):
    """A wide state and a narrow one."""

    def __init__(self):
        super().__init__(state={"h": 8, "c": 1})
        self.below, self.read, self.gate = nn.Linear(16, 8, bias=False), nn.Linear(2, 8), nn.Linear(8, 1)

    def vertex(self, v):
        one, other = v.gather(0), v.gather(1)
        z = torch.relu(self.below(torch.cat([one.h, other.h], -1)) + self.read(v.pull("x")))
        gate = torch.sigmoid(self.gate(z))
        h = torch.tanh(z) * gate + one.h * other.c
        v.scatter(h=h, c=gate * one.c + other.c + 1)
        v.push(h=h, gate=gate, c=one.c)


class Late(vf.VertexFunction):
    """What is gathered is read by lazy parts alone, beside a sum."""

    def __init__(self):
        super().__init__(state={"h": SIZE})
        self.read, self.out = nn.Linear(SIZE, SIZE), nn.Linear(2 * SIZE, 5)

    def vertex(self, v):
        kids, x = v.children, v.pull("x")
        h = torch.tanh(self.read(x) + v.sum(kids.h))
        v.scatter(h=h)
        y = torch.exp(-(self.out(torch.cat([h, v.gather(0).h], -1)) ** 2))
        v.push(y=y, most=v.max(kids.h), edge=torch.cos(kids.h) * kids.expand(x))


MADE = {"some": Some, "narrow": Narrow, "late": Late, **{name: MODELS[name] for name in ("kinds", "slots", "edges")}}


def batch_of(name, draw):
    graphs = []
    for _ in range(draw.randint(1, 3)):
        count, most, parents = (
            draw.choice([1, 3, 9, 20, 40]),
            4 if name in ("late", "edges") else 2,
            draw.choice([1, 2, 5]),
        )
        names, edges, free = draw.sample(range(count), count), [], [parents] * count
        for parent in range(1, count):
            for child in draw.sample(range(parent), min(parent, draw.randint(0, most))):
                if free[child]:
                    free[child] -= 1
                    edges.append((names[child], names[parent]))
        kind = [draw.choice(["both", "one", "other", "plain"]) for _ in range(count)] if name == "some" else None
        graphs.append(vf.graph(count, edges, kind=kind))
    return vf.pack(with_kinds(graphs, draw.randrange(99)) if name == "kinds" else graphs)


def inputs_of(name, batch, generator):
    sizes = {"x": (batch.num_vertices, 2 if name in ("some", "narrow") else SIZE)}
    if name == "edges":
        sizes["z"] = sizes["x"]
    if name == "kinds":
        words, marks = (len(batch.of_kind(kind)) if kind in batch.kinds else 0 for kind in ("word", "mark"))
        sizes = {"x": (words, SIZE), "z": (words + marks, SIZE)}
    return {key: torch.randn(size, dtype=torch.float64, generator=generator) for key, size in sizes.items()}


def results(model, batch, inputs, wanted, how, seed):
    """Outputs, and gradients of them, weighted at random."""
    generator, draw = torch.Generator().manual_seed(seed), random.Random(seed)
    outputs = model(batch, **inputs)
    names, all_gradients = sorted(name for name in outputs if outputs[name].requires_grad), []
    weights = {name: torch.randn(outputs[name].shape, dtype=torch.float64, generator=generator) for name in names}
    some = [name for name in names if draw.random() < 0.5]
    passes = {
        "once": [(names, False)],
        "twice": [(names, True), (names, False)],
        "in two": [(some, True), ([name for name in names if name not in some], False)],
        "of one": [(names[:1], False)],
    }[how]
    for chosen, retains in passes:
        if chosen and wanted:
            ends = [outputs[name] for name in chosen], wanted, [weights[name] for name in chosen]
            gradients = torch.autograd.grad(*ends, retain_graph=retains, allow_unused=True)
            all_gradients += [
                torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, wanted, strict=True)
            ]
    return [*(outputs[name].detach() for name in sorted(outputs)), *all_gradients]


def selection(batch, draw):
    count, how = batch.num_vertices, draw.choice(["all", "all", "roots", "mask", "repeated", "none"])
    if how == "all":
        return {}
    chosen = {
        "roots": batch.roots,
        "mask": torch.tensor([draw.random() < 0.4 for _ in range(count)]),
        "repeated": torch.tensor([draw.randrange(count) for _ in range(5)]),
        "none": torch.zeros(0, dtype=torch.int64),
    }
    return {"outputs": chosen[how]}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.cases(3)
@pytest.mark.slow
def test_random_structures(monkeypatch, name):
    monkeypatch.setenv("VERTEXFLOW_CXXFLAGS", "-O0")  # compiled in half the time
    torch.manual_seed(0)
    model = MADE[name]().double()
    for seed in range(CASES):
        draw, generator = random.Random(f"{name}/{seed}"), torch.Generator().manual_seed(seed)
        batch = batch_of(name, draw)
        model.requires_grad_(wants := draw.random() < 0.8)
        leaves = inputs_of(name, batch, generator)
        if not wants or draw.random() < 0.5:
            leaves = {key: value.requires_grad_() for key, value in leaves.items()}
        wanted = [leaf for leaf in (*leaves.values(), *model.parameters()) if leaf.requires_grad]
        inputs, how = {**leaves, **selection(batch, draw)}, draw.choice(["once", "once", "twice", "in two", "of one"])
        window, limit, model.policy = (
            draw.choice([1, 2, 3, 7]),
            draw.choice([None, None, 10]),
            draw.choice(["depth", "agenda"]),
        )
        model.backend, model.max_vertices = "torch", None
        expected = results(model, batch, inputs, wanted, how, seed)
        model.backend, model.max_vertices = "native", limit
        other = batch_of(name, draw)
        for _ in range(2):
            with memory(window, poisoned=True):
                actual = results(model, batch, inputs, wanted, how, seed)
                results(model, other, inputs_of(name, other, generator), [*model.parameters()] * wants, "once", seed)
            assert len(actual) == len(expected)
            for one, wanted_one in zip(actual, expected, strict=True):
                torch.testing.assert_close(
                    one,
                    wanted_one,
                    rtol=1e-9,
                    atol=1e-10,
                    msg=lambda text, seed=seed, how=how: f"case {seed}, {how}: {text}",
                )
