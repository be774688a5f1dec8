"""Gradients of gradients, on every backend, against the reference, to which autograd gives them."""

from __future__ import annotations

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import vertexflow as vf
from benchmarks.graphs import random_tree
from vertexflow.call import orders
from vertexflow.kernels.arguments import By
from vertexflow.kernels.order import Selected
from vertexflow.kernels.second_order import replay, routes

from .agreement import join
from .budget import tries
from .call.test_initial import leaves_of as count_leaves
from .kinds import kinds_cases
from .models import BinaryTreeLSTM, FromCode, TreeRNN
from .ragged import ragged_cases
from .reference import run_reference
from .strategies import SMOOTH, Structure, cases

PARTS = [
    Structure(5, [(0, 3, 0), (1, 3, 1), (3, 4, 0), (2, 4, 1)]),
    Structure(1, []),
    Structure(4, [(0, 1, 0), (0, 1, 1), (1, 3, 0), (2, 3, 1)]),
]
GRAPHS = [part.graph() for part in PARTS]
COUNT = sum(part.num_vertices for part in PARTS)
CHAINS = [Structure(4, [(0, 1, 0), (1, 2, 0), (2, 3, 0)]), Structure(2, [(0, 1, 0)])]
SEQUENCES, STEPS = [part.graph() for part in CHAINS], 6


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def derivatives(outputs, leaves, order=2):
    """Gradients of a sum of squares of outputs, of a sum of squares of those, and so on; zeros where there are none."""
    all_gradients, value = [], sum((out * out.detach().sin()).sum() for out in outputs.values() if out.requires_grad)
    for number in range(1, order + 1):
        gradients = [None] * len(leaves)
        if isinstance(value, torch.Tensor) and value.requires_grad:
            gradients = torch.autograd.grad(value, leaves, create_graph=number < order, allow_unused=True)
        all_gradients += [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True)]
        value = sum(g.square().sum() for g in gradients if g is not None)
    return all_gradients


def agree(ours, expected):
    """To ten digits of the largest: what is summed may cancel."""
    assert len(ours) == len(expected)
    largest = 1 + max((float(value.detach().abs().max()) for value in expected if value.numel()), default=0)
    for actual, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-10 * largest)


def check(case, backends, call, reference, leaves):
    leaves = [leaf for leaf in leaves if leaf.requires_grad]
    if not leaves:
        return
    try:
        expected = derivatives(reference, leaves)
    except RuntimeError as error:  # PyTorch's own, of an embedding of no rows: the reference has a vertex without edges
        assume("reshape tensor of 0 elements" not in str(error))
        raise
    for case.model.backend in backends:
        for how in ("after a call", "from the start", "in another order"):
            print(f"backend {case.model.backend}, replayed {how}")
            with pytest.MonkeyPatch.context() as patch:
                if how == "in another order":  # a late one, where that pays
                    patch.setattr(orders, "LATE", OneAtATime())
                    patch.setattr(routes, "_num_routes", lambda order: 0 if order.make_late is None else 10**6)
                    replayed = noted(patch)
                agree(derivatives(call(), leaves), expected)
                if how == "in another order":
                    assert all(other is not order for order, other in replayed)


class OneAtATime:
    """Each vertex in a step of its own, the last of those that are ready first."""

    def steps(self, structure):
        children = [
            {int(child) for child in structure.child[first:end] if child < structure.num_vertices}
            for first, end in itertools.pairwise(structure.offset)
        ]
        steps, waiting = np.zeros(structure.num_vertices, np.int64), [*range(structure.num_vertices)]
        for step in range(structure.num_vertices):
            ready = [vertex for vertex in waiting if children[vertex].isdisjoint(waiting)]
            steps[ready[-1]] = step
            waiting.remove(ready[-1])
        return steps


def noted(patch):
    """The orders in which a call would be computed, and in which it is replayed."""
    replayed, choose = [], replay.order_of_few_routes
    routes._late.clear()

    def chosen(order):
        replayed.append((order, choose(order)))
        return replayed[-1][1]

    patch.setattr(replay, "order_of_few_routes", chosen)
    return replayed


@tries(4)
@given(cases())
def test_random_functions_over_random_structures(case):
    batch, inputs = vf.pack([part.graph() for part in case.parts]), case.inputs
    reference = run_reference(case.model, *join(case.parts), inputs, case.reverse)
    leaves = [*case.model.parameters(), *inputs.values()]
    check(case, ("torch", "native"), lambda: case.model(batch, reverse=case.reverse, **inputs), reference, leaves)


@tries(4)
@given(ragged_cases())
@pytest.mark.slow
def test_random_functions_of_any_number_of_children(case):
    batch, inputs = vf.pack([part.graph() for part in case.parts]), {**case.inputs, **case.edge_inputs}
    reference = run_reference(case.model, *join(case.parts), case.inputs, case.reverse, case.edge_inputs)
    leaves = [*case.model.parameters(), *inputs.values()]
    check(case, ("torch", "native"), lambda: case.model(batch, reverse=case.reverse, **inputs), reference, leaves)


@tries(3)
@given(kinds_cases())
@pytest.mark.slow
def test_random_methods_of_three_kinds(case):
    leaves = [*case.model.parameters(), *case.inputs.values(), *case.edge_inputs.values()]
    reference = run_reference(
        case.model, *join(case.parts), case.inputs, case.reverse, case.edge_inputs, case.methods()
    )
    check(case, ("torch",), lambda: case.model(case.batch(), reverse=case.reverse, **case.given()), reference, leaves)


@tries(2)
@given(case=cases(max_graphs=2), data=st.data())
def test_random_functions_with_initial_states(case, data):
    names = data.draw(st.lists(st.sampled_from(["h", "m"]), unique=True))
    initial = {name: numbers(count_leaves(case), *case.model.state[name]) for name in names}
    batch = vf.pack([part.graph() for part in case.parts])
    reference = run_reference(case.model, *join(case.parts), case.inputs, case.reverse, initial=initial)
    leaves = [*case.model.parameters(), *case.inputs.values(), *initial.values()]
    call = {"reverse": case.reverse, "initial": initial, **case.inputs}
    check(case, ("torch",), lambda: case.model(batch, **call), reference, leaves)


@pytest.mark.slow
@tries(40)
@given(cases(SMOOTH, max_graphs=1, max_vertices=4))
def test_gradgradcheck_of_many(case):
    gradgradcheck(case)


@tries(1)
@given(cases(SMOOTH, max_graphs=1, max_vertices=3))
def test_gradgradcheck(case):
    gradgradcheck(case)


def gradgradcheck(case):
    batch = vf.pack([part.graph() for part in case.parts])
    parameters = dict(case.model.named_parameters())

    def run(x, weight, *values):
        given = dict(zip(parameters, values, strict=True))
        outputs = torch.func.functional_call(case.model, given, (batch,), {**case.inputs, "x": x, "weight": weight})
        return tuple(value for value in outputs.values() if value.requires_grad)

    values = [case.inputs["x"], case.inputs["weight"], *parameters.values()]
    values = [value.detach().clone().requires_grad_() for value in values]
    assume(run(*values))  # states that are made of children's states alone depend on nothing
    assert torch.autograd.gradgradcheck(run, values, atol=1e-5, fast_mode=True)


@pytest.mark.slow
def test_three_orders_of_the_readme_example(backends):
    model, x = BinaryTreeLSTM(3, 4).double(), numbers(COUNT, 3)
    leaves = [x, *model.parameters()]
    expected = derivatives(run_reference(model, *join(PARTS), {"x": x}), leaves, 3)
    for model.backend in (*backends, "eager"):
        agree(derivatives(model(GRAPHS, x=x), leaves, 3), expected)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.cases(1)
@pytest.mark.parametrize("outputs", [torch.tensor([8, 0, 4, 4]), {"y": torch.tensor([8, 0, 4, 4])}])
def test_shared_tensors_and_selected_outputs_and_parts(reverse, outputs):
    def vertex(self, v):
        h = torch.tanh(v.pull("x") @ v.shared("W") + v.gather(0).h * v.gather(1).h.detach() + v.gather(1).h)
        v.scatter(h=h)
        v.push(h=h, y=h * v.shared("W")[0])

    model, x, shared_leaf = FromCode(vertex, {"h": 3}), numbers(COUNT, 3), numbers(3, 3)
    leaves = [x, shared_leaf]

    def call():
        return model(GRAPHS, x=x, shared={"W": shared_leaf.sin()}, outputs=outputs, reverse=reverse)

    model.backend = "eager"
    expected = derivatives(call(), leaves, 3)
    for model.backend in ("torch", "native"):
        for model.max_vertices in (None, 4):
            agree(derivatives(call(), leaves, 3), expected)


def test_what_one_input_is_computed_from_may_be_another():
    """`y` is a function of `x`, and both are inputs: the path between them is counted once."""

    def vertex(self, v):
        h = torch.tanh(v.pull("x") * v.pull("y") + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)

    model, x = FromCode(vertex, {"h": 3}), numbers(STEPS, 3)
    expected = derivatives(run_reference(model, *join(CHAINS), {"x": x, "y": x.exp()}), [x])
    agree(derivatives(model(SEQUENCES, x=x, y=x.exp()), [x]), expected)


def test_graphs_of_gradients_end_where_nothing_is_wanted():
    model, x = TreeRNN(3, 4).double(), numbers(COUNT, 3)
    loss = model(GRAPHS, x=x).h.square().sum()
    (of_x,) = torch.autograd.grad(loss, x, create_graph=True)
    loss.backward(create_graph=True)  # again, in the other way
    torch.testing.assert_close(x.grad, of_x)
    plain = torch.autograd.grad(model(GRAPHS, x=x).h.square().sum(), x)[0]
    torch.testing.assert_close(of_x, plain)
    model.requires_grad_(False)
    (of_x,) = torch.autograd.grad(model(GRAPHS, x=x).h.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="One of the differentiated Tensors does not require grad"):
        torch.autograd.grad(of_x.square().sum(), model.u.weight)


@pytest.mark.slow
def test_backward_twice_and_tensors_that_have_changed():
    x = numbers(COUNT, 3)
    for limit in (None, 4):
        model = TreeRNN(3, 4).double()
        model.max_vertices = limit
        loss = model(GRAPHS, x=x).h.square().sum()
        first = torch.autograd.grad(loss, x, create_graph=True, retain_graph=True)
        agree(first, torch.autograd.grad(loss, x))
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(loss, x, create_graph=True)
        for change in (lambda w: w.mul_(2), lambda w: setattr(w, "data", w.data.clone())):
            model = copy.deepcopy(model)  # of which no call was replayed from the start
            loss = model(GRAPHS, x=x).h.square().sum()
            with torch.no_grad():
                change(model.w.bias)  # which no first derivative reads
            with pytest.raises((vf.VertexFlowError, RuntimeError), match=r"changed in place|modified by an inplace"):
                torch.autograd.grad(loss, x, create_graph=True)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def without_grad(h):
    with torch.no_grad():
        return h + (h * 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (Doubled.apply, "torch.autograd.Function, Doubled, with a derivative"),
        (lambda h: h + without_grad(h), r"computes under torch.no_grad\(\)"),
        (lambda h: h * h.data, "reads `.data`"),
        (lambda h: h.register_hook(lambda grad: 3 * grad) and h, "calls `register_hook`"),
        (lambda h: h + torch.autograd.grad(h.sin().sum(), h)[0], "calls `grad` without create_graph"),
        (lambda h: nn.functional.dropout(h), "draws random numbers"),
    ],
)
def test_what_a_trace_does_not_say_is_refused(hidden, message):
    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h)
        h = hidden(h)
        v.scatter(h=h)
        v.push(h=h)

    model, x = FromCode(vertex, {"h": 3}), numbers(STEPS, 3)
    loss = model(SEQUENCES, x=x).h.square().sum()
    with pytest.raises(vf.VertexFlowError, match=rf"(?s)create_graph=True.*{message}"):
        torch.autograd.grad(loss, x, create_graph=True)
    torch.autograd.grad(loss, x)
    torch.autograd.grad(model(SEQUENCES, x=x).h.square().sum(), x)  # calls go on as before
    with pytest.raises(vf.VertexFlowError, match=message):
        torch.func.grad(lambda x: model(SEQUENCES, x=x).h.square().sum())(x.detach())


def test_runs_that_grow_are_refused_by_name_and_served_by_eager():
    model, x = TreeRNN(3, 4).double(), numbers(3, 3)
    for backend in ("torch", "native", "eager"):
        model.backend = backend
        run = model.start(x=x)
        run.extend([[0, 1], [3, 2]])
        loss = run[:].h.square().sum()
        if backend == "eager":
            expected = run_reference(model, 5, [(0, 3, 0), (1, 3, 1), (3, 4, 0), (2, 4, 1)], {"x": _with_zeros(x)})
            agree(_second(loss, x), _second(expected["h"].square().sum(), x))
            continue
        with pytest.raises(vf.VertexFlowError, match=r'create_graph=True.*grows.*backend="eager"'):
            torch.autograd.grad(loss, x, create_graph=True)


def _with_zeros(x):
    return torch.cat([x, x.new_zeros(2, 3)])


def _second(loss, x):
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    return torch.autograd.grad(first.square().sum(), x)


def test_parametrized_weights_under_autocast_and_in_half_precision():
    model, x = TreeRNN(3, 4), torch.randn(COUNT, 3, requires_grad=True)
    weight_norm(model.w)
    for backend in ("eager", "native"):
        model.backend = backend
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(GRAPHS, x=x).h.float().square().sum()
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        actual = torch.autograd.grad(first.square().sum(), [x, *model.parameters()])
        if backend == "eager":
            expected = actual
    for ours, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0.1, atol=0.1 * float(wanted.abs().max()))


def test_a_check_that_holds_is_passed_through():
    def vertex(self, v):
        x = v.pull("x").view(-1, 2, 2)
        factor = torch.linalg.cholesky(x @ x.mT + torch.eye(2, dtype=x.dtype)).flatten(1)
        h = torch.tanh(factor + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)

    model, x = FromCode(vertex, {"h": 4}), numbers(STEPS, 4)
    agree(derivatives(model(SEQUENCES, x=x), [x]), derivatives(run_reference(model, *join(CHAINS), {"x": x}), [x]))


# Uses


def test_marginals_of_a_crf_are_trained_on():
    """The marginals of a linear chain are the gradients of log Z; a loss of them is trained on."""

    def vertex(self, v):
        alpha = v.pull("score") + torch.logsumexp(v.gather(0).alpha[:, :, None] + self.transition, 1)
        v.scatter(alpha=alpha)
        v.push(log_z=torch.logsumexp(alpha, -1))

    tags, lengths = 3, [4, 2]
    model = FromCode(vertex, {"alpha": tags}, transition=nn.Parameter(torch.randn(tags, tags, dtype=torch.float64)))
    batch, score = vf.pack([vf.chain(length) for length in lengths]), numbers(sum(lengths), tags)

    def by_hand(score):
        total = 0
        for rows in score.split(lengths):
            alpha = torch.zeros(tags, dtype=torch.float64)
            for row in rows:
                alpha = row + torch.logsumexp(alpha[:, None] + model.transition, 0)
            total = total + torch.logsumexp(alpha, -1)
        return total

    gold, leaves = torch.tensor([0, 1, 2, 0, 1, 1]), [score, model.transition]
    results = []
    for log_z in (model(batch, score=score, outputs=batch.roots).log_z.sum(), by_hand(score)):
        (marginals,) = torch.autograd.grad(log_z, score, create_graph=True)
        torch.testing.assert_close(marginals.sum(-1), torch.ones(sum(lengths), dtype=torch.float64))
        loss = -marginals[torch.arange(len(gold)), gold].log().mean()
        results.append([marginals, *torch.autograd.grad(loss, leaves)])
    agree(*results)


def test_two_steps_of_maml():
    model, batch = TreeRNN(3, 4).double(), vf.pack(GRAPHS)
    xs = [numbers(COUNT, 3).detach() for _ in range(2)]
    results = []
    for backend in ("eager", "native"):
        model.backend, weights = backend, dict(model.named_parameters())
        for x in xs:
            loss = torch.func.functional_call(model, weights, (batch,), {"x": x}).h.square().mean()
            slopes = torch.autograd.grad(loss, [*weights.values()], create_graph=True)
            weights = {name: w - 0.5 * slope for (name, w), slope in zip(weights.items(), slopes, strict=True)}
        loss = torch.func.functional_call(model, weights, (batch,), {"x": xs[0]}).h.square().mean()
        results.append(torch.autograd.grad(loss, list(model.parameters())))
    agree(*results)


def test_two_models_one_on_the_other_with_a_gradient_penalty():
    lower, upper, x = TreeRNN(3, 4).double(), TreeRNN(4, 2).double(), numbers(COUNT, 3)
    results = []
    for backend in ("eager", "native"):
        lower.backend = upper.backend = backend
        out = upper(GRAPHS, x=lower(GRAPHS, x=x).h, reverse=True).h
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        penalty = (slope.norm(dim=1) - 1).square().mean()
        results.append(torch.autograd.grad(out.mean() + penalty, [*lower.parameters(), *upper.parameters()]))
    agree(*results)


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_an_output_to_which_nothing_leads_has_a_gradient_of_zero_after_a_second_derivative_too(backend):
    def vertex(self, v):
        h = torch.tanh(self.join(v.pull("x")) + v.gather(0).h)
        v.scatter(h=h)
        v.push(total=v.sum(v.children.h))

    model, x = FromCode(vertex, {"h": 2}, join=nn.Linear(2, 2)).double(), numbers(3, 2)
    model.backend = backend
    (slope,) = torch.autograd.grad(model([vf.chain(3)], x=x).total.sum(), x, create_graph=True)
    slope.square().sum().backward()
    alone = numbers(1, 2)
    model([vf.graph(1, [])], x=alone).total.sum().backward()
    assert not alone.grad.any()


def test_trees_are_replayed_in_an_order_in_which_a_step_reads_the_one_before_it():
    model, rng = TreeRNN(3, 4), random.Random(0)
    batch = vf.pack([vf.tree(random_tree(rng, 24)) for _ in range(6)])
    x, results = numbers(batch.num_vertices, 3), []
    for model.double().backend in ("eager", "torch"):
        results.append(derivatives(model(batch, x=x), [x, *model.parameters()]))
    agree(*results)
    (order, _, _) = [*batch.derived.orders.values()][-1]
    late = routes.order_of_few_routes(order)
    sending = routes.routes_of(late)[By.SLOT].sending
    inner = [number for number, step in enumerate(late.steps) if step.start >= late.groups[0].num_leaves]
    assert {number: sending[number + 1].readers for number in inner[:-1]} == {at: [at + 1] for at in inner[:-1]}
    assert routes._num_routes(late) < routes._num_routes(order) / 2
    assert len(late.steps) == len(order.steps)
    chosen = order.selecting(Selected({}, np.array([3, 5])))
    assert routes.order_of_few_routes(chosen).selected is chosen.selected


def test_sequences_are_replayed_in_the_order_of_the_call():
    model, batch = TreeRNN(3, 4), vf.pack([vf.chain(length) for length in (9, 4, 7)])
    model(batch, x=torch.randn(20, 3))
    ((order, _, _),) = batch.derived.orders.values()
    assert routes.order_of_few_routes(order) is order
