"""The noise of Adam's steps: of gradients, each element divided as Adam divides it."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.parallel import GradientNoise

SIZE = 40


class Quadratic(nn.Module):
    """The loss of a sample x is |w - x|^2 / 2, whose gradient is w - x."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        return (self.w - x).square().sum(1) / 2


def with_state(w, v, steps=1000, kind=torch.optim.AdamW, **options):
    """A quadratic, and its optimizer with a second moment that is given."""
    model = Quadratic(w)
    optimizer = kind(model.parameters(), **options)
    state = {"step": torch.tensor(float(steps)), "exp_avg": torch.zeros_like(w), "exp_avg_sq": v}
    if options.get("amsgrad"):  # divides by another moment, and keeps this one
        state = {**state, "exp_avg_sq": v.flip(0), "max_exp_avg_sq": v}
    optimizer.state[model.w] = state
    return model, optimizer


def draw(*sizes):
    return torch.randn(*sizes, dtype=torch.float64)


def step_of(noise, model, parts):
    """One step, whose parts are samples; returns the gradients of the parts, and that of all."""
    model.zero_grad()
    rows, gradients = sum(map(len, parts)), []
    for x in parts:
        (model(x).sum() / rows).backward()
        noise.add(len(x))
        gradients.append((model.w - x).mean(0).detach())
    noise.update(rows)
    return gradients, model.w.grad.clone()


def agree(noise, gradients, whole, sizes, weights):
    """With averages of one step: the trace and the square are those of gradients times weights."""
    count, rows = len(sizes), sum(sizes)
    mean = sum(size / rows * (g * weights).square().sum() for size, g in zip(sizes, gradients, strict=True)).item()
    square = (whole * weights).square().sum().item()
    state = noise.state_dict()
    assert state["trace"] == pytest.approx(rows * (mean - square) / (count - 1), rel=1e-12)
    assert state["square"] == pytest.approx((count * square - mean) / (count - 1), rel=1e-12)


@pytest.mark.parametrize("sizes", [(8, 8), (1, 3, 12)])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_noise_is_that_of_what_adam_makes_of_gradients(sizes, amsgrad):
    """Elements of small second moment have little noise, those of large second moment much."""
    torch.manual_seed(0)
    deviation = torch.linspace(0.1, 3, SIZE, dtype=torch.float64)
    distance = torch.full((SIZE,), 0.3, dtype=torch.float64)
    v = distance**2 + deviation**2 / 4
    model, optimizer = with_state(distance.clone(), v.clone(), amsgrad=amsgrad, eps=0.01)
    steps = 800
    noise, plain = (GradientNoise(model, optimizer=each, decay=1 - 1 / steps) for each in (optimizer, None))
    for _ in range(steps):
        model.zero_grad()
        for size in sizes:
            (model(deviation * draw(size, SIZE)).sum() / sum(sizes)).backward()
            noise.add(size)
            plain.add(size)
        noise.update(sum(sizes))
        plain.update(sum(sizes))
    divided = (v / (1 - 0.999**1000)).sqrt() + 0.01
    wanted = (deviation / divided).square().sum() / (distance / divided).square().sum()
    assert noise.scale == pytest.approx(wanted.item(), rel=0.15)  # three standard deviations
    assert plain.scale > 2 * noise.scale


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_second_moments_are_those_before_each_step(kind):
    """Steps of the optimizer itself: by the moments that it has, corrected for their beginning; none before the fifth."""
    torch.manual_seed(0)
    model, sizes = Quadratic(draw(SIZE)), (3, 5)
    optimizer = kind(model.parameters(), lr=0.01, betas=(0.8, 0.9), eps=1e-3)
    noise = GradientNoise(model, optimizer=optimizer, decay=0)
    v = torch.zeros(SIZE, dtype=torch.float64)
    for step in range(12):
        gradients, whole = step_of(noise, model, [draw(size, SIZE) for size in sizes])
        assert noise.updates == max(step - 4, 0)
        if step >= 5:
            agree(noise, gradients, whole, sizes, 1 / ((v / (1 - 0.9**step)).sqrt() + 1e-3))
        v = 0.9 * v + 0.1 * whole**2
        optimizer.step()


def test_elements_without_a_second_moment_do_not_count():
    torch.manual_seed(0)
    v = torch.linspace(0.1, 3, SIZE, dtype=torch.float64)
    v[::3] = 0
    model, optimizer = with_state(draw(SIZE), v, eps=0)
    noise = GradientNoise(model, optimizer=optimizer, decay=0)
    gradients, whole = step_of(noise, model, [draw(4, SIZE), draw(4, SIZE)])
    agree(noise, gradients, whole, (4, 4), torch.where(v > 0, ((1 - 0.999**1000) / v).sqrt(), 0))


def test_young_parameters_do_not_count_beside_old_ones():
    torch.manual_seed(0)
    model = nn.ParameterDict({"old": draw(SIZE), "young": draw(SIZE), "new": draw(SIZE)})
    optimizer = torch.optim.Adam([{"params": [model["old"]], "eps": 0.5}, {"params": [model["young"], model["new"]]}])
    v = torch.ones(SIZE, dtype=torch.float64)
    for name, steps in (("old", 5), ("young", 4)):
        optimizer.state[model[name]] = {"step": torch.tensor(float(steps)), "exp_avg": v, "exp_avg_sq": v.clone()}
    noise = GradientNoise(model, optimizer=optimizer, decay=0)
    xs = [draw(4, SIZE), draw(4, SIZE)]
    for x in xs:
        (sum((parameter * x).sum() for parameter in model.values()) / 8).backward()
        noise.add(4)
    noise.update(8)
    weights = 1 / ((1 / (1 - 0.999**5)) ** 0.5 + 0.5)
    agree(noise, [x.mean(0) for x in xs], torch.cat(xs).mean(0), (4, 4), weights)


@pytest.mark.parametrize("number", [math.inf, math.nan])
@pytest.mark.parametrize("v", [0.0, 1.0])
def test_a_step_that_is_not_finite_is_left_out_also_where_nothing_counts(number, v):
    torch.manual_seed(0)
    moments = torch.ones(SIZE, dtype=torch.float64)
    moments[0] = v
    model, optimizer = with_state(draw(SIZE), moments)
    noise = GradientNoise(model, optimizer=optimizer)
    step_of(noise, model, [draw(4, SIZE), draw(4, SIZE)])
    wanted = noise.state_dict()
    x = draw(4, SIZE)
    x[0, 0] = number
    step_of(noise, model, [x, draw(4, SIZE)])
    assert noise.state_dict() == wanted
    assert noise.updates == 1


def test_sgd_is_the_same_as_no_optimizer():
    torch.manual_seed(0)
    model = Quadratic(draw(SIZE))
    plain = GradientNoise(model)
    of_sgd = GradientNoise(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    step_of(plain, model, xs := [draw(4, SIZE), draw(4, SIZE)])
    step_of(of_sgd, model, xs)
    assert of_sgd.state_dict() == plain.state_dict()
    assert set(plain.state_dict()) == {"trace", "square", "updates"}


def test_averages_are_kept_with_what_they_are_of():
    model, optimizer = with_state(draw(SIZE), torch.ones(SIZE, dtype=torch.float64))
    one, other, plain = (GradientNoise(model, optimizer=each) for each in (optimizer, optimizer, None))
    step_of(one, model, [draw(4, SIZE), draw(4, SIZE)])
    other.load_state_dict(pickle.loads(pickle.dumps(one.state_dict())))
    assert other.state_dict() == one.state_dict()
    assert (other.scale, other.updates) == (one.scale, 1)
    with pytest.raises(
        vf.InputError, match=r"is of the noise of the steps of Adam, and this is for gradients as they are"
    ):
        plain.load_state_dict(one.state_dict())
    with pytest.raises(
        vf.InputError, match=r"is of the noise of gradients as they are, and this is for the steps of Adam"
    ):
        one.load_state_dict(plain.state_dict())
    with pytest.raises(vf.InputTypeError, match="no state of a GradientNoise"):
        one.load_state_dict({"trace": 1.0, "preconditioned": True})


def test_other_optimizers_are_refused():
    model = Quadratic(draw(SIZE))

    class Mine(torch.optim.AdamW):
        pass

    for make, name in [
        (torch.optim.RMSprop, "RMSprop"),
        (torch.optim.NAdam, "NAdam"),
        (torch.optim.Adagrad, "Adagrad"),
        (Mine, "Mine"),
        (list, "list"),
    ]:
        with pytest.raises(vf.InputTypeError, match=rf"optimizer is a .*\b{name}, of which it is not known"):
            GradientNoise(model, optimizer=make(model.parameters()))
    two = nn.ModuleDict({"one": Quadratic(draw(3)), "other": Quadratic(draw(3))})
    with pytest.raises(vf.InputError, match=r"the optimizer has no parameter 'other\.w' of the model"):
        GradientNoise(two, optimizer=torch.optim.AdamW(two["one"].parameters()))
    two["other"].requires_grad_(False)
    GradientNoise(two, optimizer=torch.optim.AdamW(two["one"].parameters()))


def test_an_update_after_the_step_is_refused():
    """The second moment has the gradients in it by then."""
    torch.manual_seed(0)
    model = Quadratic(draw(SIZE))
    optimizer = torch.optim.AdamW(model.parameters())
    noise = GradientNoise(model, optimizer=optimizer)
    for is_late in (True, False, True, False):
        updates = noise.updates
        for _ in range(6):
            model.zero_grad()
            for x in (draw(4, SIZE), draw(4, SIZE)):
                (model(x).sum() / 8).backward()
                noise.add(4)
            if is_late:
                optimizer.step()
                with pytest.raises(
                    vf.InputError, match=r"call update\(\) after the backward passes of a step and before"
                ):
                    noise.update(8)
            else:
                noise.update(8)
                optimizer.step()
        assert noise.updates == updates + (0 if is_late else 6)
    model.zero_grad()
    (model(draw(4, SIZE)).sum() / 8).backward()
    optimizer.load_state_dict(optimizer.state_dict())
    for _ in range(2):
        noise.add(4)
        (model(draw(4, SIZE)).sum() / 8).backward()
    noise.add(4)
    with pytest.raises(vf.InputError, match=r"before optimizer.step\(\)"):
        noise.update(12)


def test_steps_of_which_it_is_not_told_do_not_count():
    torch.manual_seed(0)
    model = Quadratic(draw(SIZE))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, eps=1e-3)
    noise = GradientNoise(model, optimizer=optimizer, decay=0)
    v = torch.zeros(SIZE, dtype=torch.float64)
    for _ in range(7):
        model.zero_grad()
        model(draw(4, SIZE)).mean().backward()
        v = 0.999 * v + 0.001 * model.w.grad**2
        optimizer.step()
    gradients, whole = step_of(noise, model, [draw(4, SIZE), draw(4, SIZE)])
    agree(noise, gradients, whole, (4, 4), 1 / ((v / (1 - 0.999**7)).sqrt() + 1e-3))
