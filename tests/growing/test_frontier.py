"""A run that grows gives what one run over the whole structure gives: outputs and every gradient."""

from __future__ import annotations

import copy
import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf

from ..agreement import compare, join
from ..budget import tries
from ..models import FromCode, TreeRNN
from ..strategies import Case, cases


def children_first(count: int, edges: list[tuple[int, int, int]]) -> list[int]:
    order: list[int] = []
    while len(order) < count:
        order += [v for v in range(count) if v not in order and all(c in order for c, p, _ in edges if p == v)]
    return order


def grown(case: Case, cuts: list[int], reads: list[int]) -> dict[str, torch.Tensor]:
    """The outputs of a run to which the vertices were added in pieces; a read of a piece comes at once or later."""
    count, edges = join(case.parts)
    order = children_first(count, edges)
    number = {vertex: at for at, vertex in enumerate(order)}
    slots = max((slot for _, _, slot in edges), default=0) + 1
    children = np.full((count, slots), -1)
    for child, parent, slot in edges:
        children[number[parent], slot] = number[child]
    bounds = sorted({0, count, *(cut % count for cut in cuts)})
    run = case.model.start()
    pieces: list[dict[str, torch.Tensor]] = []
    waiting: list[torch.Tensor] = []
    for start, stop in itertools.pairwise(bounds):
        inputs = {name: value[order[start:stop]] for name, value in case.inputs.items()}
        waiting.append(run.extend(children[start:stop], **inputs))
        if reads[start % len(reads)]:
            pieces += [dict(run[piece]) for piece in waiting]
            waiting = []
    pieces += [dict(run[piece]) for piece in waiting]
    assert run.num_vertices == len(run) == count
    rows = torch.tensor([number[vertex] for vertex in range(count)])
    return {name: torch.cat([piece[name] for piece in pieces])[rows] for name in pieces[0]}


@tries(5)
@given(
    case=cases(),
    cuts=st.lists(st.integers(1, 20), max_size=4),
    reads=st.lists(st.integers(0, 1), min_size=1, max_size=5),
    data=st.data(),
)
def test_random_functions_over_random_structures_in_random_pieces(case, cuts, reads, data):
    case.reverse = False
    for parameter in case.model.parameters():
        parameter.requires_grad_(data.draw(st.integers(0, 4)) > 0)
    for backend in ("auto", "eager"):
        print(f"backend {backend}")
        case.model.backend = backend
        compare(case, grown(case, cuts, reads))


@functools.cache
def tree():
    """One for all tests that change nothing in it: it is traced once."""
    return TreeRNN(3, 4).double()


def test_it_begins_with_graphs_or_with_leaves_or_empty():
    model, x = tree(), torch.randn(5, 3, dtype=torch.float64)
    whole = model([vf.tree(((0, 1), 2))], x=x).h
    with_graph = model.start([vf.tree(((0, 1), 2))], x=x)
    with_leaves = model.start(x=x[:3])
    with_leaves.extend([[0, 1], [3, 2]], x=x[3:])
    empty = model.start()
    assert len(empty) == 0
    empty.extend([[-1, -1]] * 3 + [[0, 1], [3, 2]], x=x)
    for run in (with_graph, with_leaves, empty):
        torch.testing.assert_close(run[:].h, whole, rtol=1e-12, atol=1e-12)
        assert repr(run) == "Frontier(num_vertices=5)"


def test_gradients_reach_what_came_first_when_nothing_later_wants_any():
    """All parameters are frozen and inputs left out later are zeros: only the first leaves want a gradient."""
    model = copy.deepcopy(tree()).requires_grad_(False)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    run = model.start(x=x)
    for _ in range(3):
        run.extend([[len(run) - 2, len(run) - 1]])
    zeros = torch.cat([x, torch.zeros(3, 3, dtype=torch.float64)])
    whole = model([vf.graph(5, [(0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4)])], x=zeros).h
    torch.testing.assert_close(run[:].h, whole)
    (ours,) = torch.autograd.grad(run[-1].h.sum(), x)
    torch.testing.assert_close(ours, torch.autograd.grad(whole[-1].sum(), x)[0], rtol=1e-12, atol=1e-12)


def test_backward_may_run_again_and_over_parts():
    model = tree()
    x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    run = model.start(x=x)
    early = run[[0, 0, 2]].h.sum()
    run.extend([[0, 1], [3, 2]])
    late = run[4].h.sum()

    def grad(loss):
        return torch.autograd.grad(loss, x, retain_graph=True)[0]

    both = grad(early + late)
    torch.testing.assert_close(grad(early) + grad(late), both)
    assert torch.equal(grad(early + late), both)
    only_late = model.start(x=x)
    only_late.extend([[0, 1], [3, 2]])
    assert torch.equal(grad(only_late[4].h.sum()), grad(late))


def test_a_cut_backward_leaves_nothing_behind():
    """Gradients of a late input alone: what was on the way to earlier ones must not turn up in the next backward."""
    model = tree()
    x, late = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    run = model.start(x=x)
    run.extend([[0, 1], [2, 1]], x=late)
    loss = run[:].h.square().sum()
    expected = torch.autograd.grad(loss, (x, late), retain_graph=True)
    torch.autograd.grad(loss, late, retain_graph=True)
    for ours, whole in zip(torch.autograd.grad(loss, (x, late)), expected, strict=True):
        assert torch.equal(ours, whole)


def test_what_is_read_decides_what_is_computed():
    """Greedy agglomeration: join the two neighbours with the largest score, in both sentences at once, to the root."""
    model = copy.deepcopy(tree())
    run = model.start(x=torch.randn(7, 3, dtype=torch.float64))
    stacks = [[0, 1, 2], [3, 4, 5, 6]]
    while any(len(stack) > 1 for stack in stacks):
        chosen = []
        for stack in (stack for stack in stacks if len(stack) > 1):
            score = run[stack].h.sum(-1)
            at = int((score[1:] + score[:-1]).argmax())
            chosen.append((stack, at))
        new = run.extend([stack[at : at + 2] for stack, at in chosen]).tolist()
        for (stack, at), vertex in zip(chosen, new, strict=True):
            stack[at : at + 2] = [vertex]
    assert len(run) == 7 + 2 + 3
    run[[stack[0] for stack in stacks]].h.sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_without_gradients_nothing_is_kept():
    model = tree()
    with torch.no_grad():
        run = model.start(x=torch.randn(2, 3, dtype=torch.float64))
        run.extend([[0, 1]])
    assert not run[:].h.requires_grad


def test_values_without_gradient_are_read_as_well():
    def vertex(self, v):
        h = torch.tanh(self.linear(v.pull("x")) + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h, best=h.argmax(-1))

    model = FromCode(vertex, {"h": 4}, linear=nn.Linear(4, 4))
    run = model.start(x=torch.randn(3, 4))
    run.extend([[2]])
    assert run[:].best.dtype == torch.int64
    assert torch.equal(run[:].best, run[:].h.argmax(-1))
    assert not run[:].best.requires_grad


@pytest.mark.parametrize(
    ("vertices", "expected"),
    [
        (slice(1, None), [1, 2, 3]),
        ([2, -1], [2, 3]),
        (np.array([3, 0]), [3, 0]),
        (torch.tensor([[1, 2], [0, 0]]), [[1, 2], [0, 0]]),
        ([True, False, False, True], [0, 3]),
        ([], []),
        (2, 2),
    ],
    ids=["slice", "list", "array", "table", "mask", "none", "one"],
)
def test_vertices_are_named_as_rows_of_a_tensor_are(vertices, expected):
    run = tree().start(x=torch.randn(4, 3, dtype=torch.float64))
    assert torch.equal(run[vertices].h, run[:].h[torch.tensor(expected, dtype=torch.int64)])


def test_no_new_vertices():
    run = tree().start(x=torch.randn(4, 3, dtype=torch.float64))
    assert run.extend(np.empty((0, 2), int)).tolist() == []
    assert len(run) == 4


@pytest.mark.parametrize(
    ("children", "error", "message"),
    [
        (
            [[0, 7]],
            vf.GraphError,
            "row 0 of `children` names vertex 7 in slot 1; there are vertices 0 to 3 and the new",
        ),
        ([[0, 1], [-2, 1]], vf.GraphError, "row 1 of `children` names vertex -2 in slot 0"),
        ([[5, 0], [4, 0]], vf.GraphError, r"a cycle: row [01] of `children` \(vertex [45]\) depends on itself"),
        ([[0, 1, 2]], vf.GraphError, r"row 0 of `children` \(vertex 4\) has a child in slot 2"),
        ([0, 1], vf.GraphError, r"children must be a table \[new vertices, slots\]"),
        ([[0.5, 1.0]], vf.InputTypeError, "children must be integers, not float64"),
    ],
)
def test_wrong_children_are_refused_and_nothing_is_added(children, error, message):
    run = tree().start(x=torch.randn(4, 3, dtype=torch.float64))
    with pytest.raises(error, match=message):
        run.extend(children)
    assert len(run) == 4
    run.extend([[0, 1]])
    assert len(run) == 5


def test_wrong_inputs_are_refused():
    run = tree().start(x=torch.randn(4, 3, dtype=torch.float64))
    with pytest.raises(vf.InputError, match="input 'x' has 2 rows, but the extension has 1 vertices"):
        run.extend([[0, 1]], x=torch.randn(2, 3, dtype=torch.float64))
    with pytest.raises(vf.InputError, match="x"):
        tree().start().extend([[-1, -1]])
    with pytest.raises(vf.InputError, match="vertices 4 to 4 were asked for; there are 0 to 3"):
        run[4]
    with pytest.raises(vf.InputError, match="give one boolean a vertex"):
        run[[True]]


def test_a_thousand_extensions_cost_no_more_than_their_vertices():
    """Neither growing nor going back touches all that was computed before."""
    model = tree()
    run = model.start(x=torch.randn(2, 3, dtype=torch.float64))
    for _ in range(1000):
        run.extend([[len(run) - 1, len(run) - 2]])
    run[-1].h.sum().backward()
    buffers = sum(buffer.numel() for buffer in (*run._grown.states.values(), *run._grown.pushes.values()))
    assert buffers <= 2 * 3 * 4 * len(run)


def test_a_small_run_after_a_large_one_takes_little_memory():
    model = TreeRNN(3, 4)
    with torch.no_grad():
        model.start(x=torch.zeros(20_000, 3))
        run = model.start(x=torch.zeros(2, 3))
        run.extend([[0, 1]])
    assert max(len(rows) for rows in run._grown.states.values()) < 20
