"""Random vertex functions as generated Triton kernels, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import nn

import vertexflow as vf
from vertexflow.kernels.triton.tiles import ACROSS

from ...agreement import check
from ...budget import tries
from ...choosing import choosing_cases
from ...hyper import hyper_cases
from ...models import FromCode
from ...ragged import ragged_cases
from ...strategies import OPERATIONS, Case, Structure, cases

HAS = sorted(OPERATIONS)
FEW_EXAMPLES = tries(3)  # the interpreter is slow

pytestmark = pytest.mark.usefixtures("interpreter")


def check_kernels(case):
    """The case agrees, and its cores are kernels."""
    case.model.backend = "triton"
    check(case)
    assert "core: calls of PyTorch" not in case.model.explain(), case.model.explain()


@FEW_EXAMPLES
@given(cases(HAS))
@pytest.mark.slow
def test_of_few_elements(case):
    check_kernels(case)


@FEW_EXAMPLES
@given(cases(HAS, size=36))
@pytest.mark.slow
def test_of_more_elements_than_tiles_are_multiples_of(case):
    check_kernels(case)


@pytest.mark.slow
@FEW_EXAMPLES
@given(choosing_cases())
def test_that_choose_by_which_children_there_are(case):
    check_kernels(case)


@pytest.mark.slow
@FEW_EXAMPLES
@given(ragged_cases(HAS))
def test_of_any_number_of_children(case):
    check_kernels(case)


@FEW_EXAMPLES
@given(ragged_cases(HAS, size=36))
@pytest.mark.slow
def test_of_any_number_of_children_and_more_elements(case):
    check_kernels(case)


@FEW_EXAMPLES
@given(hyper_cases(HAS))
@pytest.mark.slow
def test_of_arcs(case):
    check_kernels(case)


def test_of_a_value_that_another_part_made_with_its_vertices_in_the_last_dimension():
    def vertex(self, v):
        h = torch.tanh(v.gather(0).h + (self.weight @ v.pull("x").t()).t())
        v.scatter(h=h)
        v.push(h=h)

    torch.manual_seed(0)
    model = FromCode(vertex, {"h": 4}, weight=nn.Parameter(torch.randn(4, 4))).double()
    model.backend = "triton"
    check(Case(model, [Structure(3, [(0, 1, 0), (1, 2, 0)])], {"x": torch.randn(3, 4).double().requires_grad_()}))
    assert "vertex.core: Triton kernels" in model.explain(), model.explain()


def test_inputs_and_outputs_may_be_called_anything():
    def vertex(self, v):
        h = torch.tanh(v.gather(0).h + v.pull("2 x") * v.pull("2.x") - v.sum(v.children.pull("of an edge")))
        v.scatter(h=h)
        v.push(**{"layer.0": h * 2, "layer 0": h + 1, "class": -h, "0": h - 2})

    torch.manual_seed(0)
    model = FromCode(vertex, {"h": 4}).double()
    x, y, e = (torch.randn(rows, 4, dtype=torch.float64, requires_grad=True) for rows in (3, 3, 2))
    parts = [Structure(3, [(0, 1, 0), (1, 2, 0)])]
    check_kernels(Case(model, parts, {"2 x": x, "2.x": y}, edge_inputs={"of an edge": e}))


@pytest.mark.parametrize(("width", "launches"), [(ACROSS, 1), (ACROSS + 1, 2)])
def test_a_sum_is_taken_once_and_not_by_each_program_across_a_row(width, launches):
    def vertex(self, v):
        h = torch.tanh(v.gather(0).h + v.pull("x"))
        total = h.exp().sum(-1)
        v.scatter(h=h, total=total)
        v.push(total=total)

    model = FromCode(vertex, {"h": width, "total": ()})
    model.backend = "triton"
    x = torch.randn(3, width)
    total = model([vf.chain(3)], x=x).total
    assert f"vertex.core: Triton kernels, {launches} launch" in model.explain()
    h = torch.zeros(width)
    for row, ours in zip(x, total, strict=True):
        h = torch.tanh(h + row)
        torch.testing.assert_close(ours, h.exp().sum())


@pytest.mark.parametrize(("extent", "launches"), [(3, 2), (12, 4)])
@pytest.mark.slow
def test_a_product_of_products_is_not_of_all_their_factors_at_once(extent, launches):
    """The inner product is stored where each of its elements would be computed over and over."""

    def vertex(self, v):
        h = (v.gather(0).h + v.pull("x")).view(-1, extent, extent)
        h = torch.tanh(h @ torch.softmax(h @ h, -1)).flatten(1)
        v.scatter(h=h)
        v.push(h=h)

    torch.manual_seed(0)
    model = FromCode(vertex, {"h": extent * extent}).double()
    x = torch.randn(3, extent * extent).double().requires_grad_()
    check_kernels(Case(model, [Structure(3, [(0, 1, 0), (1, 2, 0)])], {"x": x}))
    assert f"vertex.core: Triton kernels, {launches} launch" in model.explain(), model.explain()
