"""LSTM and GRU equal PyTorch's on packed sequences: outputs, final states, all gradients, and state_dicts both ways."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

import vertexflow as vf
from vertexflow.kernels import native
from vertexflow.kernels.prepared.calls import Writer
from vertexflow.nn import GRU, LSTM

from ..call.test_selection import noting

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
PEERS = [(LSTM, nn.LSTM), (GRU, nn.GRU)]
BATCHES = [[5, 1, 7, 2], [1], [3, 3]]


@cache
def cell(ours, bias):
    """One for all models, so that each width of inputs is traced once."""
    return ours(3, 4, bias=bias).cell


def model_of(ours, bias=True, **options):
    model = ours(3, 4, bias=bias, **options, dtype=torch.float64)
    object.__setattr__(model, "cell", cell(ours, bias))
    return model


def chains(lengths):
    return vf.pack([vf.chain(length) for length in lengths])


def run_peer(peer, x, lengths):
    """What `torch.nn.LSTM` or `torch.nn.GRU` returns for the same rows, under the same names."""
    packed, final = peer(pack_sequence(x.split(lengths), enforce_sorted=False))
    padded, _ = pad_packed_sequence(packed, batch_first=True)
    h = torch.cat([rows[:length] for rows, length in zip(padded, lengths, strict=True)])
    return {"h": h, "h_n": final[0], "c_n": final[1]} if isinstance(final, tuple) else {"h": h, "h_n": final}


def agree(model, peer, lengths):
    """Compare outputs, and gradients of a random weighting of all of them."""
    x = torch.randn(sum(lengths), model.input_size, dtype=torch.float64, requires_grad=True)
    ours, expected = dict(model(chains(lengths), x)), run_peer(peer, x, lengths)
    assert ours.keys() == expected.keys()
    weights = {name: torch.randn_like(value) for name, value in expected.items()}
    gradients = []
    for outputs, module in ((ours, model), (expected, peer)):
        loss = sum((outputs[name] * weight).sum() for name, weight in weights.items())
        gradients.append(torch.autograd.grad(loss, [x, *module.parameters()]))
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, **TOLERANCE)
    for actual, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, wanted, **TOLERANCE)


@pytest.mark.parametrize(("ours", "theirs"), PEERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.cases(1)
def test_the_same_as_in_pytorch(ours, theirs, bias):
    for num_layers, bidirectional in itertools.product([1, 2, 3] if bias else [2], [False, True] if bias else [False]):
        options = {"num_layers": num_layers, "bidirectional": bidirectional, "bias": bias}
        model, peer = model_of(ours, **options), theirs(3, 4, **options, dtype=torch.float64)
        peer.load_state_dict(model.state_dict())
        for lengths in BATCHES:
            agree(model, peer, lengths)


@pytest.mark.parametrize(("ours", "theirs"), PEERS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=["plain", "stacked"])
@pytest.mark.cases(1)
def test_state_dicts_go_both_ways(ours, theirs, options):
    cell(ours, True)  # which draws numbers the first time
    torch.manual_seed(1)
    model = model_of(ours, **options)
    torch.manual_seed(1)
    peer = theirs(3, 4, **options, dtype=torch.float64)
    assert list(model.state_dict()) == list(peer.state_dict())
    for name, parameter in peer.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))  # the same initial values, too
    for assign in (False, True):  # assign: other Parameter objects
        with torch.no_grad():
            for parameter in peer.parameters():
                parameter.normal_()
        model.load_state_dict(copy.deepcopy(peer.state_dict()), assign=assign)
        agree(model, peer, [2, 3])


@pytest.mark.parametrize(("ours", "theirs"), PEERS)
@pytest.mark.cases(1)
def test_an_optimiser_changes_both_alike(ours, theirs):
    model, peer = ours(4, 4, 2, dtype=torch.float64), theirs(4, 4, 2, dtype=torch.float64)
    peer.load_state_dict(model.state_dict())
    x = torch.randn(11, 4, dtype=torch.float64)
    losses = []
    for module, run in ((model, lambda: model(chains([4, 7]), x=x).h), (peer, lambda: run_peer(peer, x, [4, 7])["h"])):
        stepper = torch.optim.Adam(module.parameters(), lr=0.05)
        for _ in range(10):
            stepper.zero_grad()
            loss = (run() - 0.5).square().mean()
            loss.backward()
            stepper.step()
            losses.append(float(loss.detach()))
    assert losses[:10] == pytest.approx(losses[10:], rel=1e-8)
    assert losses[9] < 0.7 * losses[0]


@pytest.mark.slow
def test_dropout_is_between_layers_only():
    lengths = [6, 3]
    x = torch.randn(9, 4)
    one, two = LSTM(4, 4, 2, dropout=0.5), LSTM(4, 4, 2)
    two.load_state_dict(one.state_dict())
    assert not torch.equal(one(chains(lengths), x).h, one(chains(lengths), x).h)
    first = [one(chains(lengths), x).h_n[0] for _ in range(2)]
    assert torch.equal(*first)
    assert torch.equal(one.eval()(chains(lengths), x).h, two(chains(lengths), x).h)
    with torch.no_grad():
        gone = LSTM(4, 4, 2, dropout=1.0)
        assert torch.equal(gone(chains(lengths), x).h, gone(chains(lengths), x.flip(-1)).h)


@pytest.mark.slow
def test_copies_and_checkpoints_compute_the_same():
    model, x = LSTM(3, 4), torch.randn(5, 3)
    expected = model(chains([2, 3]), x).h
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    clones = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    for clone in clones:
        assert torch.equal(clone(chains([2, 3]), x).h, expected)
        clone(chains([2, 3]), x).h.sum().backward()
        with torch.no_grad():
            clone.weight_hh_l0.mul_(2)
        assert not torch.equal(clone(chains([2, 3]), x).h, expected)
        assert model.weight_hh_l0.grad is None
    assert torch.equal(model([vf.chain(2), vf.chain(3)], x).h, expected)


@pytest.mark.slow
def test_weights_given_for_one_call():
    model, x = GRU(3, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    names = dict(model.named_parameters())

    def run(*weights):
        return torch.func.functional_call(model, dict(zip(names, weights, strict=True)), (chains([3, 2]), x)).h

    weights = [parameter.detach().clone().requires_grad_() for parameter in names.values()]
    assert torch.autograd.gradcheck(run, weights)


def test_chains_whose_vertices_are_numbered_otherwise():
    model, x = GRU(3, 4, bidirectional=True), torch.randn(4, 3)
    order = [2, 0, 3, 1]  # of the steps
    shuffled = vf.graph(4, list(itertools.pairwise(order)))
    out, straight = model([shuffled], x), model([vf.chain(4)], x[order])
    torch.testing.assert_close(out.h[order], straight.h)
    torch.testing.assert_close(out.h_n, straight.h_n)


@pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")
def test_cell_states_are_kept_of_last_steps_alone(monkeypatch):
    copied = []
    monkeypatch.setattr(Writer, "copy", noting(Writer.copy, copied))
    batch = vf.pack([vf.chain(50)] * 2)
    with torch.no_grad():
        out = vf.nn.LSTM(3, 4, backend="native")(batch, torch.randn(100, 3))
    assert out.c_n.shape == (1, 2, 4)
    assert sorted(copied) == [2, 100, 100]  # of `c`, `x` and `h`


def test_what_is_no_chain_is_refused():
    model = GRU(3, 4)
    for graph in (vf.tree((0, 1)), vf.graph(3, [(0, 1), (0, 2)]), vf.graph(2, [])):
        with pytest.raises(vf.VertexFlowError, match="chain"):
            model([vf.chain(2), graph], torch.randn(2 + graph.num_vertices, 3))
    with pytest.raises(vf.VertexFlowError, match="rows"):
        model([vf.chain(2)], torch.randn(3, 3))


@pytest.mark.parametrize(("ours", "theirs"), PEERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_initial_states_are_those_of_pytorch(ours, theirs, bidirectional):
    options = {"num_layers": 2, "bidirectional": bidirectional}
    model, peer = model_of(ours, **options), theirs(3, 4, **options, dtype=torch.float64)
    peer.load_state_dict(model.state_dict())
    lengths = [5, 1, 3]
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    count = 2 if theirs is nn.LSTM else 1
    hx = [torch.randn(4 if bidirectional else 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(count)]
    given = tuple(hx) if count == 2 else hx[0]
    out = model(chains(lengths), x, given)
    packed, final = peer(pack_sequence(x.split(lengths), enforce_sorted=False), given)
    padded, _ = pad_packed_sequence(packed, batch_first=True)
    h = torch.cat([rows[:length] for rows, length in zip(padded, lengths, strict=True)])
    torch.testing.assert_close(out.h, h, **TOLERANCE)
    actual, wanted = ([out.h_n, out.c_n], final) if count == 2 else ([out.h_n], [final])
    for mine, other in zip(actual, wanted, strict=True):
        torch.testing.assert_close(mine, other, **TOLERANCE)
    leaves = [x, *hx]
    weights = [torch.randn_like(value) for value in (h, *wanted)]
    losses = [
        sum((v * w).sum() for v, w in zip(values, weights, strict=True)) for values in ((out.h, *actual), (h, *wanted))
    ]
    parameters = [[*leaves, *module.parameters()] for module in (model, peer)]
    grads = [torch.autograd.grad(loss, to) for loss, to in zip(losses, parameters, strict=True)]
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, **TOLERANCE)


def test_initial_states_of_another_shape():
    with pytest.raises(vf.InputError, match=r"h_0 has the shape \[1, 2, 4\]; give .* \[1, 1, 4\]"):
        LSTM(3, 4)([vf.chain(2)], torch.randn(2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)))
    with pytest.raises(vf.InputError, match="hx must be a tuple h_0, c_0"):
        LSTM(3, 4)([vf.chain(2)], torch.randn(2, 3), torch.zeros(1, 1, 4))
    with pytest.raises(vf.InputError, match="hx must be the tensor h_0"):
        GRU(3, 4)([vf.chain(2)], torch.randn(2, 3), (torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)))
