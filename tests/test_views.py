"""Views, pieces and rearrangements of one vertex's values, in every part of a vertex function and on every backend."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from .agreement import check
from .kernels.lower.parts import check_parts
from .models import FromCode
from .strategies import PARTS, ROWS, Case

SIZE = 6  # of the state: a 2 by 3 matrix as well


def matrix(h):
    return h.view(-1, 2, 3)


def square(h):
    return h[:, :4].view(-1, 2, 2)


# Those of a group are in one vertex function. `HAVE` says which groups generated code has; others run through PyTorch.
SLICES = {
    "the last two": lambda h: h[:, -2:],
    "all but the last": lambda h: h[..., :-1],
    "more than there are": lambda h: h[:, -9:9],
    "of a slice": lambda h: h[:, -5:-1][:, 1:][..., -2:],
    "last element": lambda h: h[..., -1],
    "last column": lambda h: h[:, -1:],
    "select": lambda h: matrix(h).select(-1, -3).select(-1, -1),
    "row of a matrix": lambda h: matrix(h)[:, -1, :-1],
    "narrow": lambda h: torch.narrow(h, -1, 1, 2) + h.narrow(1, -2, 2),
    "all rows": lambda h: h[:][..., :],
}
PIECES = {
    "uneven chunks": lambda h: h.chunk(4, -1)[-1] - h.chunk(4, 1)[0],
    "split": lambda h: h.split(4, -1)[1],
    "split by a list": lambda h: torch.mul(*h.split([2, 1, 1, 2], -1)[::3]),
    "tensor_split": lambda h: torch.cat(h.tensor_split(4, -1)[2:], -1),
    "tensor_split by a list": lambda h: torch.cat(h.tensor_split([1, -2], 1)[::2], 1),
    "three beside each other": lambda h: torch.cat([h[:, -1:], h, h[:, :2]], -1),
    "a single one": lambda h: torch.cat([h], -1),
    "prelu": lambda h: F.prelu(h, h.new_full((1,), 0.25)),
    "masked_fill": lambda h: h.masked_fill(h > 0.1, 2.0),
    "numbers": lambda h: torch.sub(torch.add(h, 1, alpha=2), 3, alpha=0.5) - torch.rsub(h, 2, alpha=3),
}
DIMENSIONS = {
    "a dimension more": lambda h: h[:, :, None],
    "one less": lambda h: h[:, None, :, None].squeeze(-1).squeeze(-2),
    "several that are one": lambda h: h[:, None, :, None].squeeze((1, -1, 2)),
    "expand": lambda h: h[:, None].expand(-1, 2, -1),
    "expand to the same": lambda h: h.expand(-1, SIZE),
    "expand_as": lambda h: h[..., -1:].expand_as(h) * h,
    "mT": lambda h: matrix(h).mT,
    "transpose": lambda h: matrix(h).transpose(-2, -1).transpose(1, -1),
    "permute": lambda h: h.view(-1, 1, 2, 3).permute(0, -1, 1, -2),
    "movedim": lambda h: matrix(h)[:, None].movedim(-1, 1).swapaxes(-1, -2),
    "unflatten": lambda h: h.unflatten(-1, (3, -1)).flatten(-2),
    "sums": lambda h: matrix(h).sum(-1) + matrix(h).mean((-2, -1), keepdim=True)[..., 0],
    "einsum": lambda h: torch.einsum("ni,nj->nij", h[:, :2], h),
}
JOINED = {
    "unbind": lambda h: matrix(h).unbind(-1)[-1] * matrix(h).unbind(2)[0],
    "stack": lambda h: torch.stack([h, -h], -1),
    "stack in front": lambda h: torch.stack([h, -h], -2),
    "rows of matrices": lambda h: torch.cat([matrix(h), matrix(h), matrix(h).sin()], -2),
    "single columns": lambda h: torch.column_stack([h.sum(-1), h[:, 0], h.amax(-1)]),
    "columns of matrices": lambda h: torch.cat([matrix(h), matrix(h).sin()], -1),
    "softmax": lambda h: matrix(h).softmax(-2) + matrix(h).log_softmax(-1),
}
REARRANGED = {
    "none": lambda h: h[:, 3:3],
    "none, backwards": lambda h: torch.cat([h[:, 4:2], h[:, -1:-4], h[:, :1], h[:, 6:].sin()], -1),
    "every second": lambda h: h[:, 1::2].clone(),
    "flip": lambda h: h.flip(-1),
    "roll": lambda h: h.roll(-2, -1),
    "columns by a list": lambda h: h[:, [0, -2, 2]],
    "index_select": lambda h: h.index_select(-1, torch.tensor([5, 0, 0])),
    "unfold": lambda h: h.unfold(-1, 3, 2),
    "every third": lambda h: h[:, ::3],
    "repeat": lambda h: h.repeat(1, 2) + h.tile(2),
    "repeat_interleave": lambda h: h.repeat_interleave(2, -1),
    "pad": lambda h: F.pad(h, (-1, 2)),
}
OTHERS = {
    "select_scatter": lambda h: h.select_scatter(h[:, 0] * 2, -1, -1),
    "slice_scatter": lambda h: h.slice_scatter(h[:, :2], -1, -3, -1),
    "slice_scatter of all": lambda h: h.slice_scatter(h.sin(), -1),
    "tril": lambda h: matrix(h).tril(-1) + matrix(h).triu(1),
    "diagonal": lambda h: matrix(h).diagonal(-1, -2, -1),
    "diag_embed": lambda h: torch.diag_embed(h[:, :2], dim1=-1, dim2=1),
    "gather": lambda h: h.gather(-1, h.argsort(-1, descending=True)),
    "sort": lambda h: h.sort(-1).values + h.topk(3, -1).values.sum(-1, keepdim=True),
    "extremes": lambda h: matrix(h).amax(-1) + matrix(h).max(-2).values.sum(-1, keepdim=True) + h.amin((-1,))[:, None],
    "glu": lambda h: F.glu(h, -1),
    "instance_norm": lambda h: F.instance_norm(matrix(h)),
}
# In place, by the user or in PyTorch's derivatives: the graph is traced a second time without that.
WRITTEN = {
    "written into": lambda h: written_into(h),
    "clamps": lambda h: h.clamp_min(-0.3) + h.clamp_max(0.2) + h.clamp(-0.1, 0.4),
}
MORE_WRITTEN = {
    "filled": lambda h: filled(h),
    "cumulated": lambda h: h.cumsum(-1) + h.logcumsumexp(-1) + h.cumprod(1),
    "spread": lambda h: matrix(h).var(-1) + matrix(h).logsumexp(-1) + matrix(h).norm(dim=-1),
}
GROUPS = {
    "slices": SLICES,
    "pieces": PIECES,
    "dimensions": DIMENSIONS,
    "joined": JOINED,
    "rearranged": REARRANGED,
    "others": OTHERS,
    "written": WRITTEN,
    "more written": MORE_WRITTEN,
}
HAVE = {
    "native": ["slices", "pieces", "dimensions", "written"],
    "triton": ["slices", "pieces", "dimensions", "joined", "written"],
    "loops": ["slices", "pieces", "dimensions", "joined", "written"],  # as the interpreter runs them
}


def written_into(h):
    h = h.clone()
    h[:, -1] = h[:, 0]
    h[..., :-2] += 1
    h[:, 1:3] *= 2
    return h


def filled(h):
    h = h.clone()
    h[:, 3] = 0
    h[:, 1:3].fill_(2)
    return h


def function_of(expressions):
    """Each expression of what is gathered and of an input goes into the state; of the state, it is pushed."""

    def weighted(self, value):
        value = value.flatten(1) if value.dim() > 1 else value[:, None]
        return (value * self.weight[: value.shape[1]]).sum(-1, keepdim=True)

    def vertex(self, v):
        left, x = v.gather(0).h, v.pull("x")
        total = x - v.gather(1).h
        for expression in expressions.values():
            total = total + weighted(self, expression(left)) * weighted(self, expression(x))
        h = torch.tanh(total)
        v.scatter(h=h)
        v.push(**{name.replace(" ", "_").replace(",", ""): expression(h) for name, expression in expressions.items()})

    weight = nn.Parameter(torch.linspace(-0.3, 0.4, 4 * SIZE))
    return FromCode(vertex, {"h": SIZE}, weight=weight).double()


@pytest.fixture(autouse=True)
def _poisoned():
    """Memory that nobody has written to is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.cases(1)
def test_an_expression_gives_for_each_vertex_what_it_gives_by_itself(group):
    model = function_of(GROUPS[group])
    case = Case(model, PARTS, {"x": torch.randn(ROWS, SIZE, dtype=torch.float64, requires_grad=True)})
    expected = check(case, "torch")
    if group in HAVE["native"]:
        check(case, "native", expected=expected)
        assert "core: calls of PyTorch" not in model.explain(), model.explain()
    if group in HAVE["loops"]:
        assert "core" in check_parts(model.symbolic_graph.programs["vertex"])


@pytest.mark.parametrize(
    "group", [name if name == "joined" else pytest.param(name, marks=pytest.mark.slow) for name in HAVE["triton"]]
)
@pytest.mark.slow
def test_so_does_one_in_triton_kernels(group, interpreter):
    """Of the same loops; "joined" is what native code has not."""
    model = function_of(GROUPS[group])
    check(Case(model, PARTS, {"x": torch.randn(ROWS, SIZE, dtype=torch.float64, requires_grad=True)}), "triton")
    assert "core: calls of PyTorch" not in model.explain(), model.explain()


@pytest.mark.slow
def test_what_generated_code_has_not_runs_through_pytorch_beside_it(backends):
    functions = {
        "tail": SLICES["the last two"],
        "sorted": lambda h: h.sort(-1).values,
        "largest": lambda h: h.topk(2).values,
    }
    model, expected = function_of(functions), None
    case = Case(model, PARTS, {"x": torch.randn(ROWS, SIZE, dtype=torch.float64, requires_grad=True)})
    for backend in backends[1:]:
        expected = check(case, backend, expected=expected)
        assert "calls of PyTorch" in model.explain()
