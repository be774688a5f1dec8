"""`vf.parallel.plan`: how to spread a model over a cluster, and for goodput, in batches of how many graphs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

from torch import nn

from ..errors import InputError, InputTypeError
from ..graph.inputs.pack import GraphBatch
from ..graph.uncompiled import uncompiled
from .cluster import Cluster
from .goodput import efficiency
from .observe import Observation, observe
from .options import BY_DEFAULT, DATA, STRATEGIES
from .plan import Plan
from .search import MOST_RUNNERS_UP, plan_of, plans_of, too_large

_OBJECTIVES = ("throughput", "memory", "goodput")
_ACCUMULATED = (1, 2, 4, 8, 16)  # so many batches before a step are tried, for goodput


@uncompiled
def plan(
    model: nn.Module,
    batches: Sequence[Any],
    cluster: Cluster,
    *,
    objective: str = "throughput",
    strategies: Collection[str] = BY_DEFAULT,
    optimizer: float = 2.0,
    call: Callable[[nn.Module, Any], Any] | None = None,
    like: Plan | None = None,
    noise: float | None = None,
    base: float | None = None,
) -> Plan:
    """Find how to spread a model over a cluster. Nothing is computed and no device of the cluster is needed.

    What a step takes is predicted from the programs of the vertex functions and the steps of the graphs (docs/parallel.md has the
    formulas); meshes are gone through one by one, the strategies of the parts chosen by an integer programme, their stages by a
    dynamic programme.

    Args:
        model: with one or more vertex functions, on a CPU. It is called on tensors without memory, and stays as it is.
        batches: some global batches, as all ranks together train on them in a step: a `GraphBatch`, or `(batch, x, ...)`, the
            arguments of a call, or `(batch, {"x": x})`. Tensors may be on "meta": `torch.empty(batch.num_vertices, 128,
            device="meta")`.
        cluster: measured or described.
        objective: "throughput", the most graphs a second that fit into the memory; "memory", the least memory of a device; or
            "goodput", the most graphs a second times their `efficiency`: `batches` are then of several numbers of graphs, of
            which the best is chosen (`plan.batch_size`), and how many of them are accumulated before a step (`plan.accumulate`).
        strategies: those to choose from. "stages" are added by who knows that the model can be cut so (docs/parallel.md says what
            it may do between its parts), "hidden" by who knows that its vertex functions have columns to share, "vertices" by who
            calls the model with parts of graphs (`vf.parallel.divide`). The last are tried without being asked for where nothing
            else fits into the memory: a graph may be too large for a device. METIS divides the graphs for them, which takes
            seconds for each hundred thousand vertices.
        optimizer: what the optimizer keeps beside each parameter, in parameters: 2 for Adam, 1 for momentum, 0 for plain SGD.
        call: calls the model on one of `batches`, where that is not as said above.
        like: a plan by hand, whose mesh, strategies, stages and accumulation are taken; what comes back has its prediction.
        noise: for goodput, the noise scale of the gradients in graphs, as `GradientNoise` measures it.
        base: for goodput, graphs of a step that trains well: what others are compared with.

    Returns:
        A `Plan` with a prediction and the runners-up.

    Raises:
        InputError: nothing fits into the memory; the model cannot be gone through without numbers; SciPy is missing; goodput
            without `noise` and `base`, or these without it.
        BackendError: the backend "eager".

    Example:
        >>> plan = vf.parallel.plan(model, batches, vf.parallel.Cluster.load("cluster.json"))
        >>> print(plan)
        >>> model = plan.apply(model, mesh)
    """
    _check(batches, cluster, objective, strategies, like)
    if (objective == "goodput") != (noise is not None) or (noise is None) != (base is None):
        raise InputError(
            'objective="goodput", noise=... and base=... are given together: graphs are weighed by their noise'
        )
    observations = [observe(model, batch, call) for batch in batches]
    if noise is not None and base is not None:
        return _of_the_best_size(observations, cluster, strategies, optimizer, like, noise, base)
    return plan_of(observations, cluster, objective, strategies, optimizer, like)


def _of_the_best_size(
    observations: Sequence[Observation],
    cluster: Cluster,
    strategies: Collection[str],
    optimizer: float,
    like: Plan | None,
    noise: float,
    base: float,
) -> Plan:
    """The plan of the largest goodput: for each number of graphs, and each number of batches before a step, the fastest."""
    of_size: dict[int, list[Observation]] = {}
    for observation in observations:
        of_size.setdefault(observation.num_graphs, []).append(observation)
    candidates, considered = [], 0
    for size, accumulate in itertools.product(sorted(of_size), _ACCUMULATED if like is None else (like.accumulate,)):
        plans, looked_at = plans_of(of_size[size], cluster, "throughput", strategies, optimizer, like, accumulate)
        considered += looked_at
        for each in plans[:1]:
            assert each.prediction is not None
            goodput = each.prediction.graphs_per_second * efficiency(noise, size * accumulate, base)
            prediction = dataclasses.replace(each.prediction, goodput=goodput)
            candidates.append((goodput, dataclasses.replace(each, batch_size=size, prediction=prediction)))
    if not candidates:
        raise too_large(cluster)
    (_, best), *others = sorted(candidates, key=lambda pair: -pair[0])  # of equals the smallest
    shown = tuple((other.shape, base / goodput) for goodput, other in others[:MOST_RUNNERS_UP])
    return dataclasses.replace(best, runners_up=shown, considered=considered)


def _check(
    batches: Sequence[Any], cluster: Cluster, objective: str, strategies: Collection[str], like: Plan | None
) -> None:
    if not isinstance(cluster, Cluster):
        raise InputTypeError(f"cluster is a {type(cluster).__name__}; give a vf.parallel.Cluster")
    if isinstance(batches, (GraphBatch, str)) or not isinstance(batches, Sequence) or not batches:
        raise InputTypeError("batches is a list of batches, one or more: [(batch, x), ...]")
    if objective not in _OBJECTIVES:
        raise InputError(f"objective is {objective!r}; choose one of {', '.join(map(repr, _OBJECTIVES))}")
    if unknown := sorted(set(strategies) - set(STRATEGIES)):
        raise InputError(
            f"there is no strategy {unknown[0]!r} to plan with; there are {', '.join(map(repr, STRATEGIES))}"
        )
    if like is None and not set(strategies) & set(DATA):
        raise InputError(f"strategies has none for parameters; add one of {', '.join(map(repr, DATA))}")
    if like is not None and like.size != cluster.size:
        raise InputError(f"the plan by hand is for {like.size} ranks, the cluster has {cluster.size}")
