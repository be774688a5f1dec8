"""Without gradients, a state goes when its last reader has run."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.kernels import native
from vertexflow.kernels.prepared import windows, written

from ...models import FromCode
from .test_rooms import Turns
from .test_windows import dags

SIZE = 8

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")


@pytest.fixture
def rows(monkeypatch):
    """How many rows the states have in each pass that lets them go."""
    counts, find = [], written.find_state_rows

    def noted(*arguments, **named):
        result = find(*arguments, **named)
        if result is not None:
            counts.append(result.shared.stop)
        return result

    monkeypatch.setattr(written, "find_state_rows", noted)
    monkeypatch.setattr(windows, "rows_of_a_window", lambda rows, width: 3)
    return counts


def by_slot(self, v):
    h = torch.tanh(self.u(v.gather(0).h) + v.pull("x"))
    v.scatter(h=h)
    v.push(h=h)


def by_edge(self, v):
    kids = v.children
    h = torch.tanh(v.pull("x") + self.u(v.sum(torch.sigmoid(kids.h) * kids.c)) + v.gather(0).c)
    v.scatter(h=h, c=torch.sin(h))
    v.push(h=h)


def agrees(model, batch, x):
    """Outputs without gradients are those of the backend `torch`."""
    outputs = []
    with torch.no_grad():
        for model.backend in ("torch", "native"):
            outputs.append(model(batch, x=x).h)
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


def test_a_sequence_needs_the_states_of_two_windows(rows):
    torch.manual_seed(0)
    model, batch = FromCode(by_slot, {"h": SIZE}, u=nn.Linear(SIZE, SIZE)).double(), vf.pack([vf.chain(60)])
    agrees(model, batch, torch.randn(60, SIZE, dtype=torch.float64))
    assert rows[-1] == 3 + 3


def test_children_that_are_no_longer_consecutive_are_gathered(rows):
    """Of sequences of one length, a step reads consecutive rows, which lie in several blocks here."""
    torch.manual_seed(0)
    model, batch = FromCode(by_slot, {"h": SIZE}, u=nn.Linear(SIZE, SIZE)).double(), vf.pack([vf.chain(7)] * 4)
    agrees(model, batch, torch.randn(28, SIZE, dtype=torch.float64))
    assert rows[-1] < 20


def test_what_a_sequence_takes_without_gradients(rows):
    model, batch = FromCode(by_edge, {"h": SIZE, "c": SIZE}, u=nn.Linear(SIZE, SIZE)).double(), vf.pack([vf.chain(60)])
    model.backend = "native"
    x = torch.empty(60, SIZE, dtype=torch.float64, device="meta")
    kept, passing = (model.estimate_memory(batch, x=x, training=training) for training in (True, False))
    state = 60 * SIZE * 8
    assert kept.kept > 2 * state
    assert passing.kept + passing.forward < kept.kept + kept.forward - 2 * state


def test_with_gradients_all_states_are_there(rows):
    vf.nn.LSTM(SIZE, SIZE)(vf.pack([vf.chain(60)]), x=torch.randn(60, SIZE)).h.sum().backward()
    assert not rows


def test_children_that_many_read_wait_for_all(rows):
    torch.manual_seed(0)
    model, batch = FromCode(by_edge, {"h": SIZE, "c": SIZE}, u=nn.Linear(SIZE, SIZE)).double(), vf.pack(dags(8))
    agrees(model, batch, torch.randn(batch.num_vertices, SIZE, dtype=torch.float64))
    assert rows[-1] < batch.num_vertices


@pytest.mark.slow
def test_kinds_by_turns(rows):
    torch.manual_seed(0)
    model, random_kinds = Turns().double(), random.Random(0)
    for length in (5, 14, 30):
        kinds = random_kinds.choices("aab", k=length)
        graph = vf.graph(length, [(child, child + 1) for child in range(length - 1)], kind=kinds)
        agrees(model, vf.pack([graph]), torch.randn(length, 4, dtype=torch.float64))
    assert rows[-1] < 30
