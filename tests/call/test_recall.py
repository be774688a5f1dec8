"""A call that is like an earlier one is not bound again, and any that is not gives what it gives to a model without a past."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_packed_sequence

import vertexflow as vf
from vertexflow.call import recall
from vertexflow.errors import VertexFlowError

from ..models import TreeRNN

BATCH = vf.pack([vf.tree(((0, 1), 2)), vf.chain(3)])
OTHER = vf.pack([vf.chain(4), vf.chain(4)])  # of as many vertices


@pytest.fixture(scope="module")
def shared_model():
    torch.manual_seed(0)
    return TreeRNN(3, 4)


@pytest.fixture
def model(shared_model):
    """A model that has been called on BATCH, with gradients and without; not to be changed."""
    return called(shared_model)


@pytest.fixture
def own_model(shared_model):
    """The same, which may be changed."""
    return called(copy.deepcopy(shared_model))


def called(model):
    for _ in range(2):  # the second call notes the model and its surroundings
        model(BATCH, x=inputs())
        with torch.no_grad():
            model(BATCH, x=inputs())
    return model


@pytest.fixture
def binds(monkeypatch):
    """The models whose calls were bound, call after call."""
    calls, run_again = [], recall.run_again

    def noted(model, *arguments):
        result = run_again(model, *arguments)
        calls.extend([] if result is not None else [model])
        return result

    monkeypatch.setattr(recall, "run_again", noted)
    return calls


def inputs(requires_grad=False, dtype=torch.float32):
    return torch.linspace(-1, 1, BATCH.num_vertices * 3, dtype=dtype).view(-1, 3).requires_grad_(requires_grad)


def outcome(model, batch=BATCH, **arguments):
    """What a call gives, with its gradients; or its error."""
    given = {"x": inputs()} | arguments
    tensors = [*model.parameters(), *(value for value in given.values() if isinstance(value, torch.Tensor))]
    try:
        h = model(batch, **given).h
    except VertexFlowError as error:
        return type(error), str(error)
    wanted = [tensor for tensor in tensors if tensor.requires_grad] if h.requires_grad else []
    return h.detach(), *(torch.autograd.grad(h.square().sum(), wanted, allow_unused=True) if wanted else ())


def outcomes(model, *arguments, **named):
    """What a call gives, and what it gives if it is bound anew."""
    recalled, usual = outcome(model, *arguments, **named), (recall.run_unchanged, recall.run_again)
    recall.run_unchanged = recall.run_again = lambda *arguments: None
    try:
        return recalled, outcome(model, *arguments, **named)
    finally:
        recall.run_unchanged, recall.run_again = usual


def same(actual, expected):
    """Whether two outcomes are the same, to the bit."""
    assert len(actual) == len(expected), (actual, expected)
    for one, other in zip(actual, expected, strict=True):
        both = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
        assert torch.equal(one, other) if both else one == other, (actual, expected)
    return True


def test_a_call_like_an_earlier_one_is_not_bound_again(model, binds):
    recalled, expected = outcomes(model)
    assert same(recalled, expected)
    with torch.no_grad():
        assert torch.equal(model(BATCH, x=inputs()).h, expected[0])
    assert not binds


def test_a_model_and_surroundings_that_are_as_before_are_compared_in_one_native_call(model, monkeypatch):
    expected = outcome(model)
    for name in ("run_again", "_surroundings"):
        monkeypatch.setattr(recall, name, None)
    assert same(outcome(model), expected)
    with torch.no_grad():
        assert torch.equal(model(BATCH, x=inputs()).h, expected[0])


def test_a_model_of_other_parameters_is_as_before_from_the_second_call_on(own_model, monkeypatch):
    outcome(own_model)
    own_model.w.weight = nn.Parameter(torch.ones_like(own_model.w.weight))
    expected = outcomes(own_model)[1]
    monkeypatch.setattr(recall, "run_again", None)
    assert same(outcome(own_model), expected)


@pytest.fixture
def served(monkeypatch):
    """Of each call that might be as before, whether it was."""
    calls, run_unchanged = [], recall.run_unchanged

    def noted(*arguments):
        result = run_unchanged(*arguments)
        calls.append(result is not None)
        return result

    monkeypatch.setattr(recall, "run_unchanged", noted)
    return calls


def layers(**options):
    """Four cells with weights of their own, called twice."""
    torch.manual_seed(0)
    model = vf.nn.LSTM(4, 2, num_layers=2, bidirectional=True, **options)
    for is_grad_enabled in (True, True, False, False):
        with torch.set_grad_enabled(is_grad_enabled):
            model(CHAINS, STEPS)
    return model


CHAINS, STEPS = vf.pack([vf.chain(3), vf.chain(2)]), torch.linspace(-1, 1, 20).view(5, 4)


def of_peer(model):
    """`h` by PyTorch, and the gradients of parameters."""
    peer = nn.LSTM(4, 2, num_layers=2, bidirectional=True)
    peer.load_state_dict(model.state_dict())
    x = torch.nn.utils.rnn.pack_sequence([STEPS[:3], STEPS[3:]])
    h = torch.cat([rows[:length] for rows, length in zip(*pad_packed_sequence(peer(x)[0], True), strict=True)])
    return h, *torch.autograd.grad(h.square().sum(), [*peer.parameters()])


def test_a_model_with_other_weights_in_each_call_is_as_before(served, monkeypatch):
    model = layers()
    monkeypatch.setattr(recall, "run_again", None)
    for factor in (1.0, 2.0):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        model.weight_hh_l1 = nn.Parameter(model.weight_hh_l1.detach() * 1.5)
        del served[:]
        h = model(CHAINS, STEPS).h
        for ours, wanted in zip(
            (h, *torch.autograd.grad(h.square().sum(), [*model.parameters()])), of_peer(model), strict=True
        ):
            torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)
        with torch.no_grad():
            assert torch.equal(model(CHAINS, STEPS).h, h)
        assert served == [True] * 8


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.weight_hh_l0.requires_grad_(False),
        lambda model: setattr(model.weight_ih_l0, "data", model.weight_ih_l0.data.t().contiguous().t()),
        lambda model: setattr(model.cell, "max_vertices", 3),
        lambda model: setattr(model.cell, "backend", "torch"),
        lambda model: setattr(model.cell, "scale", 2),
        lambda model: setattr(model.cell.weight_ih, "note", 1),
        lambda model: setattr(model.cell, "weight_ih", nn.Parameter(torch.empty(0, device="meta"))),
    ],
)
def test_changes_are_noticed_beside_other_weights(served, change):
    model = layers()
    change(model)
    del served[:]
    h = model(CHAINS, STEPS).h
    assert not served[0]
    torch.testing.assert_close(h, of_peer(model)[0], rtol=1e-5, atol=1e-6)


def test_surroundings_are_noticed_beside_other_weights(served):
    model = layers()
    del served[:]
    with torch.autocast("cpu", torch.bfloat16):
        model(CHAINS, STEPS)
    assert not any(served)
    with pytest.raises(vf.InputError):
        model(CHAINS, STEPS.to("meta"))
    assert not any(served)
    del served[:]
    model(CHAINS, STEPS)
    assert all(served)


def test_numbers_are_those_of_the_call(own_model, binds):
    before = outcome(own_model)
    with torch.no_grad():
        own_model.w.weight.mul_(2)
    recalled, expected = outcomes(own_model, x=3 * inputs())
    assert same(recalled, expected)
    assert not torch.equal(recalled[0], before[0])
    assert not binds


def test_outputs_of_roots(model, binds):
    model(BATCH, x=inputs(), outputs=BATCH.roots)
    del binds[:]
    h = model(BATCH, x=inputs(), outputs=BATCH.roots).h
    assert not binds
    assert torch.equal(h, model(BATCH, x=inputs()).h[BATCH.roots])


class TwoOutputs(vf.VertexFunction):
    def vertex(self, v):
        h = v.pull("x") + v.gather(0).h - v.gather(1).h
        v.scatter(h=h)
        v.push(h=h, y=2 * h)


def test_outputs_of_vertices_by_their_names(binds):
    model, some = TwoOutputs(state={"h": 3}), torch.tensor([2, 0])
    whole = model(BATCH, x=inputs())
    calls = [{"h": some}, {"y": some}, {"h": some, "y": some}, {"h": some, "y": BATCH.roots}, {}, some, None]
    for _ in range(2):
        for outputs in calls:
            for again in range(2):
                del binds[:]
                out = model(BATCH, x=inputs(), outputs=outputs)
                assert bool(binds) is not again
                by_name = outputs if isinstance(outputs, dict) else {} if outputs is None else {"h": some, "y": some}
                for name, value in whole.items():
                    assert torch.equal(out[name], value[by_name[name]] if name in by_name else value)
    with pytest.raises(vf.InputError, match="outputs has vertices for ''"):
        model(BATCH, x=inputs(), outputs={"": some})


def test_four_kinds_of_calls_by_turns_are_bound_once_each(model, binds):
    calls = [None, BATCH.roots, BATCH.leaves, torch.tensor([2])]
    for outputs in calls:
        model(BATCH, x=inputs(), outputs=outputs)
    del binds[:]
    for outputs in calls * 2:
        assert torch.equal(
            model(BATCH, x=inputs(), outputs=outputs).h,
            model(BATCH, x=inputs()).h[slice(None) if outputs is None else outputs],
        )
    assert not binds


def test_vertices_on_a_device_are_compared_by_identity():
    """Their numbers are not read, which would wait; those of a batch are not changed."""
    batch = vf.pack([vf.chain(3)])
    some = torch.arange(2, device="meta")
    assert not recall._can_be_compared(some, batch)
    batch.__dict__["roots"] = some
    assert recall._can_be_compared(some, batch)
    assert recall._are_the_same(some, some)
    assert not recall._are_the_same(some, some.clone())


def test_outputs_whose_memory_has_other_numbers(model, binds):
    memory = np.array([5, 0, 2])
    wanted = torch.from_numpy(memory)  # whose changes nobody notices but who reads it
    model(BATCH, x=inputs(), outputs=wanted)
    memory[0] = 1
    torch.testing.assert_close(model(BATCH, x=inputs(), outputs=wanted).h, model(BATCH, x=inputs()).h[[1, 0, 2]])


def lazily_negative():
    return torch.complex(torch.zeros(BATCH.num_vertices, 3), -inputs()).conj().imag


def freed():
    x = inputs().clone()
    x.untyped_storage().resize_(0)
    return x


INPUTS = {
    "that requires grad": lambda: inputs(requires_grad=True),
    "of another dtype": lambda: inputs(dtype=torch.float64),
    "of more rows": lambda: torch.ones(BATCH.num_vertices + 1, 3),
    "of more columns": lambda: torch.ones(BATCH.num_vertices, 4),
    "that is no tensor": lambda: inputs().tolist(),
    "with other strides": lambda: inputs().t().contiguous().t(),
    "that is one row": lambda: torch.ones(1, 3).expand(BATCH.num_vertices, 3),
    "with a lazy negation": lazily_negative,
    "that is sparse": lambda: inputs().to_sparse(),
    "on the device meta": lambda: inputs().to("meta"),
    "without memory": freed,
    "that is a parameter": lambda: nn.Parameter(inputs()),
}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input(model, name):
    assert same(*outcomes(model, x=INPUTS[name]()))


@pytest.mark.parametrize("names", [("y",), ("x", "y"), ()])
def test_inputs_of_other_names(model, names):
    given = dict.fromkeys(names, inputs())
    with pytest.raises(VertexFlowError):
        model(BATCH, **given)


def replace_data(model):
    model.w.weight.data = model.w.weight.data.t().contiguous().t()


def wider(model):
    model.double()


def frozen(model):
    model.w.weight.requires_grad_(False)


def without_memory(model):
    model.w.weight.data.untyped_storage().resize_(0)


def backend(model):
    model.backend = "torch"


def parts(model):
    model.max_vertices = 3


def wide_states(model):
    model.state_dtype = torch.float64


def policy(model):
    model.policy = "height"


CHANGES = [replace_data, wider, frozen, without_memory, backend, parts, wide_states, policy]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.cases(2)
def test_a_change_of_the_model(own_model, change, binds):
    change(own_model)
    assert same(*outcomes(own_model))
    assert binds


def test_the_environment(model, monkeypatch, binds):
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")
    model(BATCH, x=inputs())
    assert binds
    assert "native" not in model.explain()


AROUND = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
}


@pytest.mark.parametrize("name", AROUND)
def test_what_is_around_a_call(model, name):
    with AROUND[name]():
        recalled, expected = outcomes(model)
        assert same(recalled, expected)
    assert recalled[0].dtype == expected[0].dtype
    assert same(*outcomes(model))


def test_another_dtype_of_autocast(model):
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            model(BATCH, x=inputs())
            assert same(*outcomes(model))


def test_another_default_dtype_is_seen(model, binds):
    torch.set_default_dtype(torch.float64)
    try:
        model(BATCH, x=inputs())
    finally:
        torch.set_default_dtype(torch.float32)
    assert model in binds


def test_another_batch_and_the_other_direction(model):
    for batch, arguments in ((OTHER, {}), (BATCH, {"reverse": True}), (BATCH, {})):
        assert same(*outcomes(model, batch, **arguments))


def test_transforms_are_served_and_forward_mode_is_refused(model):
    x = inputs()
    expected = torch.stack([model(BATCH, x=x).h, model(BATCH, x=2 * x).h])
    torch.testing.assert_close(torch.func.vmap(lambda x: model(BATCH, x=x).h)(torch.stack([x, 2 * x])), expected)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(VertexFlowError, match="dual"):
        model(BATCH, x=torch.autograd.forward_ad.make_dual(x, x))


def test_explain_tells_of_the_last_call(model):
    explained = []
    for gradients in (True, False, True):
        with torch.set_grad_enabled(gradients):
            model(BATCH, x=inputs())
        explained.append(model.explain())
    assert explained[0] == explained[2] != explained[1]


def test_batches_and_replaced_parameters_are_let_go(own_model):
    model = own_model
    batch, old = vf.pack([vf.chain(3)]), model.w.weight
    model(batch, x=torch.ones(3, 3))
    gone = weakref.ref(batch), weakref.ref(old)
    del batch, old
    model.w.weight = nn.Parameter(torch.ones_like(model.w.weight))
    model(BATCH, x=inputs())
    gc.collect()
    assert [each() for each in gone] == [None, None]
