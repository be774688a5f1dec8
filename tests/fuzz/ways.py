"""The ways to call a model that must all give the same."""

from __future__ import annotations

import copy
import itertools
import pickle
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

import vertexflow as vf

from ..agreement import join
from .functions import EDGE_INPUTS, INPUTS, Function
from .samples import Expected, Leaves, Sample, bases_of, gradients_of, laid_out, of_pulling_kinds


@dataclass
class Call:
    """One case: a model, what it is called with, and what must come of it."""

    model: vf.VertexFunction
    function: Function
    sample: Sample
    expected: Expected
    batch: vf.GraphBatch
    rng: random.Random

    def __post_init__(self) -> None:
        self.bases = bases_of(self.function, self.sample)

    def arguments(self, bases: Leaves | None = None) -> dict[str, Any]:
        inputs, edge_inputs, initial = laid_out(self.function, self.sample, self.bases if bases is None else bases)
        given = of_pulling_kinds(self.function, self.sample, inputs, edge_inputs)
        return {**given, "reverse": self.sample.reverse, **({"initial": initial} if initial else {})}

    def run(self, model: Any = None, graphs: Any = None) -> Leaves:
        return dict((model or self.model)(self.batch if graphs is None else graphs, **self.arguments()))

    def leaves(self, model: Any = None) -> Leaves:
        return {**dict((model or self.model).named_parameters()), **self.bases}

    def check(self, outputs: Leaves, leaves: Leaves | None = None, **options: bool) -> None:
        """Outputs and gradients are those of the reference."""
        self.check_values(outputs)
        leaves = self.leaves() if leaves is None else leaves
        if not any(leaf.requires_grad for leaf in leaves.values()):
            assert not any(value.requires_grad for value in outputs.values()), "without leaves that require grad"
        self.check_gradients(gradients_of(outputs, self.expected.weights, leaves, **options))

    def check_values(self, outputs: Leaves) -> None:
        for name in outputs.keys() - self.expected.outputs.keys():  # of a kind that the batch has not
            assert self.sample.kinds is not None, f"{name} was not pushed"
            assert len(outputs[name]) == 0, f"{name} was not pushed"
        for name, value in self.expected.outputs.items():
            close(outputs[name], value, name)

    def check_gradients(self, gradients: dict[str, torch.Tensor | None], times: int = 1) -> None:
        for name, value in self.expected.gradients.items():
            given = gradients[name]
            if value is None or given is None:  # zeros are as good as nothing
                rest = given if value is None else value
                assert rest is None or not rest.any(), f"gradient of {name}: {given} instead of {value}"
            else:
                close(given, value * times, f"gradient of {name}")


def close(ours: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    torch.testing.assert_close(
        ours, expected, rtol=1e-10, atol=1e-10, equal_nan=True, msg=lambda text: f"{name}: {text}"
    )


def train(call: Call) -> None:
    call.check(call.run())


def as_list(call: Call) -> None:
    call.check(call.run(graphs=call.sample.graphs()))


def without_gradients_first(call: Call) -> None:
    with torch.no_grad():
        call.check_values(call.run())
    call.check(call.run())


def inference_first(call: Call) -> None:
    with torch.inference_mode():
        call.check_values(call.run())
    call.check(call.run())


def one_graph_at_a_time(call: Call) -> None:
    call.check(_in_pieces(call, [[index] for index in range(len(call.sample.parts))]))


def in_another_order(call: Call) -> None:
    call.check(_in_pieces(call, [call.rng.sample(range(len(call.sample.parts)), len(call.sample.parts))]))


def _in_pieces(call: Call, pieces: list[list[int]]) -> Leaves:
    """Calls with some graphs each; rows are put back to where they belong."""
    sample, function = call.sample, call.function
    sizes = [part.num_vertices for part in sample.parts]
    edge_sizes = [len(part.edges) for part in sample.parts]
    inputs, edge_inputs, initial = laid_out(function, sample, call.bases)
    rows: dict[str, list[torch.Tensor]] = {}
    places: dict[str, list[int]] = {}
    starts = {vertex: at for at, vertex in enumerate(sample.starts())}
    for piece in pieces:
        at = [vertex for index in piece for vertex in _range_of(sizes, index)]
        edges_at = [edge for index in piece for edge in _range_of(edge_sizes, index)]
        kinds = None if sample.kinds is None else [sample.kinds[vertex] for vertex in at]
        part = replace(sample, parts=[sample.parts[index] for index in piece], kinds=kinds)
        given = of_pulling_kinds(
            function,
            part,
            {name: value[at] for name, value in inputs.items()},
            {name: value[edges_at] for name, value in edge_inputs.items()},
        )
        if initial is not None:
            own = [starts[vertex] for vertex in at if vertex in starts]
            given["initial"] = {name: value[own] for name, value in initial.items()}
        for name, value in call.model(part.graphs(), reverse=sample.reverse, **given).items():
            rows.setdefault(name, []).append(value)
            pushing = [k for k, method in function.methods.items() if name in [push[0] for push in method.push]]
            places.setdefault(name, []).extend(
                vertex for vertex in at if sample.kinds is None or sample.kinds[vertex] in pushing
            )
    return {name: torch.cat(values)[np.argsort(places[name])] for name, values in rows.items()}


def _range_of(sizes: list[int], index: int) -> range:
    start = sum(sizes[:index])
    return range(start, start + sizes[index])


def scheduled_ahead(call: Call) -> None:
    policy = call.model.policy
    call.check(call.run(graphs=call.batch.with_schedule(vf.schedule(call.batch, policy))))


def pickled_batch(call: Call) -> None:
    call.check(call.run(graphs=pickle.loads(pickle.dumps(call.batch))))


def reversed_batch(call: Call) -> None:
    """Along the edges of the batch whose edges are turned round."""
    given = call.arguments()
    if given.pop("reverse"):
        call.check(dict(call.model(call.batch.reversed(), **given)))
    else:
        train(call)


def growing(call: Call) -> None:
    """Vertices are added in pieces, and some of them read before the next."""
    sample, function = call.sample, call.function
    if sample.reverse or sample.initial or sample.kinds is not None or sample.num_edges == 0:
        return train(call)
    count, edges = join(sample.parts)
    slots = max(slot for *_, slot in edges) + 1
    children: list[dict[int, tuple[int, int]]] = [{} for _ in range(count)]
    for number, (child, parent, slot) in enumerate(edges):
        children[parent][slot] = child, number
    order: list[int] = []
    while len(order) < count:
        order += [v for v in range(count) if v not in order and all(c in order for c, _ in children[v].values())]
    number = {vertex: at for at, vertex in enumerate(order)}
    inputs, edge_inputs, _ = laid_out(function, sample, call.bases)
    cuts = sorted({0, count, *(call.rng.randrange(1, count) for _ in range(3) if count > 1)})
    run = call.model.start()
    rows: dict[str, list[torch.Tensor]] = {}
    waiting: list[torch.Tensor] = []
    for start, stop in itertools.pairwise(cuts):
        new = order[start:stop]
        table = np.full((stop - start, slots), -1)
        edges_at = []
        for row, vertex in enumerate(new):
            for slot in sorted(children[vertex]):
                table[row, slot] = number[children[vertex][slot][0]]
                edges_at.append(children[vertex][slot][1])
        given = {name: value[new] for name, value in inputs.items()}
        given |= {name: value[edges_at] for name, value in edge_inputs.items()}
        waiting.append(run.extend(table, **given))
        if call.rng.random() < 0.5 or stop == count:
            for piece in waiting:
                for name, value in run[piece].items():
                    rows.setdefault(name, []).append(value)
            waiting = []
    back = torch.tensor([number[vertex] for vertex in range(count)])
    return call.check({name: torch.cat(values)[back] for name, values in rows.items()})


def in_a_thread(call: Call) -> None:
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(call.run())
        except BaseException as error:  # raised below, where it is seen
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    call.check(found[0])


def checkpointed(call: Call) -> None:
    given = call.arguments()
    call.check(dict(checkpoint(lambda: dict(call.model(call.batch, **given)), use_reentrant=False)))


def functional(call: Call) -> None:
    own = {
        name: value.detach().clone().requires_grad_(value.requires_grad)
        for name, value in call.model.named_parameters()
    }
    outputs = torch.func.functional_call(call.model, own, (call.batch,), call.arguments())
    call.check(dict(outputs), {**own, **call.bases})


def copied(call: Call) -> None:
    model = copy.deepcopy(call.model)
    call.check(call.run(model), call.leaves(model))


def pickled(call: Call) -> None:
    model = pickle.loads(pickle.dumps(call.model))
    call.check(call.run(model), call.leaves(model))


def several_before_backward(call: Call) -> None:
    first = call.run()
    other = replace(call.sample, seed=call.sample.seed + 1)
    second = Call(call.model, call.function, other, call.expected, call.batch, call.rng).run()
    third = call.run()
    weights = {name: torch.ones_like(value) for name, value in second.items() if value.requires_grad}
    gradients_of(second, weights, dict(call.model.named_parameters()))
    call.check(first)
    call.check(third)


def backward_twice(call: Call) -> None:
    outputs = call.run()
    call.check(outputs, retain_graph=True)
    call.check(outputs)


def one_output_at_a_time(call: Call) -> None:
    """Gradients add up over losses of one output each."""
    outputs, leaves = call.run(), call.leaves()
    call.check_values(outputs)
    total: dict[str, torch.Tensor | None] = dict.fromkeys(call.expected.gradients)
    for name, weight in call.expected.weights.items():
        found = gradients_of(outputs, {name: weight}, leaves, retain_graph=True)
        for leaf, value in found.items():
            total[leaf] = value if total[leaf] is None else total[leaf] if value is None else total[leaf] + value
    call.check_gradients(total)


def accumulated(call: Call) -> None:
    leaves = call.leaves()
    for leaf in leaves.values():
        leaf.grad = None
    for _ in range(2):
        outputs = call.run()
        call.check_values(outputs)
        losses = [(outputs[name] * weight).sum() for name, weight in call.expected.weights.items()]
        if losses and any(leaf.requires_grad for leaf in leaves.values()):
            sum(losses).backward()  # type: ignore[union-attr]
    call.check_gradients({name: leaf.grad for name, leaf in leaves.items()}, times=2)
    for leaf in leaves.values():
        leaf.grad = None


def changed_between(call: Call) -> None:
    """Attributes and parameters had other values at the call before."""
    model, sample = call.model, call.sample
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1)
    model.gain, model.flag = 3.0, not sample.flag
    model.train(not sample.training)
    with torch.no_grad():
        call.run()
        for name, value in type(model)().named_parameters():
            model.get_parameter(name).copy_(value)
    model.gain, model.flag = sample.gain, sample.flag
    model.train(sample.training)
    call.check(call.run())


def with_anomalies_detected(call: Call) -> None:
    gradients = [value for value in call.expected.gradients.values() if value is not None]
    if all(value.isfinite().all() for value in gradients):
        with torch.autograd.detect_anomaly(check_nan=False):
            call.check(call.run())
    else:
        call.check(call.run())


def in_inference_only(call: Call) -> None:
    """Inputs that were made in inference mode."""
    with torch.inference_mode():
        bases = {name: value.detach().clone() for name, value in call.bases.items()}
        call.check_values(dict(call.model(call.batch, **call.arguments(bases))))


Way = Callable[[Call], None]
WAYS: dict[str, tuple[Way, int]] = {  # and how often each is drawn; some trace anew
    "train": (train, 6),
    "as list": (as_list, 4),
    "without gradients first": (without_gradients_first, 3),
    "inference first": (inference_first, 2),
    "inference only": (in_inference_only, 2),
    "one graph at a time": (one_graph_at_a_time, 5),
    "in another order": (in_another_order, 5),
    "scheduled ahead": (scheduled_ahead, 5),
    "pickled batch": (pickled_batch, 2),
    "reversed batch": (reversed_batch, 2),
    "growing": (growing, 6),
    "in a thread": (in_a_thread, 2),
    "checkpointed": (checkpointed, 3),
    "functional": (functional, 3),
    "copied": (copied, 1),
    "pickled": (pickled, 1),
    "several before backward": (several_before_backward, 3),
    "backward twice": (backward_twice, 3),
    "one output at a time": (one_output_at_a_time, 4),
    "accumulated": (accumulated, 3),
    "changed between": (changed_between, 1),
    "anomalies": (with_anomalies_detected, 2),
}
assert {*INPUTS}.isdisjoint(EDGE_INPUTS)
