"""Names that mean something already are refused, with a sentence, where they are given."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import vertexflow as vf

from ...models import TreeRNN


class Sum(vf.VertexFunction):
    """A vertex function with names of the test's choice."""

    def __init__(self, state="h", pulls="x", pushes="y"):
        super().__init__(state={state: 2})
        self.names = state, pulls, pushes

    def vertex(self, v):
        state, pulls, pushes = self.names
        h = v.pull(pulls) + getattr(v.gather(0), state)
        v.scatter(**{state: h})
        v.push(**{pushes: h})


@pytest.mark.parametrize(
    "name", ["state", "policy", "backend", "state_dtype", "vertex", "explain", "start", "symbolic_graph"]
)
@pytest.mark.parametrize("value", [nn.Linear(2, 2), nn.Parameter(torch.ones(2)), torch.ones(2)])
def test_modules_and_tensors_do_not_hide_what_a_vertex_function_has(name, value):
    with pytest.raises(
        vf.VertexFunctionError, match=rf"Sum\.{name} cannot be set to a .* would hide `VertexFunction\.{name}`"
    ):
        setattr(Sum(), name, value)


def test_states_are_given_to_the_constructor_and_stay():
    model = TreeRNN(3, 4)
    with pytest.raises(vf.VertexFunctionError, match=r"shapes of the states: they are given to super\(\).__init__"):
        model.state = {"h": 8}
    assert model.state == {"h": (4,)}
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.state == model.state
    with pytest.raises(vf.VertexFunctionError, match=r"explain cannot be set to a int"):
        model.explain = 3


def test_settings_may_be_set():
    model = TreeRNN(3, 4)
    model.backend, model.policy, model.state_dtype = "torch", "height", torch.float32
    model.forward = model.forward  # as accelerate patches it
    assert model([vf.chain(2)], x=torch.ones(2, 3)).h.shape == (2, 4)


@pytest.mark.parametrize("name", ["initial", "reverse", "graphs", "shared", "self", 3])
def test_inputs(name):
    with pytest.raises(vf.VertexFunctionError, match=rf"v\.pull.*{name!r}"):
        Sum(pulls=name)([vf.chain(2)], x=torch.ones(2, 2))


@pytest.mark.parametrize("name", ["pull", "expand", "gather", "self", "_h", "_v", "class", "a b", 3])
def test_states(name):
    with pytest.raises(vf.InputError, match=rf"state .*{name!r}"):
        Sum(state=name)


@pytest.mark.parametrize(
    "name",
    ["keys", "items", "values", "get", "pop", "update", "copy", "clear", "setdefault", "popitem", "fromkeys", "__x"],
)
@pytest.mark.cases(1)
def test_outputs(name):
    with pytest.raises(vf.VertexFunctionError, match=rf"v\.push\({name}=...\): an output cannot be called '{name}'"):
        Sum(pushes=name)([vf.chain(2)], x=torch.ones(2, 2))
