"""What a call returns: a mapping with attributes, which PyTorch and those who rebuild mappings know what to do with."""

from __future__ import annotations

import copy
import gc
import importlib
import json
import pickle
import weakref
from collections import OrderedDict

import pytest
import torch
from torch.utils import _pytree as pytree

import vertexflow as vf


@pytest.fixture
def out() -> vf.Outputs:
    return vf.Outputs(h=torch.ones(3, 2), score=torch.zeros(3, dtype=torch.int64))


def test_entries_are_attributes(out):
    assert out.h is out["h"]
    assert list(out) == ["h", "score"]
    assert {"h", "score", "keys"} <= set(dir(out))


def test_a_missing_attribute_names_those_there_are(out):
    with pytest.raises(AttributeError, match="no output 'c'; the vertex function pushed 'h', 'score'"):
        _ = out.c
    with pytest.raises(AttributeError, match="no output 'c'"):
        del out.c
    assert getattr(out, "c", None) is None
    with pytest.raises(AttributeError, match="pushed nothing"):
        _ = vf.Outputs().h


def test_attributes_are_set_and_deleted_as_entries(out):
    out.h = out.h + 1
    out.more = torch.ones(1)
    del out.score
    assert list(out) == ["h", "more"]
    assert out["h"].sum() == 12


def test_attributes_that_are_methods_are_refused(out):
    with pytest.raises(AttributeError, match=r"'values' is a method of every mapping; write outputs\['values'\]"):
        out.values = torch.ones(1)
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del out.keys
    assert list(out) == ["h", "score"]


def test_repr_shows_dtypes_and_shapes(out):
    assert repr(out) == "Outputs(h: float32 [3, 2], score: int64 [3])"
    assert repr(vf.Outputs(h="text")) == "Outputs(h: 'text')"


@pytest.mark.parametrize(
    "rebuild",
    [
        copy.copy,
        copy.deepcopy,
        vf.Outputs.copy,
        lambda out: out | {"score": out.score},
        lambda out: type(out)(dict(out)),
        lambda out: type(out)(OrderedDict(out)),
        lambda out: type(out)((name, value) for name, value in out.items()),
        *(lambda out, p=protocol: pickle.loads(pickle.dumps(out, p)) for protocol in range(6)),
        lambda out: pytree.tree_map(lambda value: value, out),
    ],
)
def test_what_is_made_of_outputs_is_outputs(out, rebuild):
    again = rebuild(out)
    assert type(again) is vf.Outputs
    assert again is not out
    assert list(again) == ["h", "score"]
    assert all(torch.equal(again[name], value) for name, value in out.items())
    again.extra = torch.ones(1)
    assert "extra" not in out


def test_a_pytree_tells_places_and_can_be_written_down(out):
    places = [(pytree.keystr(path), tuple(value.shape)) for path, value in pytree.tree_flatten_with_path(out)[0]]
    assert places == [("['h']", (3, 2)), ("['score']", (3,))]
    spec = pytree.tree_structure(out)
    again = pytree.treespec_loads(pytree.treespec_dumps(spec))
    assert again == spec
    assert "vertexflow.Outputs" in json.dumps(pytree.treespec_dumps(spec))
    assert type(pytree.tree_unflatten([1, 2], again)) is vf.Outputs


def test_pytorch_s_other_pytree_knows_outputs_too(out):
    cxx = importlib.import_module("torch.utils._cxx_pytree")  # needs the package optree
    assert [tuple(value.shape) for value in cxx.tree_leaves({"a": out})] == [(3, 2), (3,)]
    assert type(cxx.tree_map(lambda value: value + 1, out)) is vf.Outputs


def test_outputs_hold_no_cycle():
    out = vf.Outputs(h=torch.ones(3))
    alive = weakref.ref(out.h)
    gc.disable()
    try:
        del out
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.slow
def test_models_and_their_runs_return_outputs():
    class Chain(vf.VertexFunction):
        def vertex(self, v):
            h = v.pull("x") + v.gather(0).h
            v.scatter(h=h)
            v.push(h=h, double=2 * h)

    model, x = Chain(state={"h": 2}, backend="torch"), torch.ones(4, 2)
    out = model([vf.chain(4)], x=x)
    assert type(out) is type(model.start([vf.chain(4)], x=x)[:]) is vf.Outputs
    assert list(out) == ["h", "double"]
    assert out.double[:, 0].tolist() == [2, 4, 6, 8]
    assert type(vf.nn.GRU(2, 3, backend="torch")([vf.chain(4)], x)) is vf.Outputs
    assert type(vf.nn.DAGNN(2, 3, output_size=1, backend="torch")([vf.chain(4)], x)) is vf.Outputs
