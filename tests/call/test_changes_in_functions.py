"""What functions read beside their arguments may change between calls, too, and is seen at the next one."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import functools
import types
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vertexflow as vf

SCALE, TABLE, LOG = 1.0, {"k": 1.0}, []
WEIGHT = torch.ones(3)
VIEWED = {"k": 1.0}
HELPERS = types.SimpleNamespace(scale=1.0)


def of_global(x):
    return x * SCALE


def through_a_helper(x):
    return of_global(x) * WEIGHT * TABLE["k"] * HELPERS.scale


def with_default(x, scale=1.0, *, power=1.0):
    return (x * scale) ** power


class Other:
    """An object that the model does not know, but for a method of it."""

    bias = 0.0

    def __init__(self):
        self.scale = 1.0
        self.calls = 0

    def method(self, x):
        self.calls += 1
        return self.double(x) * self.scale + self.bias

    def double(self, x):
        return 2 * x * getattr(self, "more", 1.0)

    def __call__(self, x):
        return x * self.scale

    def as_hook(self, module, arguments, output):
        return output * self.scale


class Slotted:
    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 1.0

    def method(self, x):
        return x * self.scale


@dataclasses.dataclass(slots=True)
class Record:
    scale: float = 1.0


class Settings:
    scale = 1.0


class Mode(enum.Enum):
    ON = 1
    OFF = 2


class Model(vf.VertexFunction):
    def __init__(self, fn, **attributes):
        super().__init__(state={"h": 3}, backend="torch")
        self.linear = nn.Linear(3, 3)
        self.fn = fn
        self.runs = lambda: None  # a function, which may be written to
        self.runs.count = 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def vertex(self, v):
        LOG.append("run")
        y = self.fn(torch.sigmoid(self.linear(v.pull("x"))))
        v.scatter(h=y + v.gather(0).h)
        v.push(y=y)


def set_global(name, value):
    def change():
        globals()[name] = value

    return change


@pytest.fixture(autouse=True)
def _as_it_was():
    before = {"SCALE": 1.0, "WEIGHT": torch.ones(3), "TABLE": {"k": 1.0}, "HELPERS": SimpleNamespace(scale=1.0)}
    globals().update(before)
    LOG.clear()
    yield
    globals().update(before)
    Other.bias, Settings.scale = 0.0, 1.0
    with_default.__defaults__, with_default.__kwdefaults__ = (1.0,), {"power": 1.0}


def a_closure():
    scale = 1.0

    def fn(x):
        return x * scale

    def change():
        nonlocal scale
        scale = 3.0

    return fn, change


def in_a_closure():
    box = {"k": 1.0, "calls": 0}

    def fn(x):
        box["calls"] += 1
        return x * box["k"]

    return fn, lambda: box.update(k=3.0)


def a_closure_in_a_closure():
    box = [1.0]
    inner = lambda x: x * box[0]  # noqa: E731
    return lambda x: inner(x), lambda: box.__setitem__(0, 3.0)


def a_partial_s_object():
    given = SimpleNamespace(scale=1.0)
    return functools.partial(lambda given, x: x * given.scale, given), lambda: setattr(given, "scale", 3.0)


def a_partial_s_keyword():
    fn = functools.partial(F.leaky_relu, negative_slope=0.5)
    whole = lambda x: fn(x - 0.5)  # noqa: E731
    return whole, lambda: fn.keywords.update(negative_slope=0.1)


def a_bound_method():
    other = Other()
    return other.method, lambda: setattr(other, "scale", 3.0)


def what_a_bound_method_calls():
    other = Other()
    return other.method, lambda: setattr(other, "more", 3.0)


def the_class_of_a_bound_method():
    return Other().method, lambda: setattr(Other, "bias", 3.0)


def a_method_exchanged():
    other = Other()
    return other.method, lambda: setattr(other, "double", lambda x: 5 * x)


def a_callable_object():
    other = Other()
    return (lambda x: other(x)), lambda: setattr(other, "scale", 3.0)


def slots():
    other = Slotted()
    return other.method, lambda: setattr(other, "scale", 3.0)


def a_method_of_a_dictionary():
    table = {0: 1.0}
    return (lambda x, get=table.get: x * get(0)), lambda: table.update({0: 3.0})


def defaults():
    return with_default, lambda: setattr(with_default, "__defaults__", (3.0,))


def keyword_defaults():
    return with_default, lambda: with_default.__kwdefaults__.update(power=2.0)


def an_attribute_of_a_function():
    def fn(x):
        return x * fn.scale

    fn.scale = 1.0
    return fn, lambda: setattr(fn, "scale", 3.0)


def another_code():
    def fn(x):
        return x

    def other(x):
        return 2 * x

    return fn, lambda: setattr(fn, "__code__", other.__code__)


def a_global():
    return of_global, set_global("SCALE", 3.0)


def a_global_of_a_helper():
    return through_a_helper, set_global("SCALE", 3.0)


def a_global_tensor():
    return through_a_helper, lambda: WEIGHT.mul_(3)


def in_a_global_dictionary():
    return through_a_helper, lambda: TABLE.update(k=3.0)


def in_a_global_object():
    return through_a_helper, lambda: setattr(HELPERS, "scale", 3.0)


def a_wrapped_function():
    box = [1.0]

    def wrap(function):
        @functools.wraps(function)
        def wrapped(x):
            return function(x) * box[0]

        return wrapped

    return wrap(of_global), lambda: box.__setitem__(0, 3.0)


def a_cached_function():
    @functools.lru_cache
    def factor():
        return SCALE

    def change():
        set_global("SCALE", 3.0)()
        factor.cache_clear()

    return (lambda x: x * factor()), change


def a_module_outside():
    other = nn.Dropout(0.0)
    return (lambda x: other(x)), lambda: setattr(other, "p", 1.0)


FUNCTIONS = [
    a_closure, in_a_closure, a_closure_in_a_closure, a_partial_s_object, a_partial_s_keyword, a_bound_method,
    what_a_bound_method_calls, the_class_of_a_bound_method, a_method_exchanged, a_callable_object, slots,
    a_method_of_a_dictionary, defaults, keyword_defaults, an_attribute_of_a_function, another_code, a_global,
    a_global_of_a_helper, a_global_tensor, in_a_global_dictionary, in_a_global_object, a_wrapped_function,
    a_cached_function, a_module_outside,
]  # fmt: skip


def outputs(model, x, backend="torch"):
    model.backend = backend
    return model([vf.chain(2)], x=x).y.detach().clone()


def check_change(model, change):
    """What is changed is seen, once, and traced once for each of the two states."""
    x = torch.randn(2, 3)
    before = outputs(model, x, "eager")
    LOG.clear()
    for _ in range(3):
        torch.testing.assert_close(outputs(model, x), before)
    assert len(LOG) == 1
    change()
    after = outputs(model, x, "eager")
    assert not torch.equal(before, after)  # or it would show nothing
    LOG.clear()
    for _ in range(3):
        torch.testing.assert_close(outputs(model, x), after)
    assert len(LOG) == 1


@pytest.mark.parametrize("make", FUNCTIONS, ids=lambda make: make.__name__)
@pytest.mark.cases(2)
def test_what_a_function_reads(make):
    fn, change = make()
    check_change(Model(fn), change)


def test_what_a_hook_reads():
    other = Other()
    model = Model(lambda x: x)
    model.linear.register_forward_hook(other.as_hook)
    check_change(model, lambda: setattr(other, "scale", 3.0))


def test_what_a_patched_forward_reads():
    box = [1.0]
    model = Model(lambda x: x)
    model.linear.forward = lambda x: x * box[0]
    check_change(model, lambda: box.__setitem__(0, 3.0))


class ReadsGlobals(Model):
    def vertex(self, v):
        super().vertex(v)
        v.pushed["y"] = self.scaled(v.pushed["y"])

    def scaled(self, y):
        return y * SCALE


def test_globals_that_the_vertex_method_and_what_it_calls_read():
    check_change(ReadsGlobals(lambda x: x), set_global("SCALE", 3.0))


class Reads(Model):
    """Reads whatever `read` says."""

    def __init__(self, read, **attributes):
        super().__init__(lambda x: x, **attributes)
        self.read = read

    def vertex(self, v):
        super().vertex(v)
        v.pushed["y"] = v.pushed["y"] * self.read(self)


def weights():
    given = nn.Parameter(torch.ones(3))
    given.scale = 1.0
    return given


ATTRIBUTES = {
    "bytes": (bytearray(b"\1\2"), lambda m: m.a[0], lambda m: m.a.__setitem__(0, 3)),
    "an array": (array.array("d", [1.0]), lambda m: m.a[0], lambda m: m.a.__setitem__(0, 3.0)),
    "an array of NumPy": (np.ones((2, 2)), lambda m: float(m.a.T[1, 0]), lambda m: m.a.__setitem__((0, 1), 3.0)),
    "a scalar of NumPy": (np.float32(1), lambda m: float(m.a), lambda m: setattr(m, "a", np.float32(3))),
    "objects in an array": (
        np.array([SimpleNamespace(k=1.0)]), lambda m: m.a[0].k, lambda m: setattr(m.a[0], "k", 3.0)
    ),
    "the order of an ordered dictionary": (
        collections.OrderedDict(a=1.0, b=3.0), lambda m: next(iter(m.a.values())), lambda m: m.a.move_to_end("a")
    ),
    "the order of a dictionary": (
        {"a": 1.0, "b": 3.0}, lambda m: next(iter(m.a.values())), lambda m: m.a.update(a=m.a.pop("a"))
    ),
    "the order of a deque": (collections.deque([1.0, 3.0]), lambda m: m.a[0], lambda m: m.a.rotate()),
    "the order of a list": ([1.0, 3.0], lambda m: m.a[0], lambda m: m.a.reverse()),
    "a set": ({1.0}, lambda m: len(m.a), lambda m: m.a.add(2.0)),
    "a module in a set": (
        {nn.Dropout(0.5)}, lambda m: next(iter(m.a)).p, lambda m: setattr(next(iter(m.a)), "p", 0.1)
    ),
    "a dataclass with slots": (Record(), lambda m: m.a.scale, lambda m: setattr(m.a, "scale", 3.0)),
    "an attribute of a class": (Settings, lambda m: m.a.scale, lambda m: setattr(Settings, "scale", 3.0)),
    "the class of an object": (Settings(), lambda m: m.a.scale, lambda m: setattr(Settings, "scale", 3.0)),
    "an enumeration": (Mode.ON, lambda m: m.a.value, lambda m: setattr(m, "a", Mode.OFF)),
    "a view of a dictionary": (
        types.MappingProxyType(VIEWED), lambda m: m.a["k"], lambda m: VIEWED.update(k=3.0)
    ),
    "an entry called policy": ({"policy": 1.0}, lambda m: m.a["policy"], lambda m: m.a.update(policy=3.0)),
    "the model's policy": (
        None, lambda m: 1.0 if m.policy == "depth" else 3.0, lambda m: setattr(m, "policy", "height")
    ),
    "the model's dtypes": (
        None, lambda m: 1.0 if m.state_dtype is None else 3.0, lambda m: setattr(m, "state_dtype", {"h": torch.float32})
    ),
    "an attribute of a parameter": (weights(), lambda m: m.a.scale, lambda m: setattr(m.a, "scale", 3.0)),
    "a parameter with another attribute": (
        nn.Parameter(torch.ones(3)), lambda m: getattr(m.a, "scale", 3.0), lambda m: setattr(m, "a", weights())
    ),
    "a parameter for a buffer": (
        nn.Parameter(torch.ones(3)),
        lambda m: 1.0 if isinstance(m.a, nn.Parameter) else 3.0,
        lambda m: (delattr(m, "a"), m.register_buffer("a", torch.ones(3))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTRIBUTES)
@pytest.mark.cases(2)
def test_what_an_attribute_holds(name):
    value, read, change = ATTRIBUTES[name]
    model = Reads(read, a=value)
    check_change(model, lambda: change(model))


def test_what_is_set_on_a_parameter_while_tracing_is_refused():
    def read(model):
        model.linear.weight.seen = True
        return 1.0

    model = Reads(read)
    with pytest.raises(vf.VertexFunctionError, match=r"sets 'linear\.weight\.seen'"):
        model([vf.chain(2)], x=torch.randn(2, 3))
    assert not hasattr(model.linear.weight, "seen")


def test_what_functions_write_to_is_not_traced_again():
    """A hook that counts, a list of what was seen, a trainer whose method is a hook: they changed at the trace itself."""
    kept, count, trainer = [], 0, Other()

    def hook(module, arguments, output):
        nonlocal count
        count += 1
        kept.append(count)
        trainer.last = count

    model, x = Model(trainer.method), torch.randn(2, 3)
    handle = model.linear.register_forward_hook(hook)
    for step in range(3):
        model([vf.chain(2)], x=x)
        trainer.step = step  # which nobody reads
        count += 1
    assert len(LOG) == 1
    trainer.scale = 3.0
    model([vf.chain(2)], x=x)
    handle.remove()
    model([vf.chain(2)], x=x)
    assert len(LOG) == 3
    assert len(model._programs.unwatched) < 10


def test_a_trainer_that_counts_its_steps_is_not_looked_at():
    class Trainer:
        def __init__(self):
            self.step, self.model, self.losses = 0, Model(self.transform), []

        def transform(self, x):
            return 2 * x

        def fit(self, x):
            self.losses.append(self.model([vf.chain(2)], x=x).y.sum().item())
            self.step += 1
            self.model.linear.weight.grad_norm = torch.ones(1) * self.step

    trainer = Trainer()
    for _ in range(3):
        trainer.fit(torch.randn(2, 3))
    assert len(LOG) == 1
