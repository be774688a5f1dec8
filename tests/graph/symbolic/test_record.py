"""Graphs of what is done to tensors without numbers."""

from threading import Thread

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from vertexflow.graph.symbolic.fakes import fake_mode
from vertexflow.graph.symbolic.record import record


def test_nodes_have_their_values_and_nothing_that_takes_time_to_describe():
    mode = fake_mode()
    with mode:
        graph = record(lambda x: x.exp() + 1, torch.empty(3)).graph
    operations = [node for node in graph.nodes if node.op == "call_function"]
    assert len(operations) == 2
    for node in operations:
        assert node.meta["val"].shape == (3,)
        assert node.meta.get("tensor_meta") is None


def test_what_others_trace_is_described_meanwhile_and_afterwards():
    def description():
        node = list(make_fx(torch.exp)(torch.ones(3)).graph.nodes)[1]
        return node.meta["tensor_meta"].shape

    results = []

    def function(x):
        thread = Thread(target=lambda: results.append(description()))
        thread.start()
        thread.join()
        return x.exp()

    with fake_mode():
        record(function, torch.empty(3))
    assert results == [(3,)]
    assert description() == (3,)


def test_only_the_operations_that_are_named_are_taken_apart():
    def names(**options):
        with fake_mode():
            graph = record(lambda x: torch.nn.functional.silu(x).detach(), torch.empty(3), **options).graph
        return [node.target for node in graph.nodes if node.op == "call_function"]

    aten = torch.ops.aten
    assert names() == [aten.silu.default, aten.detach.default]
    apart = names(decompositions={aten.silu.default: lambda x: x * torch.sigmoid(x)})
    assert apart == [aten.sigmoid.default, aten.mul.Tensor, aten.detach.default]
