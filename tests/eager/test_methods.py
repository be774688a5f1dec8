"""The method that computes a vertex in the forms that Python has for one, and those that cannot be one."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch
from torch import nn

import vertexflow as vf

from ..models import FromCode

BACKENDS = ["torch", "eager"]
CHAIN = [vf.chain(3)]
KINDS = [vf.graph(3, [(0, 2), (1, 2)], kind=["leaf", "leaf", "node"])]


class Model(vf.VertexFunction):
    def __init__(self):
        super().__init__(state={"h": 2})


def scaled(self, v, scale):
    h = v.pull("x") + scale * (v.gather(0).h + v.gather(1).h)
    v.scatter(h=h)
    v.push(h=h)


class Called:
    def __call__(self, v):
        scaled(None, v, 2)


class Bound(Model):
    def __init__(self):
        super().__init__()
        self.vertex = functools.partial(self.run, scale=2)

    run = scaled


FORMS = {
    "partialmethod": type("M", (Model,), {"vertex": functools.partialmethod(scaled, scale=2)}),
    "partialmethod, positional": type(
        "M", (Model,), {"vertex": functools.partialmethod(lambda self, scale, v: scaled(self, v, scale), 2)}
    ),
    "static": type("M", (Model,), {"vertex": staticmethod(lambda v: scaled(None, v, 2))}),
    "class": type("M", (Model,), {"vertex": classmethod(functools.partial(scaled, scale=2))}),
    "object": type("M", (Model,), {"vertex": Called()}),
    "partial": Bound,
}


@pytest.mark.parametrize("backend", [*BACKENDS, "native"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.cases(1)
def test_forms_of_a_method(form, backend):
    model = FORMS[form]()
    model.backend = backend
    assert model(CHAIN, x=torch.ones(3, 2)).h.tolist() == [[1, 1], [3, 3], [7, 7]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_partial_methods_of_kinds(backend):
    leaf = vf.vertex("leaf")(functools.partialmethod(scaled, scale=0))
    node = vf.vertex("node")(functools.partialmethod(scaled, scale=2))
    model = type("M", (Model,), {"leaf": leaf, "node": node})()
    model.backend = backend
    assert model(KINDS, x=torch.ones(3, 2)).h.tolist() == [[1, 1], [1, 1], [5, 5]]
    static = type("M", (Model,), {"all": vf.vertex("leaf", "node")(staticmethod(lambda v: scaled(None, v, 2)))})()
    static.backend = backend
    assert static(KINDS, x=torch.ones(3, 2)).h.tolist() == [[1, 1], [1, 1], [5, 5]]


def test_what_mixes_rows_is_found_behind_a_partial_method():
    def mixing(self, v, scale):
        h = v.pull("x")
        v.scatter(h=h - h.mean(0))

    model = type("M", (Model,), {"vertex": functools.partialmethod(mixing, scale=2)})()
    with pytest.raises(vf.VertexFunctionError, match=r"test_methods\.py:\d+: `v\.scatter\(h=h - h\.mean"):
        model(CHAIN, x=torch.ones(3, 2))


def generator(self, v):
    scaled(self, v, 2)
    yield v


async def coroutine(self, v):
    scaled(self, v, 2)


async def both(self, v):
    yield v


def returning(self, v):
    return v.pull("x")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("method", "said"),
    [
        (generator, r"generator function.*yield"),
        (coroutine, r"coroutine.*async def"),
        (both, r"asynchronous generator"),
        (returning, r"returned a tensor.*v\.push"),
    ],
)
def test_methods_that_do_not_publish(method, said, backend):
    line = rf"(?s:.*)test_methods\.py:{method.__code__.co_firstlineno}"
    alone = type("M", (Model,), {"vertex": method})()
    kinds = type("M", (Model,), {"one": vf.vertex("leaf", "node")(method)})()
    del method._vertexflow_kinds
    for model, graphs in ((alone, CHAIN), (kinds, KINDS)):
        model.backend = backend
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(vf.VertexFunctionError, match=said + line):
                model(graphs, x=torch.ones(3, 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_models_without_a_method(backend):
    for model, said in (
        (Model(), r"no method that computes a vertex"),
        (type("M", (Model,), {"vertex": 3})(), r"of type int"),
    ):
        model.backend = backend
        with pytest.raises(vf.VertexFunctionError, match=said):
            model(CHAIN, x=torch.ones(3, 2))
        with pytest.raises(vf.VertexFunctionError, match=said):
            model.start(x=torch.ones(3, 2))


def test_models_that_were_not_initialised():
    def sets_a_module(self):
        self.w = nn.Linear(2, 2)

    def sets_a_number(self):
        self.size = 2

    with pytest.raises(vf.VertexFunctionError, match=r"M\.__init__ with super\(\)\.__init__\(state="):
        type("M", (Model,), {"__init__": sets_a_module})()
    for init in (sets_a_number, nn.Module.__init__):
        model = type("M", (Model,), {"__init__": init})()
        with pytest.raises(vf.VertexFunctionError, match=r"M\.__init__ with super\(\)\.__init__\(state="):
            model(CHAIN, x=torch.ones(3, 2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("change", "said"), [(lambda h: h.to_sparse(), r"dense|to_sparse"), (lambda h: h.to("meta"), r"device meta")]
)
@pytest.mark.parametrize("where", ["scatter", "push", "sum"])
@pytest.mark.cases(1)
def test_tensors_that_are_not_dense(where, change, said, backend):
    def vertex(self, v):
        h = v.pull("x") + (v.sum(change(v.children.h)) if where == "sum" else v.gather(0).h)
        v.scatter(h=change(h) if where == "scatter" else h)
        v.push(h=change(h) if where == "push" else h)

    model = FromCode(vertex, {"h": 2})
    model.backend = backend
    with pytest.raises(vf.VertexFunctionError, match=rf"({said})(?s:.*)test_methods\.py"):
        model(CHAIN, x=torch.ones(3, 2))


def test_the_line_is_named_where_the_method_itself_runs():
    def vertex(self, v):
        v.scatter(h=v.pull("x")[:, :1])

    model = FromCode(vertex, {"h": 2})
    model.backend = "eager"
    with pytest.raises(
        vf.VertexFunctionError, match=r"shape \(1,\)(?s:.*)test_methods\.py:\d+: `v\.scatter\(h=v\.pull"
    ):
        model(CHAIN, x=torch.ones(3, 2))


def test_operations_that_depend_on_values_are_named():
    for function in (lambda h: h[h > 0].sum() + h, lambda h: torch.unique(h) + h):
        with pytest.raises(
            vf.VertexFunctionError, match=r"depends on the value of a tensor: `aten\.(nonzero|_unique2)"
        ):
            FromCode(lambda self, v, function=function: v.scatter(h=function(v.pull("x"))), {"h": 2})(
                CHAIN, x=torch.ones(3, 2)
            )
