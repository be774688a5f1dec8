"""`outputs=`: a call returns the outputs of the vertices that it was asked for, and their gradients."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf
from vertexflow.kernels import native
from vertexflow.kernels.prepared import windows
from vertexflow.kernels.prepared.calls import Writer

from ..agreement import compare, expect
from ..budget import tries
from ..kinds import kinds_cases
from ..models import BinaryTreeLSTM, FromCode, TreeRNN
from ..strategies import cases

needs_native = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")


@tries(3)
@given(case=cases(), data=st.data())
@pytest.mark.slow
def test_the_outputs_of_some_vertices_then_those_of_all_others(case, data):
    """Rows side by side are what the reference pushes, and their gradients add up to its gradients."""
    batch, expected = vf.pack([part.graph() for part in case.parts]), expect(case)
    chosen = torch.tensor([data.draw(st.booleans()) for _ in range(batch.num_vertices)])
    first = chosen.nonzero()[:, 0][torch.randperm(int(chosen.sum()))]  # in any order
    places = torch.cat([first, (~chosen).nonzero()[:, 0]])
    for case.model.backend in ("eager", "torch", "native"):
        calls = [
            case.model(batch, reverse=case.reverse, outputs=outputs, **case.inputs) for outputs in (first, ~chosen)
        ]
        ours = {name: torch.cat([call[name] for call in calls])[places.argsort()] for name in calls[0]}
        compare(case, ours, expected=expected)


@tries(3)
@given(case=cases(), data=st.data())
@pytest.mark.slow
def test_each_output_of_vertices_of_its_own(case, data):
    """Those that the mapping leaves out have rows for all vertices, in both calls."""
    batch, expected = vf.pack([part.graph() for part in case.parts]), expect(case)
    chosen = {
        name: torch.tensor([data.draw(st.booleans()) for _ in range(batch.num_vertices)])
        for name in expected.outputs
        if data.draw(st.booleans(), label=f"{name} for some")
    }
    first = {name: mask.nonzero()[:, 0][torch.randperm(int(mask.sum()))] for name, mask in chosen.items()}
    others = {name: ~mask for name, mask in chosen.items()}
    for case.model.backend in ("eager", "torch", "native"):
        ours, rest = (
            dict(case.model(batch, reverse=case.reverse, outputs=outputs, **case.inputs)) for outputs in (first, others)
        )
        for name, mask in chosen.items():
            places = torch.cat([first[name], (~mask).nonzero()[:, 0]])
            ours[name] = torch.cat([ours[name], rest[name]])[places.argsort()]
        compare(case, ours, expected=expected)


@pytest.mark.slow
@tries(2)
@given(case=kinds_cases(), data=st.data())
def test_kinds_that_push_different_outputs(case, data):
    """An output has rows for those of the vertices whose kinds push it."""
    batch = case.batch()
    some = st.lists(st.integers(0, batch.num_vertices - 1), max_size=9)
    of_vertices = {name for method in case.model.methods.values() for name in method.pushed if name in "pq"}
    by_name = {name: data.draw(some) for name in sorted(of_vertices) if data.draw(st.booleans())}
    for vertices in (dict.fromkeys(of_vertices, data.draw(some)), by_name):
        outputs = {name: torch.tensor(numbers).long() for name, numbers in vertices.items()}
        if vertices is not by_name and outputs:
            outputs = next(iter(outputs.values()))  # for all
        for case.model.backend in ("eager", "native"):
            whole = case.model(batch, reverse=case.reverse, **case.given())
            asked = case.model(batch, reverse=case.reverse, outputs=outputs, **case.given())
            assert asked.keys() == whole.keys()
            for name, value in asked.items():
                if name not in vertices:  # of edges, or left out
                    assert torch.equal(value, whole[name])
                    continue
                pushing = [vertex for vertex, kind in enumerate(case.kinds) if name in case.model.methods[kind].pushed]
                rows = [pushing.index(vertex) for vertex in vertices[name] if vertex in pushing]
                assert torch.equal(value, whole[name][rows]), name


class Sentence(vf.VertexFunction):
    """Words and phrases, both of which push `h`, and the latter `score`."""

    def __init__(self):
        super().__init__(state={"h": 3})
        self.join = nn.Linear(6, 3)

    @vf.vertex("word")
    def word(self, v):
        h = torch.tanh(v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("phrase")
    def phrase(self, v):
        h = torch.tanh(self.join(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
        v.scatter(h=h)
        v.push(h=h, score=h.sum(-1))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "torch", "auto"])
@pytest.mark.parametrize("outputs", [[4, 2], [0, 1, 3], [4], [2, 4, 5, 7], [1, 1, 4, 4]])
def test_an_output_of_one_kind(backend, outputs):
    kind = ["word", "word", "phrase", "word", "phrase"]
    graphs = [vf.graph(5, [(0, 2), (1, 2), (2, 4), (3, 4)], kind=kind), vf.graph(3, [(1, 0), (2, 0)], kind=kind[2::-1])]
    batch, kinds = vf.pack(graphs), kind + kind[2::-1]
    model, x = Sentence().double(), torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    model.backend = backend
    phrases = [vertex for vertex, name in enumerate(kinds) if name == "phrase"]
    whole = model(batch, x=x)
    expected = [whole.h[outputs], whole.score[[phrases.index(vertex) for vertex in outputs if vertex in phrases]]]
    some = model(batch, x=x, outputs=torch.tensor(outputs))
    for ours, wanted in zip((some.h, some.score), expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-14)
        weight = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).view_as(ours)
        slopes = [torch.autograd.grad((value * weight).sum(), x, retain_graph=True) for value in (ours, wanted)]
        torch.testing.assert_close(*slopes, rtol=0, atol=1e-14)


def trained(model, batch, x, outputs, is_asked):
    """Outputs of some vertices, and gradients: asked for, or picked from those of all."""
    h = model(batch, x=x, outputs=outputs).h if is_asked else model(batch, x=x).h[outputs]
    weight = torch.linspace(-1, 1, h.numel(), dtype=h.dtype).view_as(h)
    return h, *torch.autograd.grad((h * weight).sum(), [x, *model.parameters()])


@needs_native
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.cases(1)
def test_in_windows(monkeypatch, rows):
    """Windows with rows that were asked for, and windows without any."""
    monkeypatch.setattr(windows, "rows_of_a_window", lambda *_: rows)
    batch = vf.pack([vf.tree(((0, 1), (2, 3))), vf.chain(4), vf.tree(((0, 1), 2)), vf.chain(1)])
    model = BinaryTreeLSTM(3, 5).double()
    model.backend = "native"
    x = torch.randn(batch.num_vertices, 3, dtype=torch.float64, requires_grad=True)
    for outputs in (batch.roots, batch.leaves.flip(0), torch.tensor([6]), torch.arange(0), torch.tensor([3, 3, 0])):
        for ours, whole in zip(
            trained(model, batch, x, outputs, True), trained(model, batch, x, outputs, False), strict=True
        ):
            torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)


@needs_native
def test_one_gradient_for_all_rows(monkeypatch):
    """A sum's gradient is the same row for all: it comes to the rows that were asked for, and to no others."""
    batch, model = vf.pack([vf.tree(((0, 1), 2)), vf.chain(3)]), TreeRNN(4, 4).double()
    x = torch.randn(batch.num_vertices, 4, dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(model(batch, x=x, outputs=batch.roots).h.sum(), x)
    (whole,) = torch.autograd.grad(model(batch, x=x).h[batch.roots].sum(), x)
    torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)


@needs_native
def test_rows_of_others_are_not_written(monkeypatch):
    copied = []
    monkeypatch.setattr(Writer, "copy", noting(Writer.copy, copied))
    batch, model = vf.pack([vf.chain(50)] * 2), TreeRNN(4, 4)
    model.backend = "native"
    with torch.no_grad():
        model(batch, x=torch.randn(100, 4), outputs=batch.roots)
    assert copied.count(2) == 1
    assert copied.count(100) == 1  # the input


def noting(copy, copied):
    """`Writer.copy` that notes how many rows each copy has."""

    def noted(self, to, source, to_rows, source_rows):
        copied.append(len(source_rows if to_rows is None else to_rows))
        return copy(self, to, source, to_rows, source_rows)

    return noted


@needs_native
def test_children_in_a_row_are_read_where_they_are(monkeypatch):
    """Those of sequences of one length, in windows, when the gradient of a weight reads them again."""
    monkeypatch.setattr(windows, "rows_of_a_window", lambda *_: 3)
    model = TreeRNN(4, 4).double()
    model.backend = "native"
    wanted = {}
    for is_copied in (True, False):
        if is_copied:
            monkeypatch.setattr("vertexflow.kernels.prepared.child_states.ChildStates.run", lambda *_: None)
        else:
            monkeypatch.undo()
            monkeypatch.setattr(windows, "rows_of_a_window", lambda *_: 3)
        for graphs in ([vf.chain(5)] * 4, [vf.tree(((0, 1), (2, 3)))] * 3):
            batch = vf.pack(graphs)
            x = torch.linspace(-1, 1, batch.num_vertices * 4, dtype=torch.float64).view(-1, 4).requires_grad_()
            slopes = torch.autograd.grad(model(batch, x=x).h.square().sum(), [x, *model.parameters()])
            for slope, other in zip(slopes, wanted.setdefault(len(graphs), slopes), strict=True):
                assert torch.equal(slope, other)


def test_in_parts_and_with_initial_states():
    batch = vf.pack([vf.tree(((0, 1), 2)), vf.chain(3), vf.chain(2), vf.tree((0, 1))])
    model, outputs = TreeRNN(4, 4).double(), torch.tensor([9, 0, 4, 4])
    x = torch.randn(batch.num_vertices, 4, dtype=torch.float64, requires_grad=True)
    whole = trained(model, batch, x, outputs, False)
    for model.max_vertices in (None, 1, 6):
        for ours, expected in zip(trained(model, batch, x, outputs, True), whole, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
        initial = {"h": torch.randn(len(batch.leaves), 4, dtype=torch.float64)}
        every = model(batch, x=x, initial=initial).h
        assert torch.equal(model(batch, x=x, initial=initial, outputs=outputs).h, every[outputs])


def test_selections_that_change_from_call_to_call_are_not_all_kept():
    batch, model = vf.pack([vf.chain(30)]), TreeRNN(4, 4)
    x = torch.randn(30, 4)
    for vertex in range(30):
        assert torch.equal(model(batch, x=x, outputs=torch.tensor([vertex])).h[0], model(batch, x=x).h[vertex])
    (entry,) = batch.derived.orders.values()
    assert len(entry.order._selecting) == 8
    if native.compiler() is not None:
        ((bound, _),) = model._programs.seen.version.bound.values()
        assert len(bound.prepared) <= 9


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("roots", "outputs is a str; give a tensor of vertices, such as batch.roots"),
        ([0, 1], "outputs is a list"),
        (torch.tensor([1, 0, 1], dtype=torch.uint8), r"outputs is uint8 \[3\]"),
        (torch.tensor([0.0]), r"outputs is float32 \[1\]; give int64"),
        (torch.tensor([[0]]), r"outputs is int64 \[1, 1\]"),
        (torch.tensor(0), r"outputs is int64 \[\]"),
        (torch.tensor([0, 3]), r"outputs\[1\] is 3, but the batch has the vertices 0 to 2"),
        (torch.tensor([-1]), r"outputs\[0\] is -1"),
        (torch.tensor([True]), "outputs has 1 booleans for 3 vertices"),
        (torch.arange(3, device="meta"), "'outputs' is on the device meta"),
        (torch.tensor([0, 1]).to_sparse(), "'outputs' is a sparse_coo tensor"),
    ],
)
@pytest.mark.cases(1)
def test_what_is_refused(outputs, message, backend):
    model = TreeRNN(4, 4)
    model.backend = backend
    with pytest.raises((vf.InputError, vf.InputTypeError), match=message):
        model([vf.chain(3)], x=torch.randn(3, 4), outputs=outputs)


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            {"z": torch.tensor([0])},
            "outputs has vertices for 'z', which the vertex function does not push; .* for 'h'$",
        ),
        (
            {"weight": torch.tensor([0])},
            "outputs has vertices for 'weight', which has a row for each edge; .* for 'h'$",
        ),
        ({"h": [0]}, r"outputs\['h'\] is a list; give a tensor of vertices, such as batch.roots$"),
        ({"h": None}, r"outputs\['h'\] is a NoneType"),
        ({"h": torch.tensor([0, 3])}, r"outputs\['h'\]\[1\] is 3, but the batch has the vertices 0 to 2"),
        ({"h": torch.arange(3, device="meta")}, r"outputs\['h'\].* is on the device meta"),
        ({"h": torch.tensor([True])}, r"outputs\['h'\] has 1 booleans for 3 vertices"),
        ([0], "outputs is a list; give a tensor .*, or a mapping from names of outputs"),
    ],
)
@pytest.mark.cases(1)
def test_what_is_refused_of_a_mapping(outputs, message, backend):
    model, x = FromCode(weighed, {"h": 3}), torch.randn(3, 3)
    model.backend = backend
    for _ in range(2):
        with pytest.raises((vf.InputError, vf.InputTypeError), match=message):
            model(vf.pack([vf.chain(3)]), x=x, outputs=outputs)


def test_in_parts_each_output_of_vertices_of_its_own():
    batch = vf.pack([vf.tree(((0, 1), 2)), vf.chain(3), vf.chain(2), vf.tree((0, 1))])
    model = FromCode(weighed, {"h": 4}).double()
    x = torch.randn(batch.num_vertices, 4, dtype=torch.float64, requires_grad=True)
    whole = model(batch, x=x)
    for model.max_vertices in (None, 1, 6):
        for vertices in ([9, 0, 4, 4], [], [3]):
            out = model(batch, x=x, outputs={"h": torch.tensor(vertices).long()})
            slopes = [
                torch.autograd.grad(h.sin().sum() + weight.square().sum(), x, retain_graph=True)[0]
                for h, weight in ((out.h, out.weight), (whole.h[vertices], whole.weight))
            ]
            assert torch.equal(out.weight, whole.weight)
            torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


def test_a_mapping_says_of_which_outputs_rows_are_kept():
    """What is left out of the memory of a call is seen beforehand, too."""

    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h, c=h * 2)

    model, batch = FromCode(vertex, {"h": 256}), vf.pack([vf.chain(50)] * 20)
    x = torch.empty(batch.num_vertices, 256, device="meta")
    whole, of_ends = (model.estimate_memory(batch, x=x, outputs=outputs) for outputs in (None, {"c": batch.roots}))
    assert whole.outputs - of_ends.outputs == (1000 - 20) * 256 * 4
    assert model.estimate_memory(batch, x=x, outputs={}).outputs == whole.outputs


@pytest.mark.parametrize("backend", ["auto", "torch", "eager"])
@pytest.mark.parametrize("outputs", [torch.tensor([2, 0]), {"h": torch.tensor([2, 0])}])
def test_of_a_list_of_graphs(outputs, backend):
    model, x = FromCode(weighed, {"h": 3}), torch.randn(3, 3)
    model.backend = backend
    for _ in range(2):
        assert torch.equal(model([vf.chain(3)], x=x, outputs=outputs).h, model([vf.chain(3)], x=x).h[[2, 0]])


class Lazily(Mapping):
    """Has new tensors at every look."""

    def __init__(self, entries):
        self.entries = entries

    def __getitem__(self, name):
        return self.entries[name].clone()

    def __iter__(self):
        return iter(self.entries)

    def __len__(self):
        return len(self.entries)


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("kind", [Lazily, OrderedDict, MappingProxyType])
def test_any_mapping(kind, backend):
    def vertex(self, v):
        h = v.pull("x") + v.gather(0).h
        v.scatter(h=h)
        v.push(h=h, c=h * 2)

    model, batch, x = FromCode(vertex, {"h": 3}), vf.pack([vf.chain(3)] * 2), torch.randn(6, 3)
    model.backend, whole = backend, model(batch, x=x)
    for _ in range(3):
        out = model(batch, x=x, outputs=kind({"h": batch.roots, "c": torch.tensor([4, 1])}))
        assert torch.equal(out.h, whole.h[batch.roots])
        assert torch.equal(out.c, whole.c[[4, 1]])


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_names_are_checked_without_graphs_and_in_a_dagnn(backend):
    model = FromCode(weighed, {"h": 3})
    model.backend = backend
    with pytest.raises(vf.InputError, match="outputs has vertices for 'z'"):
        model(vf.pack([]), x=torch.randn(0, 3), outputs={"z": torch.arange(0)})
    with pytest.raises(vf.InputError, match=r"outputs has vertices for 'readout', .* for 'h'$"):
        vf.nn.DAGNN(3, 4, output_size=2, backend=backend)(
            [vf.chain(3)], torch.randn(3, 3), outputs={"readout": torch.tensor([0])}
        )


def test_kinds_that_push_one_name_for_vertices_and_for_edges_are_refused_as_such():
    class Mixed(vf.VertexFunction):
        @vf.vertex("a")
        def a(self, v):
            v.scatter(h=v.pull("x"))
            v.push(p=v.pull("x"))

        @vf.vertex("b")
        def b(self, v):
            v.scatter(h=v.sum(v.children.h))
            v.push(p=v.children.h)

    batch = vf.pack([vf.graph(3, [(0, 2), (1, 2)], kind=["a", "a", "b"])])
    model = Mixed(state={"h": 2})
    for model.backend in ("eager", "torch"):
        for outputs in (None, {"p": torch.tensor([0])}):
            with pytest.raises(vf.VertexFunctionError, match="two outputs of two names"):
                model(batch, x=torch.randn(2, 2), outputs=outputs)


def test_an_input_of_this_name_is_refused():
    class Wrong(vf.VertexFunction):
        def vertex(self, v):
            v.push(h=v.pull("outputs"))

    with pytest.raises(vf.VertexFunctionError, match="an input cannot be called 'outputs'"):
        Wrong(state={})([vf.chain(3)], x=torch.randn(3))


def test_dtypes_of_numbers():
    batch, model = vf.pack([vf.chain(3)] * 2), TreeRNN(4, 4)
    x = torch.randn(6, 4)
    whole = model(batch, x=x).h
    for dtype in (torch.int32, torch.int64):
        assert torch.equal(model(batch, x=x, outputs=torch.tensor([4, 1], dtype=dtype)).h, whole[[4, 1]])
    mask = torch.from_numpy(np.array([True, False, False, True, True, False]))
    assert torch.equal(model(batch, x=x, outputs=mask).h, whole[mask])


@pytest.mark.parametrize("backend", ["eager", "torch", "auto"])
@pytest.mark.parametrize("outputs", [[1, 3, 5], [5, 1, 1]])
@pytest.mark.cases(1)
def test_a_selection_that_is_changed_before_the_backward_pass(backend, outputs):
    batch, model = vf.pack([vf.chain(3)] * 2), TreeRNN(4, 4).double()
    x, model.backend = torch.randn(6, 4, dtype=torch.float64, requires_grad=True), backend
    (expected,) = torch.autograd.grad(model(batch, x=x).h[outputs].sum(), x)
    given = torch.tensor(outputs)
    total = model(batch, x=x, outputs=given).h.sum()
    given.zero_()
    torch.testing.assert_close(torch.autograd.grad(total, x)[0], expected, rtol=0, atol=1e-14)


def weighed(self, v):
    """Pushes `h`, and `weight` for each edge."""
    kids = v.children
    weight = v.softmax(kids.h.sum(-1))
    h = torch.tanh(v.pull("x") + v.sum(weight[:, None] * kids.h))
    v.scatter(h=h)
    v.push(h=h, weight=weight)


def test_outputs_of_edges_come_for_all_edges():
    model, batch = FromCode(weighed, {"h": 3}).double(), vf.pack([vf.tree(((0, 1), 2)), vf.chain(3)])
    x = torch.randn(batch.num_vertices, 3, dtype=torch.float64, requires_grad=True)
    for model.backend in ("eager", "torch", "auto"):
        for model.max_vertices in (None, 3):
            whole, some = model(batch, x=x), model(batch, x=x, outputs=batch.roots.flip(0))
            torch.testing.assert_close(some.weight, whole.weight, rtol=0, atol=1e-14)
            torch.testing.assert_close(some.h, whole.h[batch.roots.flip(0)], rtol=0, atol=1e-14)
            slopes = [
                torch.autograd.grad(h.square().sum() + weight.square().sum(), x)
                for h, weight in ((some.h, some.weight), (whole.h[batch.roots], whole.weight))
            ]
            torch.testing.assert_close(*slopes, rtol=0, atol=1e-14)
