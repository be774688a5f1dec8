"""Windows: a pass over some rows of a group after the other gives what one over all rows gives."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vertexflow as vf
from benchmarks.zoo import ZOO
from vertexflow.kernels import autograd, native
from vertexflow.kernels.order_on_device import order_on
from vertexflow.kernels.prepared import structures as prepared
from vertexflow.kernels.prepared import windows

from ...models import BinaryTreeLSTM, FromCode, TreeRNN
from ...promises import Circuit
from .test_structures import by_random, by_strided, by_sum, trained

SIZE = 6

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")


class Sizes:
    """Sets how many rows a window has, and knows how many windows the groups had since."""

    def __init__(self, monkeypatch):
        self.rows, self.counts, self.renewed = 10**6, [], set()
        windows_of, prepared_for = windows.windows_of, autograd.prepared_for

        def noted(*arguments):
            groups = windows_of(*arguments)
            self.counts.append([len(each.all) for each in groups])
            return groups

        def renewed(bound, order):
            if id(bound) not in self.renewed:
                bound.prepared.clear()
                self.renewed.add(id(bound))
            result = prepared_for(bound, order)
            assert result is not None
            return result

        monkeypatch.setattr(windows, "rows_of_a_window", lambda rows, width: self.rows)
        monkeypatch.setattr(prepared, "windows_of", noted)
        monkeypatch.setattr(autograd, "prepared_for", renewed)

    def set(self, rows):
        self.rows = rows
        self.counts.clear()
        self.renewed.clear()


@pytest.fixture
def sizes(monkeypatch):
    return Sizes(monkeypatch)


def agree(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


def check(sizes, compute, rows=(1, 2, 3)):
    """What is computed in windows of so many rows is what is computed at once; the most windows that there were."""
    sizes.set(10**6)
    wanted, most = compute(), 1
    assert all(count == 1 for counts in sizes.counts for count in counts)
    for size in rows:
        sizes.set(size)
        agree(compute(), wanted)
        most = max(most, *(count for counts in sizes.counts for count in counts))
    return most


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.cases(1)
def test_every_model(sizes, name):
    torch.manual_seed(0)
    animal = ZOO[name](5)
    model = animal.model.double()
    for function in animal.functions():
        function.backend = "native"
    batch, inputs = vf.pack(animal.graphs), animal.inputs(torch.float64)
    for backward in (by_random, by_sum, by_strided):
        assert check(sizes, lambda by=backward: trained(model, batch, inputs, by)) > 1


def with_edges(reduce, first):
    """A model that reads children by edges, with inputs of edges, and pushes values of edges."""

    def vertex(self, v):
        kids, x = v.children[first:], self.read(v.pull("x"))
        if first:  # else it is read as numbers, which leaves native code
            x = x * (1 + v.num_children[:, None])
        score = self.key(torch.tanh(kids.h + kids.expand(x)) * kids.pull("relation"))
        weight = v.softmax(score)
        h = torch.tanh(x + self.join(reduce(v, weight * kids.h)) + v.gather(0).c)
        v.scatter(h=h, c=torch.sin(h))
        v.push(
            h=h,
            again=torch.exp(-h * h),
            weight=weight,
            key=torch.sin(kids.h),
            relation=kids.pull("relation") + kids.slot[:, None],
        )

    parts = {"read": nn.Linear(4, SIZE), "key": nn.Linear(SIZE, 1), "join": nn.Linear(SIZE, SIZE)}
    return FromCode(vertex, {"h": SIZE, "c": SIZE}, **parts).double()


def dags(count, seed=0):
    random = np.random.default_rng(seed)
    graphs = []
    for _ in range(count):
        vertices = int(random.integers(1, 9))
        pairs = [(child, parent) for parent in range(vertices) for child in range(parent)]
        graphs.append(vf.graph(vertices, [pair for pair in pairs if random.random() < 0.4]))
    return graphs


@pytest.mark.parametrize(("reverse", "first"), [(False, 0), (True, 0), (False, 1), (True, 1)])
@pytest.mark.cases(1)
def test_children_by_edges(sizes, reverse, first):
    for reduce in (lambda v, e: v.sum(e), lambda v, e: v.max(e) + v.sum(e)):
        torch.manual_seed(0)
        model, batch = with_edges(reduce, first), vf.pack(dags(5))
        inputs = {
            "x": torch.randn(batch.num_vertices, 4, dtype=torch.float64, requires_grad=True),
            "relation": torch.randn(batch.edge_index.shape[1], SIZE, dtype=torch.float64, requires_grad=True),
        }
        model.backend = "native"

        def compute(model=model, batch=batch, inputs=inputs, backward=by_random):
            run = functools.partial(model, reverse=True) if reverse else model
            run.zero_grad = model.zero_grad
            run.parameters = model.parameters
            return trained(run, batch, inputs, backward)

        assert check(sizes, compute) > 4


def kinds_in(policy, backward=by_random):
    """What three kinds of vertices give, of which many steps are computed by turns."""
    torch.manual_seed(0)
    model = Circuit().double().eval()
    model.backend, model.policy = "native", policy
    random = np.random.default_rng(1)
    graphs = []
    for _ in range(6):
        count = int(random.integers(3, 12))
        kinds, edges = ["in", "in"], []
        for at in range(2, count):
            kinds.append(["and", "not", "in"][int(random.integers(3))])
            edges += [(int(random.integers(at)), at) for _ in range({"and": 2, "not": 1, "in": 0}[kinds[-1]])]
        graphs.append(vf.graph(count, edges, kind=kinds))
    batch = vf.pack(graphs)
    inputs = {"x": torch.randn(len(batch.of_kind("in")), 8, dtype=torch.float64, requires_grad=True)}
    return lambda: trained(model, batch, inputs, backward)


@pytest.mark.parametrize("policy", ["depth", "height", "agenda"])
@pytest.mark.cases(1)
def test_several_kinds(sizes, policy):
    assert check(sizes, kinds_in(policy)) > 1


def test_a_group_whose_rows_are_not_computed_in_their_order_has_one_window(sizes):
    """By height leaves come late; in windows of theirs, what an earlier one has made would be gone."""
    model, x = TreeRNN(3, 4).double(), torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
    model.backend, model.policy = "native", "height"
    batch = vf.pack([vf.tree((((0, 1), 2), 3)), vf.tree(((0, 1), (2, 3))), vf.chain(4), vf.tree((0, (1, (2, (3, 4)))))])
    inputs = {"x": x.detach()[: batch.num_vertices].requires_grad_()}
    assert check(sizes, lambda: trained(model, batch, inputs, by_random)) == 1


def test_graphs_without_edges(sizes):
    model = TreeRNN(3, 4).double()
    model.backend = "native"
    batch = vf.pack([vf.graph(4, []), vf.graph(3, [])])
    inputs = {"x": torch.randn(7, 3, dtype=torch.float64, requires_grad=True)}
    assert check(sizes, lambda: trained(model, batch, inputs, by_random)) == 7


def test_a_kind_that_is_not_there(sizes):
    model = Circuit().double().eval()
    model.backend = "native"
    batch = vf.pack([vf.graph(4, [(0, 1), (1, 2), (2, 3)], kind=["in", "not", "not", "not"])])
    inputs = {"x": torch.randn(1, 8, dtype=torch.float64, requires_grad=True)}
    assert check(sizes, lambda: trained(model, batch, inputs, by_random)) == 3


@pytest.mark.slow
def test_gradients_twice(sizes):
    """Going back does not change what is kept."""
    model = BinaryTreeLSTM(3, 4).double()
    model.backend = "native"
    batch = vf.pack([vf.tree((((0, 1), 2), 3)), vf.tree((0, 1))])
    x = torch.randn(batch.num_vertices, 3, dtype=torch.float64, requires_grad=True)

    def compute():
        loss = model(batch, x=x).h.square().sum()
        return [
            grad
            for keep in (True, False)
            for grad in torch.autograd.grad(loss, [x, *model.parameters()], retain_graph=keep)
        ]

    assert check(sizes, compute) > 3


def test_an_input_that_has_changed_since_is_refused(sizes):
    """It is read again, as PyTorch's own operators do."""
    model = BinaryTreeLSTM(3, 4).double()
    model.backend = "native"
    batch, x = vf.pack([vf.tree(((0, 1), 2))]), torch.randn(5, 3, dtype=torch.float64)
    sizes.set(2)
    loss = model(batch, x=x).h.sum()
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_random_numbers_do_not_depend_on_windows(sizes):
    def vertex(self, v):
        h = self.drop(torch.tanh(self.u(v.gather(0).h) + self.drop(v.pull("x"))))
        v.scatter(h=h)
        v.push(h=self.drop(h))

    model = FromCode(vertex, {"h": SIZE}, u=nn.Linear(SIZE, SIZE), drop=nn.Dropout(0.4)).double().train()
    model.backend = "native"
    batch = vf.pack([vf.chain(4), vf.chain(2), vf.chain(5)])
    inputs = {"x": torch.randn(11, SIZE, dtype=torch.float64, requires_grad=True)}
    assert check(sizes, lambda: trained(model, batch, inputs, by_random)) > 3


@pytest.mark.slow
def test_values_without_rows(sizes):
    """Made of parameters alone, and of their gradients: as often as there are windows, they are the same."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, weight):
            return weight * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 3

    def vertex(self, v):
        scale = torch.exp(self.scale)
        h = torch.tanh(
            F.linear(v.pull("x"), self.weight) * Doubled.apply(scale) + v.gather(0).h * torch.sigmoid(self.scale)
        )
        v.scatter(h=h)
        v.push(h=F.layer_norm(h, (SIZE,), self.scale, torch.sin(self.scale)))

    parts = {"weight": nn.Parameter(torch.randn(SIZE, SIZE)), "scale": nn.Parameter(torch.randn(SIZE))}
    model = FromCode(vertex, {"h": SIZE}, **parts).double()
    model.backend = "native"
    batch = vf.pack([vf.chain(4), vf.chain(2), vf.chain(5)])
    inputs = {"x": torch.randn(11, SIZE, dtype=torch.float64, requires_grad=True)}
    assert check(sizes, lambda: trained(model, batch, inputs, by_random)) > 3


def test_what_leaves_have_gathered_is_zero(sizes):
    """Where values of all vertices read it: the room has something of other rows in it."""

    def vertex(self, v):
        left, right = v.gather(0), v.gather(1)
        h = torch.tanh(self.u(left.h) + v.pull("x") * right.h + v.pull("x"))
        v.scatter(h=h)
        v.push(h=h, left=left.h, both=torch.atan2(left.h * v.pull("x"), right.h + 2), one=left.h[:, :1] * 2)

    model = FromCode(vertex, {"h": SIZE}, u=nn.Linear(SIZE, SIZE)).double()
    model.backend = "native"
    batch = vf.pack([vf.tree((((0, 1), 2), 3)), vf.tree(0), vf.tree((0, 1)), vf.tree(((0, 1), (2, 3)))])
    inputs = {"x": torch.randn(batch.num_vertices, SIZE, dtype=torch.float64, requires_grad=True)}
    assert check(sizes, lambda: trained(model, batch, inputs, by_random)) > 3


def test_a_gradient_that_reads_a_sum_over_all_rows_is_refused():
    """In windows it would read a part of the sum."""

    class Normed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(x, weight)
            return x * weight

        @staticmethod
        def backward(ctx, grad):
            x, weight = ctx.saved_tensors
            of_weight = (grad * x).sum(0)
            return grad * weight + 0.1 * of_weight, of_weight

    def vertex(self, v):
        h = torch.tanh(v.gather(0).h + self.scale)
        v.scatter(h=h)
        v.push(h=Normed.apply(h, self.scale))

    model = FromCode(vertex, {"h": SIZE}, scale=nn.Parameter(torch.randn(SIZE))).double()
    with pytest.raises(vf.VertexFlowError, match="mixes rows"):
        model([vf.chain(4), vf.chain(3)])


def test_sums_in_half_precision_are_rounded_once(sizes):
    model = TreeRNN(32, 32).bfloat16()
    model.backend = "native"
    batch = vf.pack([vf.tree((((0, 1), 2), 3)), vf.tree((0, 1))])
    x = torch.randn(batch.num_vertices, 32, dtype=torch.bfloat16)
    assert check(sizes, lambda: torch.autograd.grad(model(batch, x=x).h.sum(), [*model.parameters()])) == 1


def test_half_precision_where_no_gradients_are_wanted(sizes):
    model = TreeRNN(32, 32).bfloat16().requires_grad_(False)
    model.backend = "native"
    batch = vf.pack([vf.tree((((0, 1), 2), 3)), vf.tree((0, 1))])
    x = torch.randn(batch.num_vertices, 32, dtype=torch.bfloat16)
    assert check(sizes, lambda: [model(batch, x=x).h]) > 3


def test_inference_mode(sizes):
    model = BinaryTreeLSTM(3, 4).double()
    model.backend = "native"
    batch = vf.pack([vf.tree((((0, 1), 2), 3)), vf.tree((0, 1))])
    x = torch.randn(batch.num_vertices, 3, dtype=torch.float64)

    def compute():
        with torch.inference_mode():
            return [model(batch, x=x).h.clone()]

    assert check(sizes, compute) > 3


def test_an_input_made_in_inference_mode(sizes):
    """Whose gradients of parameters are computed, however many windows there are: a copy of it is kept."""
    model = BinaryTreeLSTM(3, 4).double()
    model.backend = "native"
    batch = vf.pack([vf.tree((((0, 1), 2), 3))])
    with torch.inference_mode():
        x = torch.randn(batch.num_vertices, 3, dtype=torch.float64)

    assert check(sizes, lambda: torch.autograd.grad(model(batch, x=x).h.sum(), list(model.parameters()))) > 2


def test_several_threads_at_once(sizes):
    model = BinaryTreeLSTM(3, 4).double()
    model.backend = "native"
    batch = vf.pack([vf.tree((((0, 1), 2), 3)), vf.tree((0, 1))])
    x = [torch.randn(batch.num_vertices, 3, dtype=torch.float64) for _ in range(16)]

    def one(given):
        given = given.clone().requires_grad_()
        return torch.autograd.grad(model(batch, x=given).h.square().sum(), [given, *model.parameters()])

    def compute():
        with ThreadPoolExecutor(4) as pool:
            return [grad for grads in pool.map(one, x) for grad in grads]

    assert check(sizes, compute) > 3


def test_steps_are_cut_where_windows_are():
    """Also what is read at consecutive places, and edges."""
    batch = vf.pack([vf.chain(3)] * 7)
    order = order_on(vf.schedule(batch, num_slots=1), torch.device("cpu"))
    for count in range(1, 22):
        (group,) = order.groups
        bounds = windows._bounds(group, -(-group.num_rows // count), [])
        of_group = windows.Windows(group, windows._windows(group, bounds))
        lines = np.concatenate([steps for _, steps in windows._cut(order.table, of_group)])
        assert (lines[:, 1] > lines[:, 0]).all()
        rows = [row for line in lines for row in range(line[0], line[1])]
        assert rows == list(range(21))
        reads = [line[2] + row for line in lines if line[2] >= 0 for row in range(line[1] - line[0])]
        of_whole = [line[2] + row for line in order.table if line[2] >= 0 for row in range(line[1] - line[0])]
        assert reads == of_whole


def test_without_states():
    def vertex(self, v):
        v.push(y=v.pull("x") * self.scale)

    model = FromCode(vertex, {}, scale=nn.Parameter(torch.randn(3)))
    model.backend = "native"
    x = torch.randn(4, 3)
    assert torch.equal(model([vf.graph(1, [])] * 4, x=x).y, x * model.scale)


def test_the_last_window_is_cut_into_small_ones(sizes):
    """The backward pass begins with them, and has left few rows in whose place it could send."""
    sizes.set(16)
    model, batch = TreeRNN(SIZE, SIZE).double(), vf.pack([vf.chain(16)] * 4)
    model.backend = "native"
    returned, find = [], windows.windows_of

    def noted(*arguments):
        returned.append(find(*arguments))
        return returned[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prepared, "windows_of", noted)
        model(batch, x=torch.randn(batch.num_vertices, SIZE, dtype=torch.float64)).h.sum().backward()
    ((of_group,),) = returned
    assert [window.stop - window.start for window in of_group.all] == [16, 16, 16, 8, 4, 2, 2]


def test_how_many_rows_a_window_has():
    assert windows.rows_of_a_window(512, 512) == 512  # not worth more than one
    assert windows.rows_of_a_window(10_000, 512) == 256
    assert windows.rows_of_a_window(2_400, 512) == 160  # a batch that is not large has small ones
    assert windows.rows_of_a_window(1_348, 512) == 90
    assert windows.rows_of_a_window(5 * 10**5, 16) == 8192
    assert windows.rows_of_a_window(10**7, 16) == -(-(10**7) // 64)  # no more than 64 windows
