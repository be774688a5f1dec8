"""What each strategy of each part costs on a mesh: seconds, memory, traffic. The formulas are in docs/parallel.md."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .cluster import Cluster
from .cost import Floats
from .levels import Integers
from .observe import ModelPart, Observation
from .predict import work_of_ranks
from .work import COUNTED

DATA = ("whole", "gathered", "sharded")  # what becomes of a part's parameters where graphs are divided
STRATEGIES = (*DATA, "vertices", "hidden", "stages")
BY_DEFAULT = DATA  # what is searched for unless more is asked for: any model can be spread so
LIMITS = (
    "products", "parameters", "memory", "functions", "new memory", "launches", "small launches", "PyTorch calls", "Python"
)  # fmt: skip
_DIVIDED = np.array([name in ("flops", "weights", "bytes", "slow", "fresh") for name in COUNTED])


@dataclass(frozen=True)
class Mesh:
    """How many ranks share the graphs, the vertices of a graph, the columns, and the parts; ranks of one group of vertices, or of
    columns, are neighbours."""

    data: int = 1
    vertices: int = 1
    hidden: int = 1
    stages: int = 1

    @property
    def size(self) -> int:
        return self.with_rows * self.hidden * self.stages

    @property
    def with_rows(self) -> int:
        """The ranks that have different rows of a batch."""
        return self.data * self.vertices


@dataclass(frozen=True)
class Option:
    """A strategy of a part.

    Attributes:
        name: of the strategy.
        compute: seconds of what is counted (`work.COUNTED`) and of Python, for each micro-batch, [len(LIMITS)].
        inside: seconds of communication in each micro-batch; of these `exchanged`, where ranks share the vertices of graphs.
        after: seconds of communication once a batch; what is done once for several accumulated batches, in equal parts.
        memory: bytes that last: parameters, gradients, the optimizer's state, and what is kept for the backward pass.
        transient: bytes while the part runs.
        traffic: bytes that a rank sends in a batch.
    """

    name: str
    compute: Floats
    inside: float
    after: float
    memory: float
    transient: float
    traffic: float
    exchanged: float = 0.0

    @property
    def seconds(self) -> float:
        """Of a micro-batch, without what comes once a step."""
        return float(self.compute.sum()) + self.inside


@dataclass(frozen=True)
class Load:
    """What the most loaded rank has of a part.

    Attributes:
        work: [len(COUNTED)] of a micro-batch; `calls`: of vertex functions.
        rows: [steps], the rows of each step of its calls; `state_bytes`: of each of these rows.
        share: of the graphs' vertices.
        exchanged: seconds in which ranks that share the vertices of graphs tell each other states, and gradients of states; of
            these `latency` however narrow the states are.
        sent, held: bytes that a rank sends for it, and has for it.
    """

    part: ModelPart
    work: Floats
    calls: int
    rows: Floats
    state_bytes: Floats
    share: float
    exchanged: float = 0.0
    latency: float = 0.0
    sent: float = 0.0
    held: float = 0.0


@dataclass(frozen=True)
class Loads:
    """All parts on the most loaded rank of one batch; `imbalance` is its time over the mean."""

    loads: list[Load]
    imbalance: float


def loads_of(
    observation: Observation, cluster: Cluster, num_ranks: int, rank: Integers, micro_batches: int = 1
) -> Loads:
    """What the most loaded of some data ranks, where graph g is on `rank[g]`, has to do in a micro-batch."""
    share = 1 / micro_batches
    works = [work_of_ranks(part, rank, num_ranks, share) for part in observation.parts]
    seconds = np.sum(works, axis=0) @ cluster.seconds_of()
    worst = int(np.argmax(seconds))
    fixed = cluster.call * max(1, sum(len(part.calls) for part in observation.parts))
    loads = [
        _load(part, work[worst], rank, num_ranks, worst, share)
        for part, work in zip(observation.parts, works, strict=True)
    ]
    return Loads(loads, (float(seconds[worst]) + fixed) / (float(seconds.mean()) + fixed))


def _load(part: ModelPart, work: Floats, rank: Integers, num_ranks: int, worst: int, share: float) -> Load:
    rows, state_bytes, of_vertices = [np.zeros(0)], [np.zeros(0)], [0.0]
    for call in part.calls:
        of_rank = call.levels.of_ranks(rank, num_ranks)[0][worst].sum(-1)
        rows.append(of_rank[of_rank > 0] * share)
        state_bytes.append(np.full(len(rows[-1]), call.state_bytes))
        of_vertices.append(float(of_rank.sum() / max(1.0, call.levels.rows.sum())))
    if not part.calls:
        of_vertices.append(float(np.mean(rank == worst)) if len(rank) else 0.0)
    return Load(part, work, len(part.calls), np.concatenate(rows), np.concatenate(state_bytes), max(of_vertices))


def options_of(
    load: Load, cluster: Cluster, mesh: Mesh, allowed: Collection[str], optimizer: float, accumulate: int = 1
) -> list[Option]:
    """The strategies of a part on a mesh, those that are allowed; `optimizer` is what it keeps beside each parameter, in
    parameters. Gradients of `accumulate` batches are added before a step: ranks average them once (`no_sync`), but gather and
    scatter parameters that are divided in each batch."""
    part, ranks = load.part, mesh.with_rows
    params, trained = part.param_bytes, part.trained_bytes
    state = params + (1 + optimizer) * trained  # with the gradients
    kept, passing = (part.kept_bytes + part.output_bytes) * load.share + load.held, part.passing_bytes * load.share
    compute = np.append(load.work * cluster.seconds_of(), cluster.call * load.calls)
    plain = Option("whole", compute, load.exchanged, 0.0, state + kept, passing, load.sent, load.exchanged)
    if not params:
        options = [plain]
    else:
        reduced = cluster.collective("all_reduce", trained, ranks, mesh.hidden)
        gathered = cluster.collective("all_gather", params, ranks, mesh.hidden)
        scattered = cluster.collective("reduce_scatter", trained, ranks, mesh.hidden)
        part_of = (ranks - 1) / ranks
        options = [
            replace(plain, after=reduced / accumulate, traffic=load.sent + 2 * part_of * trained / accumulate),
            Option("gathered", compute, load.exchanged, gathered + scattered, params + state / ranks + kept,
                   trained + passing, load.sent + part_of * (params + trained), load.exchanged),
            Option("sharded", compute, load.exchanged, 2 * gathered + scattered, state / ranks + kept,
                   params + trained + passing, load.sent + part_of * (2 * params + trained), load.exchanged),
        ]  # fmt: skip
        if ranks == 1 or mesh.size > ranks:  # beside ranks that share columns or parts, parameters are whole
            options = options[:1]
    options = [option for option in options if option.name in allowed or not params or ranks == 1 or mesh.size > ranks]
    if mesh.hidden > 1 and "hidden" in allowed and load.calls:
        options.append(_hidden(load, cluster, mesh, compute, state, kept, passing, accumulate))
    return options


def _hidden(
    load: Load,
    cluster: Cluster,
    mesh: Mesh,
    compute: Floats,
    state: float,
    kept: float,
    passing: float,
    accumulate: int,
) -> Option:
    """Columns over ranks: in each step all ranks get the states of its rows, and send gradients of the states back. Where ranks
    share the vertices of graphs as well, they exchange the columns that each has."""
    ranks, part = mesh.hidden, load.part
    divided = compute.copy()
    divided[:-1][_DIVIDED] /= ranks
    sent = load.rows * load.state_bytes
    gathers = [
        cluster.collective(name, float(size), ranks) for name in ("all_gather", "reduce_scatter") for size in sent
    ]
    exchanged = load.latency + (load.exchanged - load.latency) / ranks
    after = cluster.collective("all_reduce", part.trained_bytes / ranks, mesh.with_rows, ranks) / accumulate
    traffic = 2 * (ranks - 1) / ranks * float(sent.sum()) + load.sent / ranks
    traffic += 2 * (mesh.with_rows - 1) / mesh.with_rows * part.trained_bytes / ranks / accumulate
    memory = state / ranks + kept / ranks + float(sent.sum())
    inside = float(sum(gathers)) + exchanged
    return Option("hidden", divided, inside, after, memory, passing / ranks, traffic, exchanged)


def between(
    first: Load, options: Sequence[Option], next_options: Sequence[Option], cluster: Cluster, mesh: Mesh, share: float
) -> Floats:
    """What it costs to bring the outputs of a part, and back their gradients, from one strategy to another."""
    costs = np.zeros((len(options), len(next_options)))
    size = first.part.output_bytes * first.share * share
    for s, option in enumerate(options):
        for t, following in enumerate(next_options):
            if option.name == "hidden":
                costs[s, t] += cluster.collective("all_gather", size, mesh.hidden)
            if following.name == "hidden":
                costs[s, t] += cluster.collective("all_reduce", size, mesh.hidden)
    return costs
