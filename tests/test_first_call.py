"""The first call, in which a vertex function is traced, may happen anywhere, and leaves nothing behind."""

from __future__ import annotations

import copy
import os
import threading

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import vertexflow as vf

from .models import FromCode, TreeRNN
from .versions import FORKS, GENERATORS

GRAPHS = [vf.tree(((0, 1), 2)), vf.chain(3)]


def model_and_input(seed=0):
    torch.manual_seed(seed)
    return TreeRNN(3, 4).double(), torch.randn(8, 3, dtype=torch.float64, requires_grad=True)


def gradients(model, x):
    loss = model(GRAPHS, x=x).h.square().sum()
    return [loss.detach(), *torch.autograd.grad(loss, [x, *model.parameters()])]


@pytest.fixture(scope="module")
def expected():
    """The loss and the gradients of a model that was first called alone and in peace."""
    return gradients(*model_and_input())


def assert_untouched(model):
    for part in model.modules():
        for value in (*vars(part).values(), *part._parameters.values(), *part._buffers.values()):
            assert not isinstance(value, FakeTensor)


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_in_several_threads_at_once(backend, expected):
    model, x = model_and_input()
    model.backend = backend
    results, failures = [None] * 8, []
    start = threading.Barrier(len(results))

    def work(number):
        try:
            start.wait()
            for _ in range(3):
                results[number] = gradients(model, x)
        except BaseException as failure:  # or the thread would swallow it
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for values in results:
        torch.testing.assert_close(values, expected)
    assert len(model._programs.seen.version.traces) == 1
    assert_untouched(model)


def test_while_another_thread_uses_the_parameters(expected):
    """The one that traces does not put anything in their place."""
    model, x = model_and_input()
    strange, done = [], threading.Event()

    def look():
        while not done.is_set():
            strange.extend(type(value) for value in model.parameters() if type(value) is not nn.Parameter)

    watcher = threading.Thread(target=look)
    watcher.start()
    torch.testing.assert_close(gradients(model, x), expected)
    done.set()
    watcher.join()
    assert not strange


def no_grad(model, x):
    with torch.no_grad():
        model(GRAPHS, x=x)


def inference_mode(model, x):
    with torch.inference_mode():
        model(GRAPHS, x=x)


def anomaly(model, x):
    with torch.autograd.detect_anomaly(check_nan=True):
        gradients(model, x)


def checkpointed(model, x):
    checkpoint(lambda x: model(GRAPHS, x=x).h, x, use_reentrant=False).sum().backward()


def saved_on_cpu(model, x):
    with torch.autograd.graph.save_on_cpu():
        gradients(model, x)


def strict_hooks(model, x):
    def pack(tensor):
        assert not isinstance(tensor, FakeTensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        gradients(model, x)


def deterministic(model, x):
    torch.use_deterministic_algorithms(True)
    try:
        gradients(model, x)
    finally:
        torch.use_deterministic_algorithms(False)


def counting_flops(model, x):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False):
        gradients(model, x)


def in_a_forked_process(model, x):
    pid = os.fork()
    if not pid:
        try:
            gradients(model, x)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize(
    "first",
    [no_grad, inference_mode, anomaly, checkpointed, saved_on_cpu, strict_hooks, deterministic, counting_flops,
     pytest.param(in_a_forked_process, marks=FORKS)],
)  # fmt: skip
@pytest.mark.cases(2)
def test_first_in(first, expected):
    model, x = model_and_input()
    first(model, x)
    assert_untouched(model)
    model.zero_grad()
    x.grad = None
    torch.testing.assert_close(gradients(model, x), expected)


def test_checkpointed_gradients_are_right(expected):
    model, x = model_and_input()
    checkpoint(lambda x: model(GRAPHS, x=x).h, x, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close([x.grad, *(p.grad for p in model.parameters())], expected[1:])


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.cases(1)
def test_checkpointed_gradients_of_gradients_are_right(backend):
    """What is computed again saves what was saved at first, whatever became known of the model meanwhile."""

    def derivatives(run):
        model, x = model_and_input()
        model.backend, results = backend, []
        for _ in range(2):
            loss = run(lambda x: run(lambda h: model(GRAPHS, x=h).h, 2 * model(GRAPHS, x=x).h[:, :3]), x).square().sum()
            (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
            results += [gradient.detach(), *torch.autograd.grad(gradient.sin().sum(), [x, model.u.weight])]
        return results

    actual = derivatives(lambda function, x: checkpoint(function, x, use_reentrant=False))
    torch.testing.assert_close(actual, derivatives(lambda function, x: function(x)))


def test_while_parametrizations_are_cached():
    model, x = model_and_input()
    parametrize.register_parametrization(model.u, "weight", nn.Tanh())
    want = gradients(copy.deepcopy(model), x)
    with parametrize.cached():
        torch.testing.assert_close(gradients(model, x), want)
        assert not isinstance(model.u.weight, FakeTensor)
        torch.testing.assert_close(model.u.weight, model.u.parametrizations.weight.original.tanh())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("wrap", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
@pytest.mark.cases(1)
def test_a_power_iteration_is_refused_in_training(wrap):
    model, x = model_and_input()
    wrap(model.u)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(vf.VertexFunctionError, match=r"writes to|sets"):
        model(GRAPHS, x=x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()(GRAPHS, x=x).h.sum().backward()


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_what_is_first_read_without_gradient_has_one_later(guard):
    def vertex(self, v):
        with guard():
            limit = v.pull("x").detach().abs().amax(-1, keepdim=True) + v.gather(0).h.abs().amax(-1, keepdim=True) + 1
        h = self.linear(v.pull("x")) - limit + v.gather(0).h
        v.scatter(h=h)
        v.push(h=h)

    def plain(self, v):
        x, h = v.pull("x"), v.gather(0).h
        limit = (x.abs().amax(-1, keepdim=True) + h.abs().amax(-1, keepdim=True) + 1).detach()
        h = self.linear(x) - limit + h
        v.scatter(h=h)
        v.push(h=h)

    linear = nn.Linear(3, 3)
    x = torch.randn(4, 3, requires_grad=True)
    ours, theirs = (FromCode(method, {"h": 3}, linear=linear)([vf.chain(4)], x=x).h for method in (vertex, plain))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(h.square().sum(), [x, linear.weight]) for h in (ours, theirs)))


@GENERATORS
def test_random_numbers_go_on_as_if_nothing_had_been_traced():
    generator = torch.Generator().manual_seed(5)

    def vertex(self, v):
        v.push(y=torch.bernoulli(v.pull("x").sigmoid(), generator=generator))

    model = FromCode(vertex, {})
    before, own = torch.get_rng_state(), generator.get_state()
    y = model([vf.chain(1)] * 2, x=torch.zeros(2, 3)).y
    generator.set_state(own)
    assert torch.equal(torch.bernoulli(torch.full((2, 3), 0.5), generator=generator), y)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_failure_changes_nothing_and_the_next_call_works():
    class Failing(TreeRNN):
        fails = True

        def vertex(self, v):
            super().vertex(v)
            if self.fails:
                raise ValueError("not yet")

    torch.manual_seed(0)
    model = Failing(3, 4).double()
    x = torch.randn(8, 3, dtype=torch.float64)
    state = torch.get_rng_state()
    with pytest.raises(vf.VertexFunctionError, match="not yet"):
        model(GRAPHS, x=x)
    assert_untouched(model)
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    model.fails = False
    assert model(GRAPHS, x=x).h.shape == (8, 4)


def test_parameters_without_a_shape_are_refused():
    def vertex(self, v):
        v.push(y=self.linear(v.pull("x")))

    model = FromCode(vertex, {}, linear=nn.LazyLinear(3))
    with pytest.raises(vf.VertexFunctionError, match=r"linear\.weight.*no shape yet"):
        model([vf.chain(2)], x=torch.randn(2, 3))
