from __future__ import annotations

import contextlib

import pytest
import torch

import vertexflow as vf
from tests.models import FromCode


def sums(self, v):
    h = torch.tanh(self.p * v.pull("x") + v.gather(0).h)
    v.scatter(h=h)
    v.push(h=h * 2)


def profiled(step):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        results = step()
    names = [event.name for event in profile.events() if event.name.startswith("vertexflow ")]
    return profile, results, [name.removeprefix("vertexflow ") for name in names if name != "vertexflow moves"]


def training_step(backend):
    torch.manual_seed(0)
    model = FromCode(sums, {"h": 4}, p=torch.nn.Parameter(torch.randn(4)), backend=backend)
    batch, x = vf.pack([vf.chain(3), vf.chain(2)]), torch.randn(5, 4)

    def step():
        model.zero_grad()
        out = model(batch, x=x).h
        out.square().sum().backward()
        return out, model.p.grad.clone()

    return step


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_ranges_are_named_by_part_and_step_and_change_no_bit(backend):
    step = training_step(backend)
    expected = step()
    profile, results, names = profiled(step)
    assert all(map(torch.equal, results, expected))
    assert [name for name in names if name.startswith("core")] == [f"core, step {at}" for at in range(3)]
    assert [name for name in names if name.startswith("grad_core")] == [f"grad_core, step {at}" for at in (2, 1, 0)]
    assert "eager" in names
    assert "lazy" in names or "lazy_inner" in names
    svg = vf.timeline(profile).svg
    assert svg.count('class="range"') >= len(names)
    assert "core, step 2: " in svg
    assert all(map(torch.equal, step(), expected))  # without the profiler, the calls of one go


def test_steps_of_kinds_that_take_turns_are_numbered_as_the_schedule_has_them():
    class Turns(vf.VertexFunction):
        def __init__(self):
            super().__init__({"h": 2}, backend="native")

        @vf.vertex("a")
        def a(self, v):
            v.scatter(h=v.gather(0).h + 1)

        @vf.vertex("b")
        def b(self, v):
            h = v.gather(0).h * 2
            v.scatter(h=h)
            v.push(h=h)

    batch, model = vf.pack([vf.chain(4).with_kind(["a", "b", "a", "b"])]), Turns()
    _, out, names = profiled(lambda: model(batch).h)
    assert out.tolist() == [[2, 2], [6, 6]]
    assert [name for name in names if name.startswith("core")] == [f"core, step {at}" for at in range(4)]


def test_runs_that_grow_have_ranges_too():
    torch.manual_seed(0)
    model = FromCode(sums, {"h": 4}, p=torch.nn.Parameter(torch.randn(4)), backend="native")
    x = torch.randn(3, 4)

    def grow():
        model.zero_grad()
        run = model.start(x=x)
        run.extend([[0], [1]], x=x[:2])
        run[:].h.square().sum().backward()
        return run[:].h.detach(), model.p.grad.clone()

    expected = grow()
    _, results, names = profiled(grow)
    assert all(map(torch.equal, results, expected))
    assert [name for name in names if "core" in name] == ["core, step 0"] * 2 + ["grad_core, step 0"] * 2
    assert all(map(torch.equal, grow(), expected))


def test_a_profiler_that_begins_or_ends_between_the_passes_changes_nothing():
    model = FromCode(sums, {"h": 4}, p=torch.nn.Parameter(torch.randn(4)), backend="native")
    batch, x = vf.pack([vf.chain(3)]), torch.randn(3, 4)
    model(batch, x=x).h.sum().backward()
    expected = model.p.grad.clone()
    for in_forward in (True, False, True):
        model.zero_grad()
        profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        with profile if in_forward else contextlib.nullcontext():
            loss = model(batch, x=x).h.sum()
        with contextlib.nullcontext() if in_forward else profile:
            loss.backward()
        assert torch.equal(model.p.grad, expected)


def test_eager_has_a_range_a_step():
    _, _, names = profiled(training_step("eager"))
    assert names == [f"vertex, step {at}" for at in range(3)]


@pytest.mark.parametrize("backend", ["torch", "native", "eager"])
def test_without_a_profiler_no_range_is_made(backend, monkeypatch):
    step = training_step(backend)
    monkeypatch.setattr(torch.profiler, "record_function", lambda name: pytest.fail(f"a range for {name}"))
    step()


def test_what_is_no_profile_of_a_model_is_refused():
    with pytest.raises(vf.InputTypeError, match="not of a int"):
        vf.timeline(7)
    with pytest.raises(vf.InputError, match="leave its `with` block"):
        vf.timeline(torch.profiler.profile())
    profile, _, _ = profiled(lambda: torch.zeros(2) + 1)
    with pytest.raises(vf.InputError, match="no vertex function ran"):
        vf.timeline(profile)
