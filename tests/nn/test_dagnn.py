"""DAGNN equals its paper's equations, one vertex at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf
from tests.agreement import TOLERANCE
from tests.nn.recursion import recurse, tree
from tests.ragged import ragged_structures
from tests.strategies import Structure
from vertexflow.nn.dagnn import DAGNN

DIAMOND = Structure(4, [(0, 1, 0), (0, 2, 0), (1, 3, 0), (2, 3, 1)])
MODELS = {
    (num_layers, bidirectional): DAGNN(3, 4, num_layers, bidirectional, output_size=2).double()
    for num_layers in (1, 3)
    for bidirectional in (False, True)
}
W_1 = {
    3: torch.randn(3, dtype=torch.float64),
    4: torch.randn(4, dtype=torch.float64),
}  # by the size of h of the layer below


def attend(layer):
    """The equations of one layer, for a vertex."""

    def compose(inputs, children):
        x, message = inputs["x"], torch.zeros(4, dtype=torch.float64)
        if children:
            h = torch.stack([child["h"] for child in children.values()])
            scores = [W_1[len(x)] @ x + layer.attention.weight[0] @ row for row in h]
            message = torch.softmax(torch.stack(scores), 0) @ h
        return {"h": layer.gru(x[None], message[None])[0]}

    return compose


def turned(part):
    """The same structure with its edges turned round."""
    slots = dict.fromkeys(range(part.num_vertices), -1)
    edges = []
    for child, parent, _ in part.edges:
        slots[child] += 1
        edges.append((parent, child, slots[child]))
    return Structure(part.num_vertices, edges)


def by_the_paper(model, parts, x):
    last, pooled = [], []
    for direction in range(2 if model.bidirectional else 1):
        structures = [turned(part) for part in parts] if direction else parts
        states = [x]
        for layer in model.layers[direction * model.num_layers :][: model.num_layers]:
            states.append(recurse(structures, {"x": states[-1]}, attend(layer))["h"])
        last.append(states[-1])
        of_parts = torch.cat(states, -1).split([part.num_vertices for part in parts])
        ends = [sorted(set(range(s.num_vertices)) - {child for child, _, _ in s.edges}) for s in structures]
        pooled.append(torch.stack([rows[at].max(0).values for rows, at in zip(of_parts, ends, strict=True)]))
    return {"h": torch.cat(last, -1), "readout": model.linear(torch.cat(pooled, -1))}


def check(model, parts):
    x = torch.randn(sum(part.num_vertices for part in parts), 3, dtype=torch.float64, requires_grad=True)
    ours, expected = dict(model([part.graph() for part in parts], x)), by_the_paper(model, parts, x)
    assert ours.keys() == expected.keys()
    weights = {name: torch.randn_like(value) for name, value in expected.items()}

    def gradients(outputs):
        loss = sum((outputs[name] * weight).sum() for name, weight in weights.items())
        leaves = [x, *model.parameters()]
        return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)

    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
    names = ["x", *dict(model.named_parameters())]
    for name, actual, wanted in zip(names, gradients(ours), gradients(expected), strict=True):
        torch.testing.assert_close(actual, wanted, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.data(), st.sampled_from(sorted(MODELS)))
def test_the_same_as_the_paper(data, options):
    parts = data.draw(st.lists(ragged_structures(max_parents=4, max_children=5), min_size=1, max_size=3))
    check(MODELS[options], parts)


@pytest.mark.parametrize("options", sorted(MODELS))
def test_wide_deep_and_single(options):
    check(MODELS[options], [tree([[] for _ in range(30)]), DIAMOND, tree([]), tree([[[[[]]]]])])


@pytest.mark.slow
def test_without_a_readout():
    model = DAGNN(3, 4, bidirectional=True)
    batch = vf.pack([DIAMOND.graph(), vf.chain(3)])
    out = model(batch, torch.randn(7, 3))
    assert out.keys() == {"h"}
    assert out.h.shape == (7, 8)
    out.h.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("output_size", [None, 2])
@pytest.mark.slow
def test_outputs_of_some_vertices(output_size):
    model = DAGNN(3, 4, bidirectional=True, output_size=output_size)
    batch, x = vf.pack([DIAMOND.graph(), vf.chain(3)]), torch.randn(7, 3)
    out, some = model(batch, x), model(batch, x, outputs=torch.tensor([5, 0, 5]))
    assert torch.equal(some.h, out.h[[5, 0, 5]])
    assert output_size is None or torch.equal(some.readout, out.readout)
    with pytest.raises(vf.InputError, match=r"outputs\[0\] is 7"):
        model(batch, x, outputs=torch.tensor([7]))


@pytest.mark.slow
def test_over_chains_it_is_a_gru():
    """Attention over one child is that child."""
    model, gru = DAGNN(3, 4, num_layers=1).double(), vf.nn.GRU(3, 4).double()
    gru.load_state_dict({f"{name}_l0": value for name, value in model.layers[0].gru.state_dict().items()})
    batch, x = vf.pack([vf.chain(5), vf.chain(2)]), torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(model(batch, x).h, gru(batch, x).h, **TOLERANCE)


def test_layers_of_one_size_are_traced_once():
    model = DAGNN(4, 4, num_layers=3, bidirectional=True)
    model([DIAMOND.graph()], torch.randn(4, 4))
    assert len(model.layers[0]._programs.seen.version.traces) == 1


def test_a_state_dict_comes_back(monkeypatch):
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "eager")  # it is the same on all, and nothing is traced
    model, other = DAGNN(3, 4, output_size=2), DAGNN(3, 4, output_size=2)
    other.load_state_dict(model.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(model([DIAMOND.graph()], x).readout, other([DIAMOND.graph()], x).readout)


@pytest.mark.slow
def test_it_learns_the_longest_path():
    """How long the longest path to the last vertex is, among shorter ones; to know the mean alone leaves the variance."""
    torch.manual_seed(0)
    lengths = [2, 3, 4, 5, 6]
    graphs = [vf.graph(8, [(t, t + 1) for t in range(n - 1)] + [(t, 7) for t in range(n - 1, 7)]) for n in lengths]
    model = DAGNN(1, 8, output_size=1)
    stepper = torch.optim.Adam(model.parameters(), lr=0.02)
    wanted = torch.tensor(lengths, dtype=torch.float32)
    for _ in range(150):
        stepper.zero_grad()
        loss = nn.functional.mse_loss(model(graphs, torch.ones(40, 1)).readout[:, 0], wanted)
        loss.backward()
        stepper.step()
    assert float(loss.detach()) < 0.05 * float(wanted.var())


@pytest.mark.parametrize("num_layers", [0, -1, 1.5])
def test_a_wrong_number_of_layers(num_layers):
    with pytest.raises(vf.InputError, match=f"num_layers is {num_layers}"):
        DAGNN(3, 4, num_layers)


def test_what_is_given_wrongly_is_refused():
    model = DAGNN(3, 4, output_size=2)
    with pytest.raises(vf.InputError, match="input 'x' has 3 rows, but the batch has 4 vertices"):
        model([DIAMOND.graph()], torch.randn(3, 3))
    with pytest.raises(vf.InputTypeError, match="input 'x' is a list"):
        model([DIAMOND.graph()], [[0.0] * 3] * 4)
