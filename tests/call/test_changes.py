"""Whatever may change between calls is seen at the next one, and costs no trace where nothing did."""

from __future__ import annotations

import collections
import functools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import vertexflow as vf

RUNS = []  # of the method of `Model`


@pytest.fixture(autouse=True)
def _no_runs():
    RUNS.clear()


class Settings(dict):
    """A dictionary with attributes."""


class Controller:
    """An object without a dictionary, whose method is a hook."""

    __slots__ = ("__factor",)

    def __init__(self, factor):
        self.set(factor)

    def set(self, factor):
        self.__factor = factor

    def times(self, module, arguments, output):
        return output * self.__factor


def double(module, arguments, output):
    return 2 * output


class Model(vf.VertexFunction):
    """Reads attributes of many kinds, all of which change what it computes."""

    offset = 0.0

    def __init__(self):
        super().__init__(state={"h": 3}, backend="torch")
        self.linear = nn.Linear(3, 3)
        self.act = nn.Identity()
        self.drop = nn.Dropout(0.0)
        self.scale = 1.0
        self.settings = {"power": 1, "more": [1.0]}
        self.options = SimpleNamespace(negative=False)
        self.weights = torch.ones(3)
        self.register_buffer("mask", torch.ones(3))
        self.twice = functools.partial(torch.mul, 1.0)
        self.attributes = Settings()
        self.attributes.shift = 0.0
        self.controller = Controller(1.0)
        self.linear.register_forward_hook(self.controller.times)
        self.recent = collections.deque([torch.ones(3)])
        self.outside = [nn.Linear(3, 3).requires_grad_(False)]  # which PyTorch does not see
        self.by_part = {self.drop: 1.0}
        self.sign = 0.0

    def vertex(self, v):
        RUNS.append(self.training)
        factor = self.scale * self.settings["power"] * self.settings["more"][0] * self.by_part[self.drop]
        shift = self.offset + self.attributes.shift + math.copysign(1.0, self.sign)
        y = self.drop(self.act(self.linear(v.pull("x")))) * self.weights * self.mask * self.recent[-1]
        y = self.twice(y) * (-factor if self.options.negative else factor)
        y = y + shift + self.outside[0].weight[0]
        y = y + getattr(self.drop, "shift", 0.0) + getattr(self.drop, "offset", 0.0)
        v.scatter(h=y + v.gather(0).h)
        v.push(y=y)


def expected(model, x):
    """The pushed value as plain PyTorch has it."""
    pushed = {}
    v = SimpleNamespace(
        pull=lambda name: x,
        gather=lambda slot: SimpleNamespace(h=torch.zeros(len(x), 3)),
        scatter=lambda h: None,
        push=lambda y: pushed.update(y=y),
    )
    model.vertex(v)
    RUNS.pop()
    return pushed["y"]


def parametrized(model):
    parametrize.register_parametrization(model.linear, "weight", nn.Tanh())


def without_bias(model):
    model.linear.bias = None


def another_bias(model):
    model.linear.bias = nn.Parameter(torch.ones(3))


def frozen_ones():
    return nn.Parameter(torch.ones(3, 3), requires_grad=False)


def patched(model):
    model.act.forward = lambda value: 3 * value


CHANGES = {
    "an attribute": lambda model: setattr(model, "scale", 3.0),
    "a tensor for a number": lambda model: setattr(model, "scale", torch.tensor(2.0, dtype=torch.float64)),
    "an attribute of the class": lambda model: setattr(type(model), "offset", 2.0),
    "an entry of a dictionary": lambda model: model.settings.update(power=2),
    "an element of a list in it": lambda model: model.settings["more"].__setitem__(0, 5.0),
    "an attribute of an object": lambda model: setattr(model.options, "negative", True),
    "a tensor in place": lambda model: model.weights.mul_(2),
    "another tensor": lambda model: setattr(model, "weights", torch.full((3,), 7.0)),
    "a buffer": lambda model: model.mask.mul_(2),
    "a parameter": lambda model: nn.init.ones_(model.linear.weight),
    "another parameter": another_bias,
    "a parameter taken away": without_bias,
    "a submodule exchanged": lambda model: setattr(model, "act", nn.Tanh()),
    "a hook on a submodule": lambda model: model.linear.register_forward_hook(double),
    "a patched forward": patched,
    "a parametrization": parametrized,
    "a function": lambda model: setattr(model, "twice", functools.partial(torch.mul, 2.0)),
    "an attribute of a dictionary": lambda model: setattr(model.attributes, "shift", 2.0),
    "an object whose method is a hook": lambda model: model.controller.set(3.0),
    "another tensor in a deque": lambda model: model.recent.__setitem__(0, torch.full((3,), 3.0)),
    "one more tensor in a deque": lambda model: model.recent.append(torch.full((3,), 5.0)),
    "a parameter of a module in a list": lambda model: setattr(model.outside[0], "weight", frozen_ones()),
    "a value at a module": lambda model: model.by_part.update({model.drop: 3.0}),
    "the first parameter of a module": lambda model: setattr(model.drop, "shift", nn.Parameter(torch.ones(3))),
    "the first buffer of a module": lambda model: model.drop.register_buffer("offset", torch.ones(3)),
    "a sign of zero": lambda model: setattr(model, "sign", -0.0),
    "weights of another dtype": lambda model: model.double(),
    "an attribute of a submodule": lambda model: setattr(model.drop, "p", 1.0),  # behind which a factor changes nothing
}
NAMES = [*CHANGES]
GROUPS = [NAMES[start : start + 6] for start in range(0, len(NAMES), 6)]  # more states of one model would be warned of


@pytest.mark.parametrize("changes", GROUPS, ids=", ".join)
@pytest.mark.cases(1)
def test_a_change_is_seen_at_the_next_call(changes, monkeypatch):
    """Several of one model, one after the other."""
    monkeypatch.setattr(Model, "offset", 0.0)
    model, x = Model(), torch.randn(2, 3)
    graphs = [vf.chain(2)]
    before = model(graphs, x=x).y
    torch.testing.assert_close(before, expected(model, x))
    for change in changes:
        print(change)
        CHANGES[change](model)
        x = x.to(model.linear.weight.dtype)
        want = expected(model, x)
        assert not torch.equal(want, before.to(want.dtype))  # or it would show nothing
        for _ in range(2):
            before = model(graphs, x=x).y
            torch.testing.assert_close(before, want)


def test_what_was_seen_before_is_not_traced_again():
    model, x = Model(), torch.randn(2, 3)
    for scale in (1.0, 2.0, 1.0, 2.0):
        model.scale = scale
        torch.testing.assert_close(model([vf.chain(2)], x=x).y, expected(model, x))
    hook = model.linear.register_forward_hook(double)
    model([vf.chain(2)], x=x)
    hook.remove()
    model([vf.chain(2)], x=x)
    model.act = nn.Identity()  # as the one before
    model([vf.chain(2)], x=x)
    assert len(RUNS) == 3


def test_nothing_is_traced_again_for_what_decides_nothing():
    model, x = Model(), torch.randn(2, 3)
    for step in range(3):
        model([vf.chain(2)], x=x).y.sum().backward()
        model.zero_grad()
        model.linear.weight = nn.Parameter(torch.randn(3, 3))
        model.mask = torch.rand(3)
        model.settings = dict(model.settings)
        model.scale = float(str(model.scale))
        model.policy = ("depth", "height", "agenda")[step]
    assert len(RUNS) == 1


def test_a_module_that_lists_its_own_parameters_is_traced_once():
    model, x = Model(), torch.randn(2, 3)
    model.act = nn.Sequential(nn.Identity(), nn.Identity())
    model.lstm = nn.LSTM(3, 3)  # `_flat_weights`
    model.all = list(model.parameters())
    for _ in range(3):
        model([vf.chain(2)], x=x)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
    model.double()
    model([vf.chain(2)], x=x.double())
    assert len(RUNS) == 2


def test_parameters_that_are_tied_later_share_their_gradient():
    class Two(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={})
            self.one, self.other = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)

        def vertex(self, v):
            v.push(y=self.one(v.pull("x")) + 2 * self.other(v.pull("x")))

    model, x = Two(), torch.randn(2, 3)
    model([vf.chain(1)] * 2, x=x)
    model.other.weight = model.one.weight
    model([vf.chain(1)] * 2, x=x).y.sum().backward()
    torch.testing.assert_close(model.one.weight.grad, 3 * x.sum(0).expand(3, 3))


def test_a_hook_of_all_modules_is_seen():
    model, x = Model(), torch.randn(2, 3)
    before = model([vf.chain(2)], x=x).y

    def add(module, arguments, output):
        return output + 1 if isinstance(module, nn.Linear) else None

    hook = nn.modules.module.register_module_forward_hook(add)
    try:
        torch.testing.assert_close(model([vf.chain(2)], x=x).y, before + 1)
    finally:
        hook.remove()
    torch.testing.assert_close(model([vf.chain(2)], x=x).y, before)


def anneal(model, x):
    for step in range(9):
        model.drop.p = step / 20
        model([vf.chain(2)], x=x)


@pytest.mark.slow
def test_a_model_that_changes_again_and_again_says_what():
    model, x = Model(), torch.randn(2, 3)
    with pytest.warns(UserWarning, match=r"Model was traced in 8 different states.*'?drop\.p"):
        anneal(model, x)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lambda model, y: setattr(model, "last", y.detach()), "last"),
        (lambda model, y: setattr(model, "scale", model.scale + 1), "scale"),
        (lambda model, y: setattr(model.act, "seen", 1), "act.seen"),
        (lambda model, y: model.settings["more"].append(1), "settings.more"),
        (lambda model, y: setattr(model.options, "last", y), "options.last"),
        (lambda model, y: setattr(type(model), "offset", 1.0), "offset"),
        (lambda model, y: setattr(model, "act", nn.ReLU()), "act"),
        (lambda model, y: setattr(model, "mask", model.mask * 2), "mask"),
        (lambda model, y: model.mask.mul_(2), "mask"),
        (lambda model, y: torch.mul(model.mask, 2, out=model.mask), "mask"),
        (lambda model, y: model.mask[:1].data.fill_(0), "mask"),
        (lambda model, y: model.linear.weight.data.mul_(2), "linear.weight"),
    ],
)
@pytest.mark.cases(1)
def test_a_vertex_function_that_writes_is_refused_and_changes_nothing(write, name, monkeypatch):
    monkeypatch.setattr(Model, "offset", 0.0)

    class Writing(Model):
        def vertex(self, v):
            super().vertex(v)
            write(self, v.pushed["y"])

    model, x = Writing(), torch.randn(2, 3)
    model.settings, model.options = {"power": 1, "more": [1.0]}, SimpleNamespace(negative=False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    attributes = {**vars(model), "settings": str(model.settings), "options": str(model.options), "act": str(model.act)}
    with pytest.raises(vf.VertexFunctionError, match=rf"writes to|sets .*{name}"):
        model([vf.chain(2)], x=x)
    assert attributes == {
        **vars(model), "settings": str(model.settings), "options": str(model.options), "act": str(model.act)
    }  # fmt: skip
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert Writing.offset == 0.0
    assert not vars(model.act).keys() & {"seen"}


@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_are_computed_of_others(wrap):
    model, x = Model(), torch.randn(2, 3)
    wrap(model.linear)
    model([vf.chain(2)], x=x)
    for _ in range(2):
        torch.testing.assert_close(model([vf.chain(2)], x=x).y, expected(model, x))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
    assert len(RUNS) == 1


def test_large_containers_are_not_looked_through():
    model, x = Model(), torch.randn(2, 3)
    model.words = {str(number): number for number in range(100_000)}
    model.counts = collections.Counter(model.words)
    model([vf.chain(2)], x=x)
    assert len(model._programs.seen.snapshot.leaves) < 500


@pytest.mark.slow
def test_objects_that_hold_each_other_one_behind_the_other():
    model, x = Model(), torch.randn(2, 3)
    for _ in range(400):
        model.first = SimpleNamespace(next=getattr(model, "first", None))
    model([vf.chain(2)], x=x)


def test_whether_a_parameter_requires_grad_cannot_be_asked():
    class Asking(Model):
        def vertex(self, v):
            y = v.pull("x") * (2 if self.linear.weight.requires_grad else 5)
            v.scatter(h=y)
            v.push(y=y)

    with pytest.raises(vf.VertexFunctionError, match=r"requires grad(?s:.)*test_changes\.py"):
        Asking()([vf.chain(1)], x=torch.randn(1, 3))
