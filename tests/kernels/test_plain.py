"""Tensors without memory of their own, or with more than it, are refused by name before anybody takes their address."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.masked import masked_tensor

import vertexflow as vf
from tests.models import FromCode, TreeRNN

BATCH = vf.pack([vf.tree(((0, 1), (2, 3))), vf.chain(4), vf.tree(0)])
MODEL = TreeRNN(3, 4)
X = torch.randn(BATCH.num_vertices, 3)


class Named(torch.Tensor):
    """A subclass that is no more than its memory."""


class Loud(torch.Tensor):
    """A subclass whose operations are its own."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        result = super().__torch_function__(func, types, args, kwargs or {})
        return -result if func is torch.Tensor.index_select else result


def freed(x: torch.Tensor) -> torch.Tensor:
    """As FSDP leaves a parameter between calls; its address is that of its offset."""
    x = torch.cat([x, x])[1 : 1 + len(x)]
    x.untyped_storage().resize_(0)
    return x


def kept(transform):
    """What a function under a transform of torch.func was given."""

    def leak(x: torch.Tensor) -> torch.Tensor:
        seen = []
        transform(lambda y: (seen.append(y), y.sum())[1])(x)
        return seen[0]

    return leak


REFUSED = {
    "fake": (lambda x: FakeTensorMode().from_tensor(x), "is a FakeTensor, .* give one with real values"),
    "meta": (lambda x: x.to("meta"), "on the device meta, without memory; .*to_empty"),
    "freed": (freed, "memory of .* was freed"),
    "sparse": (torch.Tensor.to_sparse, r"is a sparse_coo tensor; give an ordinary one, .to_dense\(\)"),
    "compressed": (torch.Tensor.to_sparse_csr, r"is a sparse_csr tensor; .* .to_dense\(\)"),
    "mkldnn": (torch.Tensor.to_mkldnn, r"is a mkldnn tensor; .* .to_dense\(\)"),
    "quantized": (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), r"is a quantized .* .dequantize\(\)"),
    "masked": (lambda x: masked_tensor(x, x > 0), r"is a MaskedTensor, .* x.to_tensor\(0\)"),
    "zeros": (lambda x: torch._efficientzerotensor(x.shape), "lazy tensor of zeros"),
    "subclass": (lambda x: x.as_subclass(Loud), "is a Loud, which is more than its memory"),
    "after vmap": (kept(torch.vmap), "wrapped by a transform of torch.func that has ended"),
    "after grad": (kept(torch.func.grad), "wrapped by a transform of torch.func that has ended"),
    "nested": (lambda x: torch.nested.nested_tensor(list(x)), "is a nested tensor; .* torch.cat"),
    "jagged": (lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged), r"a NestedTensor, .* x.values\(\)"),
}
pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch calls some of these prototypes


@pytest.mark.parametrize("case", REFUSED)
def test_tensors_that_are_not_plain_memory_are_refused_by_name(case):
    make, message = REFUSED[case]
    with pytest.raises(
        (vf.InputError, vf.InputTypeError), match=f"input 'x'.*{message}|{message}.*input 'x'|{message}"
    ):
        vf.VertexFunction.forward(_Anywhere(), BATCH, x=make(X))
    if case != "nested":  # which has no shape: PyTorch itself says so
        given = {name: value.detach() for name, value in MODEL.named_parameters()}
        given["u.weight"] = make(given["u.weight"])
        with pytest.raises((vf.InputError, vf.InputTypeError), match=message) as error:
            torch.func.functional_call(MODEL, given, (BATCH,), {"x": X})
        assert "parameter or buffer 'u.weight'" in str(error.value)


class _Anywhere(vf.VertexFunction):
    """Without parameters, hence on no device of its own."""

    def __init__(self):
        super().__init__(state={"h": 3})

    def vertex(self, v):
        h = torch.tanh(v.gather(0).h) + v.pull("x")
        v.scatter(h=h)
        v.push(h=h)


@pytest.mark.parametrize("case", ["sparse", "subclass", "freed"])
def test_initial_states_and_gradients_are_looked_at_too(case):
    make, message = REFUSED[case]
    model, chains = _Anywhere(), vf.pack([vf.chain(3)] * 4)
    with pytest.raises((vf.InputError, vf.InputTypeError), match=message):
        model(chains, x=X, initial={"h": make(torch.ones(4, 3))})
    x = X.clone().requires_grad_()
    for out in (model(chains, x=x).h, model.start(chains, x=x)[:].h):
        with pytest.raises((vf.InputError, vf.InputTypeError), match="sparse=False" if case == "sparse" else message):
            out.backward(make(torch.ones(12, 3)))
        assert x.grad is None


def test_a_tensor_of_the_vertex_function_whose_memory_was_freed():
    table = torch.ones(3)

    def vertex(self, v):
        v.push(y=v.pull("x") * table)

    model = FromCode(vertex, {})
    model([vf.graph(1, [])], x=torch.ones(1, 3))
    table.untyped_storage().resize_(0)
    with pytest.raises(vf.VertexFunctionError, match=r"memory of a tensor \[3\] .* was freed.*\n.*test_plain\.py"):
        model([vf.graph(1, [])], x=torch.ones(1, 3))


def of_x(x: torch.Tensor) -> torch.Tensor:
    return MODEL(BATCH, x=x).h


def grown(x: torch.Tensor) -> torch.Tensor:
    return MODEL.start(BATCH, x=x)[:].h.sum()


class _Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = MODEL

    def forward(self, x):
        return of_x(x)


def under_fake_tensors():
    with FakeTensorMode():
        of_x(torch.ones(BATCH.num_vertices, 3))


def forward_mode(grad: bool):
    with forward_ad.dual_level(), torch.set_grad_enabled(grad):
        of_x(forward_ad.make_dual(X, X))


def forward_mode_of_a_parameter():
    with forward_ad.dual_level(), torch.no_grad():
        weight = MODEL.u.weight.detach()
        given = {**dict(MODEL.named_parameters()), "u.weight": forward_ad.make_dual(weight, weight)}
        torch.func.functional_call(MODEL, given, (BATCH,), {"x": X})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: torch.func.functionalize(of_x)(X), "inside torch.func's transform functionalize"),
        (lambda: torch.func.grad(grown)(X), r"runs that grow .*inside torch.func's transforms .here: grad"),
        (lambda: forward_mode(True), "input 'x' is a dual tensor of torch.autograd.forward_ad, .*torch.func.jvp"),
        (lambda: forward_mode(False), "input 'x' is a dual tensor"),
        (forward_mode_of_a_parameter, "'u.weight' is a dual tensor"),
        (lambda: make_fx(of_x)(X), "under ProxyTorchDispatchMode"),
        (lambda: make_fx(of_x, tracing_mode="fake")(X), "under FakeTensorMode"),
        (lambda: make_fx(of_x, tracing_mode="symbolic")(X), "under FakeTensorMode"),
        (under_fake_tensors, "under FakeTensorMode"),
        (lambda: torch.export.export(_Around(), (X,)), "under FakeTensorMode"),
        (lambda: torch.export.draft_export(_Around(), (X,)), "under FakeTensorMode"),
        (lambda: torch.onnx.export(_Around(), (X,), io.BytesIO(), dynamo=False), "torch.jit.trace, nor by torch.onnx"),
        (lambda: torch.jit.trace(_Around(), (X,)), "torch.jit.trace"),
        (lambda: torch.jit.script(_Around()), "torch.jit.script"),
        (lambda: torch.fx.symbolic_trace(_Around()), "input 'x' is a Proxy"),
    ],
)
@pytest.mark.parametrize("traced", [False, True], ids=["first call", "later call"])
@pytest.mark.cases(1)
def test_who_records_or_changes_operations_is_refused(call, message, traced):
    global MODEL
    MODEL = TreeRNN(3, 4) if not traced else MODEL
    expected = of_x(X) if traced else None
    with pytest.raises(vf.VertexFlowError, match=message):
        call()
    if traced:
        assert torch.equal(of_x(X), expected)


def test_export_by_torch_dynamo_says_why_not():
    with pytest.raises(
        torch._dynamo.exc.Unsupported, match=r"compiles what it computes itself; do without .* torch\.export"
    ):
        torch.export.export(_Around(), (X,), strict=True)


def test_a_batch_among_the_inputs_is_refused_by_who_exports():
    """PyTorch looks at inputs before it calls anything; docs/wrappers.md tells what it says."""
    with pytest.raises(ValueError, match=r"Unsupported input type <class '.*GraphBatch'>"):
        torch.export.export(MODEL, (BATCH,), {"x": X})
    with pytest.raises(RuntimeError, match=r"Tracer cannot infer type of .*GraphBatch"):
        torch.jit.trace(MODEL, (BATCH, X))


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize(
    "make",
    [
        torch.clone,
        lambda x: x.t().contiguous().t(),
        lambda x: torch.stack([x, x], -1)[..., 1],
        lambda x: x[:1].expand(x.shape),
        lambda x: torch._neg_view(x),
        lambda x: torch.complex(x, x).conj().imag,  # in memory, it has the other sign
        lambda x: x.as_subclass(Named),
        nn.Parameter,
    ],
)
def test_what_is_memory_in_another_order_or_sign_counts_as_what_it_is(make, backend, monkeypatch):
    monkeypatch.setenv("VERTEXFLOW_BACKEND", backend)
    parameters = {name: value.detach() for name, value in MODEL.named_parameters()}

    def run(make, x, coming):
        given = {name: make(value).detach().requires_grad_() for name, value in parameters.items() if value.dim() == 2}
        x = make(x).detach().requires_grad_()
        h = torch.func.functional_call(MODEL, {**parameters, **given}, (BATCH,), {"x": x}).h
        return h, *torch.autograd.grad(h, [x, *given.values()], make(coming))

    coming = torch.randn(BATCH.num_vertices, 4)
    actual = run(make, X, coming)
    parameters = {name: make(value).clone() if value.dim() == 2 else value for name, value in parameters.items()}
    expected = run(torch.clone, make(X).detach().clone(), make(coming).detach().clone())
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.as_subclass(torch.Tensor), b.as_subclass(torch.Tensor))
