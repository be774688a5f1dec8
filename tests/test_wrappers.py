"""What PyTorch wraps around modules works around models: right numbers and gradients, or a sentence that says no."""

from __future__ import annotations

import copy
import functools
import inspect
import io
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils import _pytree as pytree
from torch.utils import checkpoint

import vertexflow as vf

from .models import TreeRNN

GRAPHS = [vf.tree(((0, 1), 2)), vf.chain(3)]


def model_and_input(backend="torch"):
    torch.manual_seed(0)
    model = TreeRNN(3, 4).double()
    model.backend = backend
    return model, torch.randn(8, 3, dtype=torch.float64, requires_grad=True)


def loss_and_gradients(model, x):
    loss = model(GRAPHS, x=x).h.square().sum()
    return [loss.detach(), *torch.autograd.grad(loss, [x, *model.parameters()])]


@pytest.fixture(scope="module")
def expected():
    """The loss and the gradients of a model that nothing is wrapped around."""
    return loss_and_gradients(*model_and_input("eager"))


@pytest.fixture
def dynamo():
    """TorchDynamo as if nothing had been compiled."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def whole(model, batch, x):
    out = model(batch, x=x * 2)
    out.double = out.h * 2
    return (batch.sum(out.double) * x[:2, :1]).sum() + (out["h"][batch.roots] * x[:2, 1:2]).sum()


def grown(model, batch, x):
    run = model.start(x=x * 2)
    new = run.extend([[0, 1], [8, 3]])
    return (run[new].h * x[:2, :1]).sum()


def packed(model, batch, x):
    again = vf.pack([vf.graph(3, [(0, 2), (1, 2)]), *GRAPHS[1:], vf.tree((0,))])
    return (model(again, x=x * 2).h * x[:, :1]).sum()


OURS = {whole: 2, grown: 3, packed: 4}


@pytest.mark.parametrize(
    ("backend", "function"), [("eager", whole), ("eager", grown), ("aot_eager", whole), ("aot_eager", packed)]
)
@pytest.mark.cases(1)
def test_inside_compiled_code(function, backend, dynamo):
    """A break for each call of ours, of which nothing is compiled, nor anything again when inputs and graphs change."""
    model, x = model_and_input()
    compiled = torch.compile(function, backend=backend)
    for call in range(4):
        batch = vf.pack(GRAPHS[:: -1 if call % 2 else 1])
        x = torch.randn_like(x, requires_grad=True)
        wanted = [x, *model.parameters()]
        got = compiled(model, batch, x)
        gradients = torch.autograd.grad(got, wanted)
        if not call:
            frames = dict(counters["frames"])
            breaks = "".join(counters["graph_break"])
            assert all(count == 1 for count in counters["graph_break"].values())
            assert (
                breaks.count("vertexflow compiles what it computes itself")
                == len(counters["graph_break"])
                == OURS[function]
            )
        assert dict(counters["frames"]) == frames
        want = function(model, batch, x)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(gradients, torch.autograd.grad(want, wanted))


def test_compiled_code_without_a_break_is_refused_with_a_reason(dynamo):
    model, x = model_and_input()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="vertexflow compiles what it computes itself"):
        torch.compile(whole, backend="eager", fullgraph=True)(model, vf.pack(GRAPHS), x)


@pytest.mark.skipif(
    not hasattr(torch._C._dynamo.eval_frame, "set_fullgraph_compiled_frame_count"),
    reason="this PyTorch takes a model of which nothing is compiled for a whole graph",
)
@pytest.mark.parametrize("compiled", [torch.compile, lambda model, **options: model.compile(**options) or model])
def test_a_model_that_shall_be_a_whole_graph_itself_is_refused_by_name(compiled, dynamo):
    model, x = model_and_input()
    plain = copy.deepcopy(model)
    with pytest.raises(vf.VertexFunctionError, match=r"fullgraph=True.* was given TreeRNN"):
        compiled(model, backend="eager", fullgraph=True)(GRAPHS, x=x)
    compiles = torch.compile(lambda x: x * 2, backend="eager", fullgraph=True)
    for _ in range(2):  # what is around it, and the model beside it, are left as they were
        torch.testing.assert_close(plain(GRAPHS, x=compiles(x)).h, plain(GRAPHS, x=2 * x).h)


@pytest.mark.slow
def test_a_compiled_model(expected, dynamo):
    model, x = model_and_input()
    plain = copy.deepcopy(model)
    model.compile(backend="eager")
    outside = torch.compile(plain, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(loss_and_gradients(model, x), expected)
        torch.testing.assert_close(loss_and_gradients(outside, x), expected)
    assert counters["frames"]["total"] == 0
    assert list(model.state_dict()) == list(plain.state_dict())
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(loss_and_gradients(again, x), expected)


def compile_in_place(model):
    model.u.compile(backend="eager")


def compile_around(model):
    model.u = torch.compile(model.u, backend="eager")


@pytest.mark.parametrize("change", [compile_in_place, compile_around])
def test_submodules_that_are_compiled(change, expected, dynamo):
    """In a trace they are what they were; with backend="eager" they run as they are."""
    model, x = model_and_input()
    change(model)
    torch.testing.assert_close(loss_and_gradients(model, x), expected)
    model.backend = "eager"
    torch.testing.assert_close(loss_and_gradients(model, x), expected)


class Tuple(nn.Module):
    """What a model gives, as the tuple that PyTorch's hooks are made for."""

    def __init__(self, model):
        super().__init__()
        object.__setattr__(self, "model", model)

    def forward(self, *args, **kwargs):
        return tuple(self.model(*args, **kwargs).values())


class TwoOutputs(TreeRNN):
    def vertex(self, v):
        super().vertex(v)
        v.push(count=v.num_children, twice=2 * v.pull("x"))


def gru(seed):
    torch.manual_seed(seed)
    return vf.nn.GRU(3, 4, backend="torch").double(), {"x": torch.ones(7, 3, dtype=torch.float64, requires_grad=True)}


def two_outputs(seed):
    torch.manual_seed(seed)
    return TwoOutputs(3, 4).double(), {"x": torch.ones(7, 3, dtype=torch.float64, requires_grad=True)}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("make", [two_outputs, gru])
@pytest.mark.cases(1)
def test_backward_hooks_are_called_as_for_a_tuple_of_the_outputs(make, everywhere):
    """They see the same gradients, and what they return counts."""

    def run(wrap):
        model, inputs = make(0)
        model.backend = "torch"
        module, seen = wrap(model), []

        def before(module_, grads):
            if module_ is module:
                seen.append(("before", *grads))
                return tuple(None if grad is None else 2 * grad for grad in grads)

        def after(module_, grad_inputs, grad_outputs):
            if module_ is module:
                seen.append((*grad_inputs, *grad_outputs))
                return tuple(None if grad is None else 3 * grad for grad in grad_inputs)

        scope = nn.modules.module
        if everywhere:
            handles = [
                scope.register_module_full_backward_pre_hook(before),
                scope.register_module_full_backward_hook(after),
            ]
        else:
            handles = [module.register_full_backward_pre_hook(before), module.register_full_backward_hook(after)]
        graphs, x = [vf.chain(4), vf.chain(3)], inputs["x"]
        try:
            out = module(graphs, x) if make is gru else module(graphs, **inputs)
            kept = out if wrap is Tuple else tuple(out.values())
            assert wrap is Tuple or type(out) is vf.Outputs
            sum((value * value).sum() for value in kept if value.requires_grad).backward()
        finally:
            for handle in handles:
                handle.remove()
        assert [len(call) for call in seen] == [1 + len(kept), (2 if make is gru else 1) + len(kept)]
        return seen, [x.grad, *(weight.grad for weight in model.parameters())]

    ours, theirs = run(lambda model: model), run(Tuple)
    assert [[value is None for value in call] for call in ours[0]] == [[v is None for v in call] for call in theirs[0]]
    flat = lambda calls: [value for call in calls for value in call if isinstance(value, torch.Tensor)]  # noqa: E731
    torch.testing.assert_close(flat(ours[0]), flat(theirs[0]))
    torch.testing.assert_close(ours[1], theirs[1])


def _save_products(context, operation, *args, **kwargs):
    policy = checkpoint.CheckpointPolicy
    return policy.MUST_SAVE if operation is torch.ops.aten.mm.default else policy.PREFER_RECOMPUTE


@pytest.mark.parametrize(
    "options",
    [
        {"use_reentrant": True},
        {"use_reentrant": False},
        {
            "use_reentrant": False,
            "context_fn": functools.partial(checkpoint.create_selective_checkpoint_contexts, _save_products),
        },
    ],
)
@pytest.mark.cases(1)
def test_first_and_later_calls_in_checkpoints(options, expected):
    model, x = model_and_input()
    for _ in range(2):
        loss = checkpoint.checkpoint(lambda x: model(GRAPHS, x=x).h, x, **options).square().sum()
        model.zero_grad()
        x.grad = None
        loss.backward()
        torch.testing.assert_close([loss.detach(), x.grad, *(weight.grad for weight in model.parameters())], expected)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("backend", ["torch", "eager"])
@pytest.mark.parametrize("directly", [True, False])
def test_a_mapping_out_of_a_reentrant_checkpoint_is_refused_where_its_gradient_would_be_missing(directly, backend):
    """PyTorch gives tensors a gradient there only if they are returned alone or in a tuple."""

    class Positional(TreeRNN):
        def forward(self, graphs, x):
            return super().forward(graphs, x=x)

    torch.manual_seed(0)
    model, x = Positional(3, 4), torch.randn(8, 3, requires_grad=True)
    model.backend = backend
    function = model if directly else lambda graphs, x: model(graphs, 2 * x)
    out = checkpoint.checkpoint(function, GRAPHS, x, use_reentrant=True)
    assert repr(out)
    for read in (lambda: out.h, lambda: out["h"], lambda: list(out.values()), lambda: {**out}["h"], out.items,
                 lambda: out.get("h"), lambda: pytree.tree_leaves(out)):  # fmt: skip
        with pytest.raises(vf.VertexFunctionError, match="use_reentrant=False"):
            read()
    with torch.no_grad():
        assert out.h.shape == (8, 4)
    model.requires_grad_(False)
    out = checkpoint.checkpoint(model, GRAPHS, x.detach(), use_reentrant=True)
    assert out.h.shape == (8, 4)


def test_a_model_can_be_looked_through_before_its_first_call():
    model, _ = model_and_input()
    assert not hasattr(model, "symbolic_graph")
    assert "symbolic_graph" not in dict(inspect.getmembers(model))
    for kind in (AttributeError, vf.VertexFunctionError):
        with pytest.raises(kind, match="no symbolic graph yet: it is traced at the model's first call"):
            model.symbolic_graph  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        model.nothing  # noqa: B018


def test_whole_models_are_copied_and_saved(expected):
    model, x = model_and_input()
    loss_and_gradients(model, x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for again in (copy.deepcopy(model), copy.copy(model), torch.load(file, weights_only=False), nn.DataParallel(model)):
        torch.testing.assert_close(loss_and_gradients(again, x), expected)


def test_hooks_on_a_model_change_what_goes_in_and_out(expected):
    def run(backend):
        model, x = model_and_input(backend)
        model.register_forward_pre_hook(lambda m, args, named: (args, {**named, "x": named["x"] * 2}), with_kwargs=True)
        model.register_forward_hook(lambda m, args, out: vf.Outputs(h=out.h * 3))
        return loss_and_gradients(model, x)

    torch.testing.assert_close(run("torch"), run("eager"))
    assert not torch.allclose(run("torch")[0], expected[0])
