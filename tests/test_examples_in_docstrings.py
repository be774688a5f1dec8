"""The examples in docstrings run, with what they take for granted."""

from __future__ import annotations

import doctest
import functools
import inspect

import networkx
import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf

from .models import TreeRNN

MODULES = [vf, vf.nn, vf.parallel]
# They show where something stands among things of the user's own, and cannot be run as they are.
SKETCHES = {
    "BalancedSampler", "BalancedSampler.predicted_costs", "Cost", "FSM", "Frontier", "GradientNoise", "GraphPart",
    "Outputs", "Plan",
    "Vertex.num_children", "Vertex.push", "Vertex.shared", "best_batch", "check_same", "clip_grad_norm_", "collate",
    "from_nltk", "load", "mean", "plan", "split", "sum",
}  # fmt: skip


def examples() -> dict[str, doctest.DocTest]:
    """The examples of public names and of their public methods, by name."""
    doctests: dict[str, doctest.DocTest] = {}
    parser = doctest.DocTestParser()
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            things = {name: thing}
            if inspect.isclass(thing):
                members = {key: value for key, value in vars(thing).items() if not key.startswith("_")}
                things |= {f"{name}.{key}": value for key, value in members.items()}
            for key, value in things.items():
                text = (
                    value.__doc__ if isinstance(value, type) or callable(value) or isinstance(value, property) else None
                )
                if text and ">>>" in text:
                    doctests[key] = parser.get_doctest(text, {}, key, None, None)
    return doctests


@functools.cache
def given() -> dict[str, object]:
    torch.manual_seed(0)
    batch = vf.pack([vf.tree(((0, 1), 2)), vf.chain(5)])
    model, x = TreeRNN(8, 8), torch.randn(batch.num_vertices, 8)
    known = {
        "F": nn.functional,
        "np": np,
        "torch": torch,
        "nn": nn,
        "vf": vf,
        "functools": functools,
        "networkx": networkx,
    }
    values = {"batch": batch, "model": model, "x": x, "out": model(batch, x=x)}
    return {**known, **values, "scores": torch.randn(batch.num_vertices, 1)}


class WhereSomethingIsExpected(doctest.OutputChecker):
    """An example that shows no result may have any."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.mark.parametrize("name", sorted(examples().keys() - SKETCHES))
@pytest.mark.cases(2)
def test_an_example(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(
        WhereSomethingIsExpected(), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    test = examples()[name]
    test.globs = dict(given())
    said: list[str] = []
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_sketches_are_python():
    assert examples().keys() >= SKETCHES
    for name in SKETCHES:
        for example in examples()[name].examples:
            compile(example.source, name, "single")
