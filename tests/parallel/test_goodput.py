"""The noise of gradients, and batch sizes that are chosen by it."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import vertexflow as vf
from vertexflow.parallel import GradientNoise, best_batch, efficiency, gain
from vertexflow.parallel.pipeline import Elsewhere

SIZE = 50


class Quadratic(nn.Module):
    """The loss of a sample x is |w - x|^2 / 2, whose gradient is w - x: of known mean and noise."""

    def __init__(self, distance):
        super().__init__()
        self.w = nn.Parameter(torch.full((SIZE,), distance / math.sqrt(SIZE), dtype=torch.float64))

    def forward(self, x):
        return (self.w - x).square().sum(1) / 2


@pytest.mark.parametrize("parts", [(8, 8), (1, 3, 12), (4, 4, 4, 4)])
@pytest.mark.parametrize("distance", [1.0, 0.5])
@pytest.mark.cases(2)
def test_the_noise_of_a_quadratic_is_what_it_was_made_of(parts, distance):
    torch.manual_seed(0)
    model, deviation, steps = Quadratic(distance), 0.5, 600
    noise = GradientNoise(model, decay=1 - 1 / steps)
    for _ in range(steps):
        model.zero_grad()
        for size in parts:
            x = deviation * torch.randn(size, SIZE, dtype=torch.float64)
            (model(x).sum() / sum(parts)).backward()
            noise.add(size)
        noise.update(sum(parts))
    wanted = SIZE * deviation**2 / distance**2
    assert noise.scale == pytest.approx(wanted, rel=0.15)  # three standard deviations


def test_without_noise_the_scale_is_zero_and_without_gradient_infinite():
    model = Quadratic(1.0)
    noise = GradientNoise(model)
    assert noise.scale == 0
    for _ in range(2):
        model(torch.zeros(4, SIZE)).mean().backward()
        noise.add(4)
    noise.update(8)
    assert noise.scale == pytest.approx(0, abs=1e-12)
    model.zero_grad()
    noise = GradientNoise(model)
    for sign in (1, -1):
        (sign * model(torch.zeros(4, SIZE)).mean()).backward()
        noise.add(4)
    noise.update(8)
    assert noise.scale == math.inf


def test_efficiency_and_gain():
    assert efficiency(100, 32, 32) == gain(100, 32, 32) == 1
    assert efficiency(0, 64, 32) == 0.5
    assert gain(0, 64, 32) == 1
    assert gain(math.inf, 64, 32) == 2
    for noise in (3.0, 100.0):
        # AdaScale's definition, of the trace S and the squared gradient: (S / base + |G|^2) / (S / batch + |G|^2).
        assert gain(noise, 128, 32) == pytest.approx((noise / 32 + 1) / (noise / 128 + 1))
    assert [gain(noise, 128, 32) for noise in (1, 10, 100)] == sorted(gain(noise, 128, 32) for noise in (1, 10, 100))


def test_the_best_batch_grows_with_the_noise():
    rates = {32: 1000.0, 64: 1600.0, 128: 2200.0, 256: 2400.0}
    best = [best_batch(rates, noise, 32) for noise in (0, 50, 200, 1e4)]
    assert best == [32, 64, 128, 256]
    for noise, batch in zip((0, 50, 200, 1e4), best, strict=True):
        assert all(
            rates[batch] * (noise + 32) / (noise + batch) >= rates[other] * (noise + 32) / (noise + other)
            for other in rates
        )


def test_averages_are_kept():
    one, other = GradientNoise(Quadratic(1.0)), GradientNoise(Quadratic(1.0))
    other.load_state_dict({"trace": 3.0, "square": 2.0, "updates": 5})
    assert other.scale == 1.5
    one.load_state_dict(other.state_dict())
    assert (one.scale, one.updates) == (1.5, 5)


def test_what_is_refused():
    model = Quadratic(1.0)
    noise = GradientNoise(model)
    model(torch.zeros(4, SIZE)).mean().backward()
    noise.add(4)
    with pytest.raises(vf.InputError, match="the step had 1 parts"):
        noise.update(4)
    for wrong, message in [
        (lambda: GradientNoise(model, decay=1.0), "decay is 1.0"),
        (lambda: GradientNoise(nn.ReLU()), "no parameters"),
        (lambda: noise.add(-1), "a part has -1 rows"),
        (lambda: efficiency(-1, 4, 4), "noise scale is -1"),
        (lambda: efficiency(1, 0, 4), "batch is 0"),
        (lambda: gain(1, 4, math.inf), "base is inf"),
        (lambda: best_batch({}, 1, 4), "rates are {}"),
        (lambda: noise.load_state_dict({"trace": 1}), "no state of a GradientNoise"),
    ]:
        with pytest.raises(vf.VertexFlowError, match=message):
            wrong()


def test_parts_without_rows_say_nothing():
    model = Quadratic(1.0)
    noise = GradientNoise(model)
    model(torch.zeros(4, SIZE)).mean().backward()
    noise.add(4)
    (model(torch.zeros(0, SIZE)).sum() / 4).backward()
    noise.add(0)
    noise.update(4)
    assert noise.updates == 0


def steps_of(noise, model, losses, before=lambda model: None):
    """One step, of a backward pass for each part's loss."""
    model.zero_grad()
    for loss in losses:
        before(model)
        loss(model).backward()
        noise.add(4)
    noise.update(4 * len(losses))
    return noise.scale


def parts(count=2):
    torch.manual_seed(1)
    return [functools.partial(of_part, torch.randn(4, SIZE, dtype=torch.float64), 4 * count) for _ in range(count)]


def of_part(x, rows, model):
    return model(x).sum() / rows


def test_gradients_that_are_taken_beside_the_backward_pass_do_not_count():
    model = Quadratic(1.0)
    wanted = steps_of(GradientNoise(model), model, parts())

    def penalise(model):
        torch.autograd.grad(model(torch.ones(3, SIZE)).mean(), model.w)

    assert steps_of(GradientNoise(model), model, parts(), penalise) == pytest.approx(wanted)


def test_steps_of_which_it_is_not_told_do_not_count():
    model = Quadratic(1.0)
    noise = GradientNoise(model)
    wanted = steps_of(GradientNoise(model), model, parts())
    for _ in range(2):
        model.zero_grad()
        for part in parts():
            part(model).backward()
    assert steps_of(noise, model, parts()) == pytest.approx(wanted)


def test_a_step_that_is_not_finite_is_left_out():
    model = Quadratic(1.0)
    noise = GradientNoise(model)
    wanted = steps_of(noise, model, parts())
    for number in (math.inf, math.nan):
        steps_of(noise, model, [functools.partial(of_part, torch.full((4, SIZE), number), 4), *parts()])
    assert (noise.scale, noise.updates) == (pytest.approx(wanted), 1)


def test_parts_in_pieces_are_refused():
    """Of the square of a sum, the squares of its terms do not tell."""
    model = Quadratic(1.0)
    noise = GradientNoise(model)

    def twice(model):
        model(torch.zeros(4, SIZE)).sum().backward()
        return model(torch.ones(4, SIZE)).sum()

    with pytest.raises(vf.InputError, match="after each backward pass"):
        steps_of(noise, model, [twice, twice])
    x = torch.zeros(4, SIZE, dtype=torch.float64, requires_grad=True)
    rows = [lambda model: sum(checkpoint(model, row, use_reentrant=True).sum() for row in x.split(2))]
    with pytest.raises(vf.InputError, match="use_reentrant=False"):
        steps_of(noise, model, rows)
    wanted = steps_of(GradientNoise(model), model, parts())
    assert steps_of(noise, model, parts()) == pytest.approx(wanted)


def test_gradients_of_an_earlier_step_are_noticed():
    model = Quadratic(1.0)
    noise = GradientNoise(model)
    steps_of(noise, model, parts())
    for part in parts():
        part(model).backward()
        noise.add(4)
    with pytest.raises(vf.InputError, match="begin each step with zero_grad"):
        noise.update(8)


def test_a_step_of_which_a_part_is_refused_leaves_nothing_behind():
    model = Quadratic(1.0)
    noise = GradientNoise(model)
    wanted = steps_of(GradientNoise(model), model, parts())
    first, second = parts()
    model.zero_grad()
    first(model).backward()
    noise.add(4)
    for _ in range(2):
        second(model).backward()
    with pytest.raises(vf.InputError, match="after each backward pass"):
        noise.add(4)
    assert steps_of(noise, model, parts()) == pytest.approx(wanted)


def test_a_part_whose_rows_are_refused_is_added_when_they_are_right():
    model = Quadratic(1.0)
    wanted = steps_of(GradientNoise(model), model, parts())
    noise = GradientNoise(model)
    model.zero_grad()
    for part in parts():
        part(model).backward()
        with pytest.raises(vf.InputError, match="a part has -1 rows"):
            noise.add(-1)
        noise.add(4)
    noise.update(8)
    assert noise.scale == pytest.approx(wanted)


def test_parameters_that_are_trained_later_are_refused():
    """Their gradients were not seen; noise would be that of the others alone."""
    model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Linear(SIZE, 1)).double()
    model[0].requires_grad_(False)
    noise = GradientNoise(model)

    def loss(x, model):
        return model(x).sum() / 8

    torch.manual_seed(0)
    given = [functools.partial(loss, torch.randn(4, SIZE, dtype=torch.float64)) for _ in range(2)]
    steps_of(noise, model, given)
    model.requires_grad_(True)
    with pytest.raises(vf.InputError, match=r"'0\.weight' has a gradient, and was no parameter that is trained when"):
        steps_of(noise, model, given)
    again = GradientNoise(model)
    again.load_state_dict(noise.state_dict())
    steps_of(again, model, given)
    model.requires_grad_(False)[0].requires_grad_(True)
    model.zero_grad()
    steps_of(again, model, given)
    assert again.updates == 3


def test_a_model_in_stages_is_refused():
    model = nn.Sequential(Quadratic(1.0), nn.Linear(1, 1))
    noise = GradientNoise(model)
    model[1] = Elsewhere("1", 1)
    with pytest.raises(vf.InputError, match="part '1' is in a stage on another rank: noise is measured where each"):
        GradientNoise(model)
    model[0](torch.zeros(4, SIZE)).mean().backward()
    noise.add(4)
    with pytest.raises(vf.InputError, match="part '1' is in a stage on another rank"):
        noise.update(4)
