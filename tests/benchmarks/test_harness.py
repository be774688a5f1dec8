"""Agreement, turns, statistics and memory, with contestants of a few lines."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from benchmarks import floor as floors
from benchmarks.floor import Product, bound_ms, floor
from benchmarks.harness import (
    FLOOR,
    OURS,
    RATE,
    Case,
    Contestant,
    DisagreementError,
    agree,
    measure,
    summary,
    time_in_turns,
    training_step,
)

MEBIBYTE = 2**20


@pytest.fixture
def case() -> Case:
    """A linear layer, twice: with autograd, and with the derivative by hand."""
    model = nn.Linear(3, 2).double()
    x = torch.randn(4, 3, dtype=torch.float64)

    @torch.no_grad()
    def train():
        out = model(x)
        given = out * (2 / out.numel())
        model.weight.grad, model.bias.grad = given.t() @ x, given.sum(0)
        return out

    contestants = [Contestant(OURS, lambda: model(x)), Contestant("by hand", lambda: model(x), train, every=2)]
    return Case("four rows", model, contestants, [Product(4, 3, 2, sends=0)], kept=8, skipped={"another": "absent"})


def test_agreement_leaves_the_model_as_it_was(case):
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    differences = agree(case)
    assert differences[OURS] == 0
    assert differences["by hand"] < 1e-15
    torch.testing.assert_close(case.model.state_dict(), before, rtol=0, atol=0)


def wrong_loss(model, x):
    return model(x) * 1.001


def no_gradient(model, x):
    return linear(x, model.weight.detach(), model.bias)


def not_a_number(model, x):
    return model(x) * float("nan")


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        (wrong_loss, "'peer' and 'vertexflow' differ in the loss by 2.0e-03"),
        (no_gradient, "'peer' and 'vertexflow' differ in the gradient of weight by 1.0e[+]00"),
        (not_a_number, "differ in the loss by nan"),
    ],
)
def test_disagreement_is_named(peer, message):
    model = nn.Linear(3, 2).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    contestants = [Contestant(OURS, lambda: model(x)), Contestant("peer", lambda: peer(model, x))]
    with pytest.raises(DisagreementError, match=message):
        agree(Case("", model, contestants, [], kept=0))


def test_only_the_gradient_by_hand_is_wrong(case):
    ours, by_hand = case.contestants

    def train():
        out = by_hand.train()
        case.model.bias.grad *= 2
        return out

    wrong = Contestant("by hand", by_hand.forward, train)
    with pytest.raises(DisagreementError, match="the gradient of bias"):
        agree(Case("", case.model, [ours, wrong], [], kept=0))


def test_a_step_updates(case):
    before = case.model.weight.detach().clone()
    training_step(case.model, case.contestants[0])()
    torch.testing.assert_close(case.model.weight, before - RATE * case.model.weight.grad)


def test_turns():
    calls: list[str] = []
    runs = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    seconds = time_in_turns(runs, rounds=5, every={"c": 2})
    assert {name: len(values) for name, values in seconds.items()} == {"a": 5, "b": 5, "c": 3}
    assert calls[:7] == ["a"] * 3 + ["b"] * 3 + ["c"]  # warm-up
    rounds = calls[7:]
    assert all(rounds.count(name) == len(values) for name, values in seconds.items())
    assert all(first != second or "c" not in (first, second) for first, second in pairwise(rounds))


def test_another_clock():
    """Time of the processor does not pass while a process sleeps."""
    naps = time_in_turns({"a": lambda: time.sleep(0.05)}, 2, {}, clock=time.process_time)
    assert max(naps["a"]) < 0.04


def test_summary():
    assert summary([0.001, 0.002, 0.003, 0.004, 0.010]) == pytest.approx(
        {"median_ms": 3, "quartile_1_ms": 2, "quartile_3_ms": 4}
    )
    assert summary([0.5])["quartile_3_ms"] == 500


@pytest.mark.parametrize("forward", [False, True])
def test_measure(case, forward):
    measured = measure(case, rounds=4, forward=forward)
    figures = measured["figures"]
    assert list(figures) == [FLOOR, OURS, "by hand"]
    assert [len(figure["rounds_ms"]) for figure in figures.values()] == [4, 4, 2]
    assert figures[FLOOR]["x_floor"] == figures[OURS]["x_vertexflow"] == 1
    assert figures[OURS]["x_floor"] == figures[OURS]["median_ms"] / figures[FLOOR]["median_ms"]
    assert figures[FLOOR]["peak_bytes"] is None
    assert measured["kept_bytes"] == (0 if forward else 8 * (8 + 8))  # kept, and the gradients of weight and bias
    assert measured["floor_operations"] == 2 * 4 * 3 * 2 * (1 if forward else 2)
    assert measured["skipped"] == {"another": "absent"}


def test_memory_that_cannot_be_seen_is_not_told(case):
    ours, by_hand = case.contestants
    hidden = replace(case, contestants=[ours, replace(by_hand, weighs=False)])
    figures = measure(hidden, rounds=1, forward=False)["figures"]
    assert figures["by hand"]["peak_bytes"] is None
    assert (figures[OURS]["peak_bytes"] is None) == (sys.platform != "linux")


def test_slow_contestants_stay_out_of_half_precision(case):
    case.model.bfloat16()
    contestants = [
        Contestant(name, lambda: case.model.weight * 1.0, every=every) for name, every in ((OURS, 1), ("slow", 5))
    ]
    measured = measure(replace(case, contestants=contestants), rounds=1, forward=True)
    assert list(measured["figures"]) == [FLOOR, OURS]
    assert measured["skipped"]["slow"] == "in half precision its gradients are too far off"


def test_a_bound_is_the_larger_of_both():
    limits = {"operations_per_second": 1e12, "bytes_per_second": 1e9}
    assert bound_ms(limits, operations=3 * 10**9, kept=0) == pytest.approx(3)
    assert bound_ms(limits, operations=3 * 10**9, kept=2 * 10**6) == pytest.approx(4)


def test_operations_of_a_product():
    assert Product(rows=5, inputs=3, outputs=2, sends=4).operations == 2 * 3 * 2 * (5 + 5 + 4)


def test_floor_multiplies(monkeypatch):
    shapes = []
    monkeypatch.setattr(floors, "fastest", lambda a, b: lambda: shapes.append((*a.shape, b.shape[1])))
    products = [Product(rows=5, inputs=3, outputs=2, sends=4)]
    floor(products, torch.float32, forward=False)()
    assert shapes == [(5, 3, 2), (4, 2, 3), (2, 5, 3)]
    shapes.clear()
    floor(products, torch.float32, forward=True)()
    assert shapes == [(5, 3, 2)]


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("chosen", ["mm", "_linear_pointwise"])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_floor_takes_the_faster_library(monkeypatch, chosen, transposed):
    a, b = torch.randn(48, 32), torch.randn(32, 64)
    if transposed:
        a, b = a.t().contiguous().t(), b.t().contiguous().t()
    seen = []

    def time_of(call):
        seen.append(call.func.__name__)
        return 1.0 if seen[-1] == chosen else 2.0

    monkeypatch.setattr(floors, "_lowest_time", time_of)
    assert torch.allclose(floors.fastest(a, b)(), a @ b, atol=1e-4)
    assert sorted(seen) == ["_linear_pointwise", "mm"]


TWO_AT_A_TIME = """
import torch
from benchmarks.device import peak

def run():
    first = torch.ones(2**21)
    second = first + 1
    del first
    return second + 1

print(peak(run, make_room=lambda: None))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc, which is Linux's")
@pytest.mark.slow
def test_peak_of_memory():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", TWO_AT_A_TIME]
    output = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    if output == "None\n":
        pytest.skip("the C library or the kernel does not let a process find its peak")
    assert 15 * MEBIBYTE < int(output) < 18 * MEBIBYTE
