"""The plan that is predicted to be the best, of all meshes, strategies and stages, for a model as it was seen on some batches."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ..errors import InputError
from .assign import Problem, solve
from .balance import Ranks
from .cluster import Cluster
from .cost import Floats
from .divided_work import divided_loads, least_share, step_cost, why_not
from .observe import Observation
from .options import BY_DEFAULT, LIMITS, STRATEGIES, Loads, Mesh, Option, between, loads_of, options_of
from .partition import StepCost
from .plan import Plan, Prediction
from .predict import place
from .stages import cut_into_stages

MOST_RUNNERS_UP = 4


def plan_of(
    observations: Sequence[Observation],
    cluster: Cluster,
    objective: str = "throughput",
    strategies: Collection[str] = BY_DEFAULT,
    optimizer: float = 2.0,
    like: Plan | None = None,
) -> Plan:
    """The best plan for one objective."""
    accumulate = 1 if like is None else like.accumulate
    plans, considered = plans_of(observations, cluster, objective, strategies, optimizer, like, accumulate)
    if not plans:
        raise too_large(cluster)
    best, *others = plans
    shown = tuple((other.shape, other.prediction.seconds) for other in others[:MOST_RUNNERS_UP] if other.prediction)
    return dataclasses.replace(best, runners_up=shown, considered=considered)


def too_large(cluster: Cluster) -> InputError:
    return InputError(
        f"no plan fits into the {cluster.memory / 2**30:.3g} GiB of a device: allow more strategies, smaller batches, or "
        "max_vertices on the vertex functions"
    )


def plans_of(
    observations: Sequence[Observation],
    cluster: Cluster,
    objective: str,
    strategies: Collection[str],
    optimizer: float,
    like: Plan | None,
    accumulate: int,
) -> tuple[list[Plan], int]:
    """The best plan of each mesh on which one fits, the best of all first, and how many choices were looked at."""
    names = [part.name for part in observations[0].parts]
    for number, observation in enumerate(observations):
        if [part.name for part in observation.parts] != names:
            raise InputError(
                f"batch {number} runs other parts of the model than batch 0; plan with batches that run the same"
            )
    if like is not None and set(like.parts) != set(names):
        raise InputError(f"the plan by hand has the parts {sorted(like.parts)}, the model {names}")
    if like is not None and like.ranks("vertices") > 1:
        for reason in filter(None, map(why_not, observations)):
            raise InputError(f'the plan by hand has ranks of "vertices", and the model calls what has none: {reason}')
    search = _Search(observations, cluster, objective, optimizer, accumulate)
    meshes = _meshes(cluster, strategies, len(names), like)
    candidates = [search.candidate(mesh, pieces, strategies, like) for mesh, pieces in meshes]
    may_divide = like is None and ("vertices" in strategies or set(strategies) == set(BY_DEFAULT))
    if may_divide and all(each is None for each in candidates):  # a graph may be too large for a device, or for a node
        for mesh in _meshes_of_vertices(cluster):
            if mesh.vertices > cluster.devices and any(each is not None for each in candidates):
                break
            candidates.append(search.candidate(mesh, 1, strategies, None))
    return sorted((each for each in candidates if each is not None), key=search.key), search.considered


def _meshes(
    cluster: Cluster, strategies: Collection[str], num_parts: int, like: Plan | None
) -> Iterator[tuple[Mesh, int]]:
    """Meshes of all devices, and numbers of micro-batches."""
    if like is not None:
        yield Mesh(*(like.ranks(name) for name in ("data", "vertices", "hidden", "stages"))), like.micro_batches
        return
    divisors = [count for count in range(1, cluster.size + 1) if cluster.size % count == 0]
    for stages in divisors if "stages" in strategies else [1]:
        if stages > num_parts:
            break
        for hidden in divisors if "hidden" in strategies else [1]:
            if (
                cluster.size // stages
            ) % hidden == 0 and hidden <= cluster.devices:  # on one node: it talks in each step
                mesh = Mesh(cluster.size // stages // hidden, 1, hidden, stages)
                yield from ((mesh, count) for count in ((stages, 4 * stages, 16 * stages) if stages > 1 else (1,)))
    if "vertices" in strategies:  # on one node as well
        yield from ((mesh, 1) for mesh in _meshes_of_vertices(cluster) if mesh.vertices <= cluster.devices)


def _meshes_of_vertices(cluster: Cluster) -> Iterator[Mesh]:
    divisors = (count for count in range(2, cluster.size + 1) if cluster.size % count == 0)
    yield from (Mesh(cluster.size // vertices, vertices) for vertices in divisors)


class _Search:
    """The candidates of all meshes, for some batches."""

    def __init__(
        self,
        observations: Sequence[Observation],
        cluster: Cluster,
        objective: str,
        optimizer: float,
        accumulate: int = 1,
    ) -> None:
        self.observations, self.cluster, self.objective, self.optimizer = observations, cluster, objective, optimizer
        self.accumulate = accumulate
        self.names = [part.name for part in observations[0].parts]
        self.loads: dict[tuple[int, int, int, int], list[Loads | None]] = {}
        self.ranks: dict[int, list[Ranks]] = {}
        self.step_costs: dict[int, StepCost] = {}  # by ranks that share vertices
        self.considered = 0

    def key(self, found: Plan) -> tuple[float, float]:
        """What is least in the best plan."""
        assert found.prediction is not None
        pair = (found.prediction.seconds, found.prediction.memory)
        return pair if self.objective == "throughput" else (pair[1], pair[0])

    def candidate(self, mesh: Mesh, pieces: int, strategies: Collection[str], like: Plan | None) -> Plan | None:
        """The best plan on one mesh; None if none fits."""
        if mesh.vertices > 1 and mesh.vertices not in self.step_costs:
            given = None if like is None else like.step_cost
            self.step_costs[mesh.vertices] = given or step_cost(self.observations, self.cluster, mesh.vertices)
        loads = self._loads(mesh, pieces)
        if loads is None:
            return None
        options = [self._options(loads, part, mesh, strategies, like) for part in range(len(self.names))]
        costs = [self._between(loads, part, options, mesh, 1 / pieces) for part in range(len(self.names) - 1)]
        if mesh.stages == 1:
            chosen = self._choose(options, costs, 0, len(options), 1)
            return None if chosen is None else self._plan(mesh, 1, options, costs, chosen, [len(options)], loads)
        return self._in_stages(mesh, pieces, options, costs, like, loads)

    def _loads(self, mesh: Mesh, pieces: int) -> list[Loads] | None:
        """What the most loaded rank has of each batch; None if it cannot have so little that it fits."""
        key = (mesh.data, mesh.vertices, mesh.hidden if mesh.vertices > 1 else 1, pieces)
        if key not in self.loads:
            if mesh.data not in self.ranks:
                self.ranks[mesh.data] = [place(each, self.cluster, mesh.data) for each in self.observations]
            placed = list(zip(self.observations, self.ranks[mesh.data], strict=True))
            if mesh.vertices == 1:
                self.loads[key] = [loads_of(each, self.cluster, mesh.data, rank, pieces) for each, rank in placed]
            elif all(least_share(*each, mesh) * each[0].kept_bytes <= self.cluster.memory for each in placed):
                given = mesh.vertices, self.step_costs[mesh.vertices], mesh.hidden
                self.loads[key] = [divided_loads(each, self.cluster, mesh.data, rank, *given) for each, rank in placed]
            else:  # found without METIS
                self.loads[key] = [None]
        loads = [each for each in self.loads[key] if each is not None]
        return loads if len(loads) == len(self.loads[key]) else None

    def _in_stages(
        self,
        mesh: Mesh,
        pieces: int,
        options: list[list[Option]],
        costs: list[Floats],
        like: Plan | None,
        loads: list[Loads],
    ) -> Plan | None:
        n = len(options)
        seconds, choices = np.full((n, n + 1), np.inf), {}
        for start in range(n):
            for end in range(start + 1, n + 1):
                chosen = self._choose(options, costs, start, end, pieces)
                if chosen is not None:
                    choices[start, end] = chosen
                    seconds[start, end] = self._of_stage(options, costs, chosen, start, end, loads)
        cut = cut_into_stages(seconds, mesh.stages, pieces)
        if like is not None:
            numbers = [like.stages[name] for name in self.names]
            ends = [at + 1 for at in range(n) if at + 1 == n or numbers[at + 1] != numbers[at]]
            if numbers != sorted(numbers) or len(ends) != mesh.stages:
                raise InputError(f"stages go through the parts in their order, each with one or more: {self.names}")
            cut = (0.0, ends)
        if cut is None or not all(pair in choices for pair in zip([0, *cut[1]], cut[1], strict=False)):
            return None
        picked = [option for pair in zip([0, *cut[1]], cut[1], strict=False) for option in choices[pair]]
        return self._plan(mesh, pieces, options, costs, picked, cut[1], loads)

    def _options(
        self, loads: list[Loads], part: int, mesh: Mesh, strategies: Collection[str], like: Plan | None
    ) -> list[Option]:
        """The options of a part: means over the batches, and the most memory of any."""
        allowed = strategies if like is None else STRATEGIES
        of_batches = [
            options_of(each.loads[part], self.cluster, mesh, allowed, self.optimizer, self.accumulate) for each in loads
        ]
        options = [_mean(each) for each in zip(*of_batches, strict=True)]
        if like is not None:
            wanted = like.parts[self.names[part]]
            options = [option for option in options if option.name == wanted] or options[:1]
            if (
                options[0].name != wanted
                and options[0].memory
                and self.observations[0].parts[part].param_bytes
                and mesh.data > 1
            ):
                raise InputError(f"part {self.names[part]!r} cannot be {wanted!r} on this mesh")
        return options

    def _between(self, loads: list[Loads], part: int, options: list[list[Option]], mesh: Mesh, share: float) -> Floats:
        costs = [
            between(each.loads[part], options[part], options[part + 1], self.cluster, mesh, share) for each in loads
        ]
        return np.mean(costs, axis=0)  # type: ignore[no-any-return]

    def _choose(
        self, options: list[list[Option]], costs: list[Floats], start: int, end: int, pieces: int
    ) -> list[int] | None:
        self.considered += int(np.prod([len(each) for each in options[start:end]]))
        some = options[start:end]
        seconds = [np.array([pieces * option.seconds + option.after for option in each]) for each in some]
        is_for_memory = self.objective == "memory"
        return solve(
            Problem(
                seconds,
                [np.array([option.memory for option in each]) for each in some],
                [np.array([option.transient for option in each]) for each in some],
                [pieces * each for each in costs[start : end - 1]],
                [[_way(option) for option in each] for each in some],
                self.cluster.memory,
                seconds_weight=0.0 if is_for_memory else 1.0,
                memory_weight=1.0 if is_for_memory else 0.0,
            )
        )

    def _of_stage(
        self,
        options: list[list[Option]],
        costs: list[Floats],
        chosen: Sequence[int],
        start: int,
        end: int,
        loads: list[Loads],
    ) -> float:
        """The seconds of a micro-batch in a stage, with sending the outputs on."""
        picked = [options[start + at][option] for at, option in enumerate(chosen)]
        inner = sum(float(costs[start + at][a, b]) for at, (a, b) in enumerate(itertools.pairwise(chosen)))
        return (
            sum(option.seconds for option in picked)
            + inner
            + (self._sent(end - 1, loads) if end < len(options) else 0.0)
        )

    def _sent(self, part: int, loads: list[Loads]) -> float:
        """The seconds of sending the outputs of a part to the next stage, and their gradients back; the slower link counts."""
        size = float(np.mean([each.loads[part].part.output_bytes * each.loads[part].share for each in loads]))
        links = [self.cluster.links[name] for name in ("devices", "nodes") if name in self.cluster.links]
        return 2 * max(link.latency + size / link.bandwidth for link in links)

    def _plan(
        self,
        mesh: Mesh,
        pieces: int,
        options: list[list[Option]],
        costs: list[Floats],
        chosen: Sequence[int],
        ends: Sequence[int],
        loads: list[Loads],
    ) -> Plan:
        starts = [0, *ends[:-1]]
        picked = [each[option] for each, option in zip(options, chosen, strict=True)]
        times = [
            self._of_stage(options, costs, chosen[start:end], start, end, loads)
            for start, end in zip(starts, ends, strict=True)
        ]
        syncs = [sum(option.after for option in picked[start:end]) for start, end in zip(starts, ends, strict=True)]
        held = [picked[start:end] for start, end in zip(starts, ends, strict=True)]
        memory = max(sum(o.memory for o in each) + max(o.transient for o in each) for each in held)
        seconds = sum(times) + (pieces - 1) * max(times) + max(syncs)
        worst = int(np.argmax(times))
        compute = np.sum([option.compute for option in held[worst]], axis=0) * pieces
        parts = dict(zip(LIMITS, compute.tolist(), strict=True))
        parts["exchanges"] = sum(option.exchanged for option in held[worst])
        parts["communication"] = pieces * (times[worst] - float(compute.sum()) / pieces) + syncs[worst]
        parts["communication"] -= parts["exchanges"]
        parts["waiting for other stages"] = seconds - sum(parts.values())
        imbalance = float(np.mean([each.imbalance for each in loads]))
        graphs = float(np.mean([observation.num_graphs for observation in self.observations]))
        shares = {name: float(value / seconds) for name, value in parts.items() if value > 1e-9 * seconds}
        traffic = max(sum(option.traffic for option in each) for each in held)
        prediction = Prediction(
            float(seconds) * self.accumulate,
            graphs / seconds,
            float(memory),
            float(traffic) * self.accumulate,
            shares,
            max(shares, key=shares.__getitem__),
            imbalance,
        )
        stages = {
            name: number
            for number, (start, end) in enumerate(zip(starts, ends, strict=True))
            for name in self.names[start:end]
        }
        dimensions = {name: count for name, count in dataclasses.asdict(mesh).items() if count > 1} or {"data": 1}
        strategies = {name: option.name for name, option in zip(self.names, picked, strict=True)}
        stages = stages if mesh.stages > 1 else {}
        return Plan(
            dimensions, strategies, stages, pieces, self.accumulate,
            step_cost=self.step_costs.get(mesh.vertices), prediction=prediction,
        )  # fmt: skip


def _mean(options: Sequence[Option]) -> Option:
    first = options[0]
    names = "inside", "after", "traffic", "exchanged"
    mean = {name: float(np.mean([getattr(each, name) for each in options])) for name in names}
    most = {name: max(getattr(each, name) for each in options) for name in ("memory", "transient")}
    return Option(first.name, np.mean([each.compute for each in options], axis=0), **mean, **most)


def _way(option: Option) -> str:
    """How parameters are divided: all of a model by DDP, or all by `fully_shard`; "" goes with both."""
    if option.name == "whole":
        return "whole" if option.after else ""
    return "" if option.name == "hidden" else "sharded"
