"""One way to write each operation: what small graphs become."""

from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

import vertexflow as vf
from vertexflow.graph.symbolic.passes.canonical import canonical
from vertexflow.graph.symbolic.passes.verify import check_canonical
from vertexflow.graph.symbolic.trace import Trace

from ....models import FromCode

aten = torch.ops.aten
ROWS = 5


def traced(function, width=6, dtype=torch.float64):
    """The graph of a function of x [n, width], with n symbolic, as a trace has it; it is pushed as y."""
    mode = FakeTensorMode(shape_env=ShapeEnv())
    rows = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC, DimDynamic.STATIC])
    x = mode.from_tensor(torch.empty(ROWS, width, dtype=dtype), symbolic_context=rows)
    with mode:
        graph = make_fx(function, tracing_mode="fake")(x).graph
    trace = Trace(graph, x.shape[0].node.expr, x.shape[0].node.expr, {}, {}, 0, "here")
    trace.pushes["y"] = next(iter(reversed(graph.nodes))).args[0]
    return trace


def becomes(function, **options):
    """The calls of PyTorch that the function's graph becomes; it computes the same to the bit, and is canonical."""
    trace = traced(function, **options)
    canonical(trace)
    (x,) = (node for node in trace.graph.nodes if node.op == "placeholder")
    trace.graph.output_node().args = (trace.pushes["y"],)
    trace.graph.eliminate_dead_code()
    trace.graph.lint()
    check_canonical(trace)
    given = torch.randn(3, *x.meta["val"].shape[1:]).to(x.meta["val"].dtype)
    result = fx.GraphModule(trace.graph.owning_module, trace.graph)(given)
    torch.testing.assert_close(result, function(given), rtol=0, atol=0)
    calls = [node for node in trace.graph.nodes if node.op == "call_function"]
    return [said(node) for node in calls if not isinstance(node.meta["val"], torch.SymInt)]


def said(node):
    """A call without the value that it is applied to: `slice 1 4 6 1`."""
    name = str(node.target).removeprefix("aten.").removesuffix(".default")
    if node.target is operator.getitem:
        return f"piece {node.args[1]}"
    first = 0 if node.target is aten.full.default else 1
    arguments = [text(argument) for argument in node.args[first:]]
    arguments += [f"{key}={value}" for key, value in node.kwargs.items() if key != "device"]
    return " ".join([name, *arguments])


def text(argument):
    """Sizes that depend on the number of rows are n, other values x."""
    if isinstance(argument, (list, tuple)):
        return f"[{' '.join(map(text, argument))}]"
    if isinstance(argument, fx.Node):
        return "n" if isinstance(argument.meta["val"], torch.SymInt) else "x"
    return str(argument)


def matrix(x):
    return x.view(-1, 2, 3)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x[:, -2:], ["slice.Tensor 1 4 6 1"]),
        (lambda x: x[..., :-1], ["slice.Tensor 1 0 5 1"]),
        (lambda x: x[:, -9:9], []),
        (lambda x: x[:, 4:2], ["slice.Tensor 1 4 4 1"]),
        (lambda x: x[:, 7:], ["slice.Tensor 1 6 6 1"]),
        (lambda x: x[:, ::2], ["slice.Tensor 1 0 6 2"]),
        (lambda x: x[:, -5::3], ["slice.Tensor 1 1 6 3"]),
        (lambda x: x.narrow(-1, -3, 2), ["slice.Tensor 1 3 5 1"]),
        (lambda x: x.tensor_split([1, -2], -1)[1], ["slice.Tensor 1 1 4 1"]),
        (lambda x: x[:], []),
        (lambda x: x[..., -1], ["select.int 1 5"]),
        (lambda x: x.select(-1, -6), ["select.int 1 0"]),
        (lambda x: x.unbind(-1)[-2], ["select.int 1 4"]),
        (lambda x: aten.slice_backward(x, [x.shape[0], 9], -1, -7, -1, 1), ["slice_backward [n 9] 1 2 8 1"]),
        (lambda x: aten.slice_backward(x, [x.shape[0], 6], 0, 0, 2**63 - 1, 1), []),
        (lambda x: aten.select_backward(x[:, 0], [x.shape[0], 3], -1, -1), ["select.int 1 0", "select_backward [n 3] 1 2"]),
        (lambda x: x.slice_scatter(x[:, :2], -1, -2), ["slice.Tensor 1 0 2 1", "slice.Tensor 1 0 4 1", "cat 1"]),
        (lambda x: x.slice_scatter(x.sin(), -1), ["sin"]),
        (lambda x: x.select_scatter(x[:, 1], -1, -6), ["select.int 1 1", "unsqueeze 1", "slice.Tensor 1 1 6 1", "cat 1"]),
    ],
)  # fmt: skip
@pytest.mark.cases(1)
def test_bounds(function, expected):
    assert becomes(function) == expected


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: torch.cat([x, x], -1), ["cat 1"]),
        (lambda x: torch.stack([x, x], -2), ["stack 1"]),
        (lambda x: x.unsqueeze(-1), ["unsqueeze 2"]),
        (lambda x: x.softmax(-1), ["_softmax 1 False"]),
        (lambda x: x.cumsum(-1).flip(-1).roll(-1, -1), ["cumsum 1", "flip [1]", "roll [-1] [1]"]),
        (lambda x: matrix(x).sum((-1, -2)), ["reshape [-1 2 3]", "sum.dim_IntList [2 1] False"]),
        (lambda x: matrix(x).mean(-1, keepdim=True), ["reshape [-1 2 3]", "mean.dim [2] True"]),
        (lambda x: x.amax(-1) + x.amin((-1,)), ["amax [1] False", "amin [1] False", "add.Tensor x"]),
        (lambda x: torch.diag_embed(x, dim1=-1, dim2=-3), ["diag_embed 0 2 0"]),
        (lambda x: matrix(x).diagonal(-1, -1, -2), ["reshape [-1 2 3]", "diagonal -1 2 1"]),
        (lambda x: x.index_select(-1, torch.tensor([0])), ["index_select 1 x"]),
        (lambda x: x.sum(), ["sum.dim_IntList [0 1] False"]),
        (lambda x: x.sum([]), ["sum.dim_IntList [0 1] False"]),
        (lambda x: x.mean(), ["mean.dim [0 1] False"]),
    ],
)
def test_dimensions(function, expected):
    assert becomes(function) == expected


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x.clone().detach().contiguous().to(x.dtype), []),
        (lambda x: x.float(), ["_to_copy dtype=torch.float32"]),
        (lambda x: x.view(x.shape[0], -1, 3), ["reshape [n 2 3]"]),
        (lambda x: x.view(-1, 6), []),
        (lambda x: matrix(x).mT.reshape(-1, 6), ["reshape [-1 2 3]", "permute [0 2 1]", "reshape [n 6]"]),
        (lambda x: matrix(x).mT.swapaxes(-1, 1).movedim(-1, 1), ["reshape [-1 2 3]", "permute [0 2 1]"]),
        (lambda x: x.t().t(), []),
        (lambda x: x.t(), ["permute [1 0]"]),
        (lambda x: x.expand(-1, 6), []),
        (lambda x: x[:, None].expand(-1, 2, -1), ["unsqueeze 1", "expand [-1 2 6]"]),
        (lambda x: x[:, None, :, None].squeeze((1, 2, -1)), ["unsqueeze 1", "unsqueeze 3", "squeeze.dims [1 3]"]),
        (lambda x: x[:, None, :, None].squeeze(), ["unsqueeze 1", "unsqueeze 3", "squeeze.dims [1 3]"]),
        (lambda x: x.squeeze(0).squeeze(-1), []),
        (lambda x: x.split(4, -1)[1], ["split_with_sizes [4 2] 1", "piece 1"]),
        (lambda x: x.chunk(4, -1)[2], ["split_with_sizes [2 2 2] 1", "piece 2"]),
        (lambda x: torch.cat([x[:, :0], x, x[:, 6:]], 1), []),
        (lambda x: torch.cat([x], -1), []),
        (lambda x: aten.mul.Scalar(aten.add.Scalar(x, 1, 2), 3), ["add.Tensor 1 alpha=2", "mul.Tensor 3"]),
        (lambda x: torch.sub(x, 1) + 0, ["sub.Tensor 1", "add.Tensor 0"]),
        (lambda x: x.clamp_min(0).clamp_max(1), ["clamp 0 None", "clamp None 1"]),
        (lambda x: x * torch.zeros_like(x), ["full [n 6] 0 dtype=torch.float64", "mul.Tensor x"]),
        (lambda x: aten.fill.Scalar(x, 3), ["full [n 6] 3 dtype=torch.float64"]),
        (lambda x: x.new_ones(x.shape[0]), ["full [n] 1 dtype=torch.float64"]),
        (lambda x: x.masked_fill(x > 0, 2), ["gt.Scalar 0", "full [] 2 dtype=torch.float64", "where.self x x"]),
        (
            lambda x: F.prelu(x, x.new_full((6,), 0.5)),
            ["full [6] 0.5 dtype=torch.float64", "reshape [1 6]", "gt.Scalar 0", "mul.Tensor x", "where.self x x"],
        ),
        (
            lambda x: aten.copy(x, x[:, :1].float()),
            ["slice.Tensor 1 0 1 1", "_to_copy dtype=torch.float32", "_to_copy dtype=torch.float64", "expand [n 6]"],
        ),
    ],
)  # fmt: skip
@pytest.mark.cases(1)
def test_aliases(function, expected):
    assert becomes(function) == expected


@pytest.mark.parametrize(
    "call",
    [
        lambda graph, x: graph.call_function(aten.slice.Tensor, (x, 1, -2, 6, 1)),
        lambda graph, x: graph.call_function(aten.slice.Tensor, (x, 1, 3, 2, 1)),
        lambda graph, x: graph.call_function(aten.slice.Tensor, (x, 1, 0, 7, 1)),
        lambda graph, x: graph.call_function(aten.slice.Tensor, (x, 1, 0, 2)),
        lambda graph, x: graph.call_function(aten.select.int, (x, 1, -1)),
        lambda graph, x: graph.call_function(aten.cat.default, ([x, x], -1)),
        lambda graph, x: graph.call_function(aten.sum.dim_IntList, (x, [-1], False)),
        lambda graph, x: graph.call_function(aten.t.default, (x,)),
    ],
)
def test_what_is_not_canonical_is_refused(call):
    trace = traced(lambda x: x)
    x, output = trace.graph.nodes
    with trace.graph.inserting_before(output):
        node = call(trace.graph, x)
    node.meta["val"] = node.target(*fx.node.map_arg(node.args, lambda argument: argument.meta["val"]))
    with pytest.raises(vf.VertexFunctionError, match="defect of vertexflow"):
        check_canonical(trace)


def test_where_values_lie_in_memory_is_not_the_users():
    def vertex(self, v):
        h = torch.tanh(v.gather(0).h + v.pull("x"))
        v.scatter(h=h)
        v.push(y=h.detach().as_strided((h.shape[0], 2), (4, 1)))

    with pytest.raises(vf.VertexFunctionError, match=r"where values lie in memory(.|\n)*as_strided\(\(h.shape"):
        FromCode(vertex, {"h": 4})([vf.chain(2)], x=torch.randn(2, 4))
