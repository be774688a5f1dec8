"""The ways to call a model that must all give the same."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

import vertexflow as vf

from .call import Call
from .changes import CHANGES, changed_between
from .combined import alternating, apart, parts_of_a_loss, selections, two_models
from .expected import gradients_of
from .functions import EDGE_INPUTS, INPUTS
from .growing import growing, growing_oddly
from .pieces import in_another_order, one_graph_at_a_time
from .second import gradients_of_gradients


def train(call: Call) -> None:
    call.check(call.run())


def as_list(call: Call) -> None:
    call.check(call.run(graphs=call.sample.graphs()))


def from_arrays(call: Call) -> None:
    """Edges as an array, in another memory layout than pairs."""
    graphs, at = [], 0
    for part in call.sample.parts:
        kind = None if call.sample.kinds is None else call.sample.kinds[at : at + part.num_vertices]
        at += part.num_vertices
        if call.function.arity:
            arcs = [[*children, parent] for children, parent, _ in part.edges]
            array = np.array(arcs, np.int32).reshape(-1, call.function.arity + 1).T
            graphs.append(vf.hypergraph(part.num_vertices, array, kind))
            continue
        pairs = torch.tensor([edge[:2] for edge in part.edges], dtype=torch.int32).reshape(-1, 2).T
        slots = torch.tensor([edge[2] for edge in part.edges], dtype=torch.int64)
        graphs.append(vf.graph(part.num_vertices, pairs, kind=kind, slots=slots))
    call.check(call.run(graphs=graphs))


def without_gradients_first(call: Call) -> None:
    with torch.no_grad():
        outputs = call.run()
        assert not any(value.requires_grad for value in outputs.values())
        call.check_values(outputs)
    call.check(call.run())


def inference_first(call: Call) -> None:
    with torch.inference_mode():
        call.check_values(call.run())
    call.check(call.run())


def scheduled_ahead(call: Call) -> None:
    policy = call.model.policy
    call.check(call.run(graphs=call.batch.with_schedule(vf.schedule(call.batch, policy))))


def pickled_batch(call: Call) -> None:
    call.check(call.run(graphs=pickle.loads(pickle.dumps(call.batch))))


def reversed_batch(call: Call) -> None:
    """Along the edges of the batch whose edges are turned round."""
    given = call.arguments()
    if given.pop("reverse"):
        call.check(call.run(graphs=call.batch.reversed(), given=given))
    else:
        train(call)


def in_a_thread(call: Call) -> None:
    outputs: list[Any] = []
    _in_threads(1, lambda: outputs.append(call.run()))
    call.check(outputs[0])


def in_threads(call: Call) -> None:
    """Three at once, forward and backward, with one batch; it may be the model's first call."""
    if call.model.backend == "triton":  # whose interpreter is for one thread
        return in_a_thread(call)
    model = copy.deepcopy(call.model) if call.rng.random() < 0.2 else call.model
    calls = [replace(call, model=model) for _ in range(3)]
    start = threading.Barrier(3)
    waiting = iter(calls)

    def work() -> None:
        one = next(waiting)
        start.wait()
        for _ in range(2):
            one.check(one.run())

    _in_threads(3, work)


def _in_threads(count: int, work: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def watched() -> None:
        try:
            work()
        except BaseException as error:  # raised below, where it is seen
            failed.append(error)

    threads = [threading.Thread(target=watched) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def checkpointed(call: Call) -> None:
    given = call.arguments()
    call.check(dict(checkpoint(lambda: call.run(given=given), use_reentrant=False)))


def functional(call: Call) -> None:
    own = {
        name: value.detach().clone().requires_grad_(value.requires_grad)
        for name, value in call.model.named_parameters()
    }
    with call.function.context():
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
        gradients = gradients_of(outputs, {name: weight}, leaves, retain_graph=True)
        for leaf, value in gradients.items():
            total[leaf] = value if total[leaf] is None else total[leaf] if value is None else total[leaf] + value
    call.check_gradients(total)


def some_leaves_at_a_time(call: Call) -> None:
    """Gradients with respect to one leaf, then to another."""
    outputs, leaves = call.run(), call.leaves()
    call.check_values(outputs)
    gradients: dict[str, torch.Tensor | None] = {}
    for name in call.expected.gradients:
        gradients |= gradients_of(outputs, call.expected.weights, {name: leaves[name]}, retain_graph=True)
    call.check_gradients(gradients)


def odd_gradients(call: Call) -> None:
    """Gradients of outputs that have gaps, are transposed, or are one number for all rows; of sums, and of single rows."""
    outputs, leaves = call.run(), call.leaves()
    call.check_values(outputs)
    weights = call.expected.weights
    wanted = [name for name, leaf in leaves.items() if leaf.requires_grad]
    if not wanted or not weights:
        return
    given = []
    for name, weight in weights.items():
        turned = weight.permute(*reversed(range(weight.dim()))).contiguous().permute(*reversed(range(weight.dim())))
        gaps = torch.stack([weight, weight * 7], -1)[..., 0]
        given.append(call.rng.choice([turned, gaps]))
        assert outputs[name].requires_grad, f"{name} has no gradient"
    gradients = torch.autograd.grad(
        [outputs[name] for name in weights], [leaves[name] for name in wanted], given, allow_unused=True
    )
    call.check_gradients(dict(zip(wanted, gradients, strict=True)))
    if not call.function.is_exact or call.sample.special:
        return
    ours = call.run()
    rows = {name: call.rng.randrange(len(value)) for name, value in ours.items() if name in weights and len(value)}
    sums = [ours[name].sum() for name in rows] + [ours[name][at : at + 1].sum() for name, at in rows.items()]
    plain = call.run()
    ones = {name: torch.ones_like(plain[name]) for name in rows}
    for name, at in rows.items():
        ones[name][at] += 1
    if not sums:
        return
    both = (
        torch.autograd.grad(sums, [leaves[name] for name in wanted], allow_unused=True),
        tuple(gradients_of(plain, ones, leaves).values()),
    )
    for name, one, other in zip(wanted, *both, strict=True):
        assert (one is None) == (other is None), f"one of two gradients of {name} is missing"
        if one is not None and other is not None:
            scale = 1 + float(other.nan_to_num(0, 0, 0).abs().max()) if other.numel() else 1.0
            torch.testing.assert_close(
                one,
                other,
                rtol=0,
                atol=1e-10 * scale,
                equal_nan=True,
                msg=lambda text, name=name: f"gradient of {name} from sums: {text}",
            )


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
        call.check_values(call.run(given=call.arguments(bases)))


def nothing(call: Call) -> None:
    """No graphs give outputs without rows, whose gradients are zero wherever others are found."""
    given = call.arguments()
    initial = {"initial": {name: value[:0] for name, value in given["initial"].items()}} if "initial" in given else {}
    none = {name: value[:0] if isinstance(value, torch.Tensor) else value for name, value in given.items()}
    empty, whole = call.run(graphs=[], given={**none, **initial}), call.run()
    for name, value in whole.items():
        assert (empty[name].dtype, empty[name].shape) == (value.dtype, (0, *value.shape[1:])), f"{name} of no graphs"
    losses = [value.sum() for value in empty.values() if value.requires_grad]
    if losses:
        leaves = {name: leaf for name, leaf in call.leaves().items() if leaf.requires_grad}
        gradients = torch.autograd.grad(losses, list(leaves.values()), allow_unused=True)
        for (name, wanted), gradient in zip(
            ((name, call.expected.gradients.get(name)) for name in leaves), gradients, strict=True
        ):
            assert wanted is None or gradient is not None, f"gradient of {name} of no graphs is missing"
            assert gradient is None or not gradient.any(), f"gradient of {name} of no graphs"
    call.check(whole)


def in_parts(call: Call) -> None:
    """Of one graph each, or of some; computed once more in the backward pass."""
    call.model.max_vertices = call.rng.choice([1, 4, 10])
    try:
        call.check(call.run())
    finally:
        call.model.max_vertices = None


@apart
def some_outputs_at_a_time(call: Call) -> None:
    """Those of some vertices, then of all others: rows side by side, whose gradients add up. Outputs of edges come for all."""
    chosen = torch.tensor([call.rng.random() < 0.3 for _ in range(call.batch.num_vertices)])
    first = chosen.nonzero()[:, 0].flip(0)
    calls = [call.run(given={**call.arguments(), "outputs": outputs}) for outputs in (first, ~chosen)]
    vertices, joined = torch.cat([first, (~chosen).nonzero()[:, 0]]).tolist(), {}
    kinds = call.sample.kinds
    for name in calls[0]:
        if name.startswith("edge_"):  # which come for all edges
            joined[name] = calls[0][name]
            continue
        pushing = [kind for kind, method in call.function.methods.items() if name in [push[0] for push in method.push]]
        places = [vertex for vertex in vertices if kinds is None or kinds[vertex] in pushing]
        joined[name] = torch.cat([outputs[name] for outputs in calls])[np.argsort(places)]
    call.check(joined)


def estimated_first(call: Call) -> None:
    """Going through a step without computing leaves nothing behind, of whichever step."""
    call.model.max_vertices = call.rng.choice([None, None, 4])
    try:
        for training in call.rng.sample([True, False], call.rng.choice([1, 2])):
            given = call.arguments()
            with call.function.context(), contextlib.suppress(vf.BackendError):  # there are estimates for two backends
                estimate = call.model.estimate_memory(call.batch, training=training, **given)
                assert estimate.peak >= estimate.outputs
        call.check(call.run())
    finally:
        call.model.max_vertices = None


Way = Callable[[Call], None]
WAYS: dict[str, tuple[Way, int]] = {  # and how often each is drawn; some trace anew
    "train": (train, 6),
    "as list": (as_list, 4),
    "alternating": (alternating, 5),
    "parts of a loss": (parts_of_a_loss, 5),
    "selections": (selections, 6),
    "two models": (two_models, 3),
    "estimated first": (estimated_first, 3),
    "from arrays": (from_arrays, 2),
    "without gradients first": (without_gradients_first, 3),
    "inference first": (inference_first, 2),
    "inference only": (in_inference_only, 2),
    "one graph at a time": (one_graph_at_a_time, 5),
    "in another order": (in_another_order, 5),
    "scheduled ahead": (scheduled_ahead, 4),
    "pickled batch": (pickled_batch, 2),
    "reversed batch": (reversed_batch, 2),
    "growing": (growing, 8),
    "growing oddly": (growing_oddly, 6),
    "in a thread": (in_a_thread, 1),
    "in threads": (in_threads, 3),
    "checkpointed": (checkpointed, 3),
    "functional": (functional, 3),
    "copied": (copied, 1),
    "pickled": (pickled, 1),
    "several before backward": (several_before_backward, 3),
    "backward twice": (backward_twice, 3),
    "one output at a time": (one_output_at_a_time, 4),
    "some leaves at a time": (some_leaves_at_a_time, 2),
    "odd gradients": (odd_gradients, 4),
    "gradients of gradients": (gradients_of_gradients, 3),
    "accumulated": (accumulated, 3),
    "anomalies": (with_anomalies_detected, 2),
    "nothing": (nothing, 1),
    "in parts": (in_parts, 5),
    "some outputs at a time": (some_outputs_at_a_time, 5),
    **{f"changed {name}": (changed_between(change), 1) for name, change in CHANGES.items()},
}
assert {*INPUTS}.isdisjoint(EDGE_INPUTS)
