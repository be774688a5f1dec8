"""`vf.parallel.Plan`: how a model is spread over a mesh, and what is predicted of it; readable, comparable, kept as JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import InputError, InputTypeError
from .options import STRATEGIES
from .partition import StepCost

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

DIMENSIONS = ("stages", "data", "vertices", "hidden")
_FORMAT = "vertexflow plan 1"
_OF_PARTS = tuple(name for name in STRATEGIES if name not in ("vertices", "stages"))


@dataclass(frozen=True)
class Prediction:
    """What a step of a plan takes, of the most loaded rank, by the cost model.

    Attributes:
        seconds: of a training step, with all the batches that are accumulated for it.
        graphs_per_second: of all ranks together.
        memory: bytes of a device at its peak.
        traffic: bytes that a rank sends in a step.
        shares: what the seconds are made of, each as a part of all.
        limited_by: the largest of them.
        imbalance: the time of the most loaded rank over the mean of all.
        goodput: graphs a second times `efficiency`, where that was the objective.
    """

    seconds: float
    graphs_per_second: float
    memory: float
    traffic: float
    shares: Mapping[str, float]
    limited_by: str
    imbalance: float
    goodput: float | None = None


@dataclass(frozen=True)
class Plan:
    """A strategy for every part of a model, on a mesh. Found by `vf.parallel.plan`, or written by hand in the same form.

    Args:
        mesh: ranks of each dimension: "data", "vertices", "hidden", "stages"; those that are left out are 1.
        parts: the strategy of each part, by the name of its module ("" is the model itself): "whole" (each rank has its
            parameters, and gradients are averaged: DDP), "gathered" and "sharded" (each data rank has a piece of its parameters,
            gradients and optimizer state: `fully_shard`, which keeps what it has gathered until the backward pass, or gathers it
            again), "hidden" (its columns over the ranks of "hidden").
        stages: the stage of each part, from 0 on, where there are several.
        micro_batches: into how many pieces a batch is cut for the stages.
        accumulate: of how many batches gradients are added before a step of the optimizer, which is the caller's to do (with
            DDP's `no_sync` in all but the last).
        batch_size: the graphs of each of these batches, of all ranks together, where the plan was to choose it.
        step_cost: by which the graphs were divided that were predicted, where ranks share their vertices: so are
            `vf.parallel.divide(..., cost=plan.step_cost)`.
        prediction, runners_up, considered: what `vf.parallel.plan` says of it: its seconds and bytes; other plans' shapes with
            their seconds (for goodput, seconds in which they come as far as with one step of `base` graphs); and how many
            choices there were.

    Raises:
        InputError: an unknown dimension or strategy.

    Example:
        >>> by_hand = vf.parallel.Plan({"data": 8}, {"embed": "sharded", "tree": "gathered", "out": "gathered"})
        >>> by_hand = vf.parallel.plan(model, batches, cluster, like=by_hand)      # with its prediction
        >>> print(plan.compare(by_hand))
    """

    mesh: Mapping[str, int]
    parts: Mapping[str, str]
    stages: Mapping[str, int] = field(default_factory=dict)
    micro_batches: int = 1
    accumulate: int = 1
    batch_size: int | None = None
    step_cost: StepCost | None = None
    prediction: Prediction | None = None
    runners_up: tuple[tuple[str, float], ...] = ()
    considered: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.mesh, Mapping) or not isinstance(self.parts, Mapping):
            raise InputTypeError('a plan is made of mappings: Plan({"data": 4}, {"": "sharded"})')
        for name, count in self.mesh.items():
            if name not in DIMENSIONS:
                raise InputError(f"the mesh has a dimension {name!r}; there are {', '.join(map(repr, DIMENSIONS))}")
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError(f"the mesh has {count!r} ranks of {name!r}; give an integer from 1 up")
        for name, strategy in self.parts.items():
            if strategy not in _OF_PARTS:
                raise InputError(
                    f"part {name!r} has the strategy {strategy!r}; there are {', '.join(map(repr, _OF_PARTS))}"
                )
        num_stages = self.ranks("stages")
        for name in self.stages:
            if name not in self.parts or not 0 <= self.stages[name] < num_stages:
                raise InputError(
                    f"part {name!r} is in stage {self.stages[name]}: there are {num_stages}, and the parts {list(self.parts)}"
                )
        if num_stages > 1 and set(self.stages) != set(self.parts):
            raise InputError(f"there are {num_stages} stages; give the stage of each part: stages={{name: number}}")
        if self.ranks("vertices") > 1 and num_stages > 1 and self.ranks("hidden") > 1:
            raise InputError(
                f'the mesh has {self.ranks("vertices")} ranks of "vertices", {self.ranks("hidden")} of "hidden" and {num_stages} '
                'of "stages", which are not carried out all together; any two of them are'
            )
        if self.ranks("vertices") > 1 and num_stages > 1 and self.micro_batches != 1:
            raise InputError(
                f"micro_batches is {self.micro_batches!r}; a part of a graph is not cut: where ranks share the vertices, it goes "
                "through the stages in one piece"
            )
        for name in ("micro_batches", "accumulate", "batch_size"):
            value = getattr(self, name)
            if value is None and name == "batch_size":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; give an integer from 1 up")

    def ranks(self, dimension: str) -> int:
        """The ranks of a dimension of the mesh."""
        return self.mesh.get(dimension, 1)

    @property
    def size(self) -> int:
        """The ranks of the mesh."""
        return math.prod(map(self.ranks, DIMENSIONS))

    @property
    def with_rows(self) -> int:
        """The ranks that have different rows of a batch: other graphs, or other vertices of them."""
        return self.ranks("data") * self.ranks("vertices")

    @property
    def shape(self) -> str:
        """The plan in a line."""
        dimensions = " x ".join(f"{name} {self.ranks(name)}" for name in DIMENSIONS if self.ranks(name) > 1)
        strategies = ", ".join(dict.fromkeys(self.parts.values()))
        micro = f", {self.micro_batches} micro-batches" if self.micro_batches > 1 else ""
        graphs = f" of {self.batch_size:,} graphs" if self.batch_size else ""
        several = (
            f", {self.accumulate} batch{'es' * (self.accumulate > 1)}{graphs} a step"
            if graphs or self.accumulate > 1
            else ""
        )
        return f"{dimensions or 'one rank'}: {strategies}{micro}{several}"

    def apply(
        self,
        model: nn.Module,
        mesh: DeviceMesh | None = None,
        batch: Any = None,
        *,
        rows: Mapping[str, str | None] | None = None,
    ) -> nn.Module:
        """The model as the plan has it, on the ranks of a mesh; all of them call it.

        On meshes of "data" and "vertices" parts are "whole", "gathered" or "sharded"; with "hidden" or "stages" among the
        dimensions they are "whole" or "hidden". With "vertices", the model is called with parts of graphs
        (`vf.parallel.divide`), each rank with its own, ranks of "hidden" with the same. `vf.parallel.mean` makes losses whose
        gradients are those of the whole batch (with ranks of "hidden" or "stages", `group=` are those that have different rows,
        `mesh["data"]` or `mesh["vertices"]`), and `BalancedSampler` gives out the graphs.

        Args:
            model: with the parts of the plan. Its parameters are sharded, or cut to the columns of this rank, in place, unless
                all are whole; of several stages, each rank keeps the parts of its own.
            mesh: a `DeviceMesh` of one dimension, of as many ranks as the plan, or with dimensions of the plan's names ("data",
                "vertices", "hidden", "stages") and sizes.
            batch: where parts are "hidden", a batch as `vf.parallel.plan` takes, with the inputs and dtypes of those to come: the
                vertex functions are traced, to see which columns ranks can share.
            rows: where parts are in stages, what the rows of the model's arguments are, with which they are cut into
                micro-batches: `{"x": "vertices", "labels": "graphs", "table": None}`; "edges", "roots", "leaves", "vertices of
                kind 'leaf'" as well, "inputs.x" for an entry of an argument, None for what is given whole.

        Returns:
            The model itself, or, where parameters are whole on several ranks, a `DistributedDataParallel` around it. All ranks
            of "hidden" and "stages" call it with the same arguments, and get what it gives.

        Raises:
            InputError: the model or the mesh is not that of the plan, a vertex function has no columns that ranks can share, or
                `rows` has an argument that the model has not. Nothing was changed then.
        """
        from .apply import apply

        return apply(self, model, mesh, batch, rows)

    def __str__(self) -> str:
        """A table of the parts, and what is predicted."""
        width = max([4, *(len(_shown(name)) for name in self.parts)])
        several = self.ranks("stages") > 1
        lines = [f"plan: {self.shape}", f"  {'part':<{width}}  strategy{'  stage' if several else ''}"]
        for name, strategy in self.parts.items():
            stage = f"  {self.stages[name]}" if several else ""
            lines.append(f"  {_shown(name):<{width}}  {strategy:<8}{stage}".rstrip())
        if self.ranks("vertices") > 1:
            cost = "" if self.step_cost is None else ", cost=plan.step_cost"
            of = f"vf.parallel.divide(graphs, {self.ranks('vertices')}{cost})"
            lines.append(
                f'each rank calls the model with its part of the graphs: {of}[mesh["vertices"].get_local_rank()]'
            )
        if self.prediction is not None:
            p = self.prediction
            shares = sorted(p.shares.items(), key=lambda item: -item[1])
            told = ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.01)
            lines += [
                f"predicted: {_seconds(p.seconds)} a step, {p.graphs_per_second:,.0f} graphs a second, most loaded rank "
                f"{p.imbalance:.3f} of the mean",
                *([] if p.goodput is None else [f"  goodput {p.goodput:,.0f} graphs a second"]),
                f"  memory {_bytes(p.memory)} of a device, traffic {_bytes(p.traffic)} of a rank in a step",
                f"  limited by {p.limited_by}: {told}",
            ]
        if self.runners_up:
            lines.append(f"runners-up, of {self.considered} that were looked at:")
            lines += [f"  {_seconds(seconds)}  {shape}" for shape, seconds in self.runners_up]
        return "\n".join(lines)

    def compare(self, other: Plan) -> str:
        """What two plans have differently, and their predictions side by side.

        Raises:
            InputTypeError: `other` is no plan.
        """
        if not isinstance(other, Plan):
            raise InputTypeError(f"a plan is compared with a plan, not with a {type(other).__name__}")
        rows = [("mesh", self.shape.split(":")[0], other.shape.split(":")[0])]
        if (self.micro_batches, other.micro_batches) != (1, 1):
            rows.append(("micro-batches", str(self.micro_batches), str(other.micro_batches)))
        if (self.accumulate, self.batch_size) != (other.accumulate, other.batch_size):
            ours_at, theirs_at = (f"{plan.accumulate} x {plan.batch_size or '-'}" for plan in (self, other))
            rows.append(("batches x graphs a step", ours_at, theirs_at))
        for name in dict.fromkeys([*self.parts, *other.parts]):
            pair = [
                f"{plan.parts.get(name, '-')}{f', stage {plan.stages[name]}' if name in plan.stages else ''}"
                for plan in (self, other)
            ]
            if pair[0] != pair[1]:
                rows.append((_shown(name), pair[0], pair[1]))
        if self.prediction and other.prediction:
            ours, theirs = self.prediction, other.prediction
            rows += [
                ("seconds a step", _seconds(ours.seconds), _seconds(theirs.seconds)),
                ("graphs a second", f"{ours.graphs_per_second:,.0f}", f"{theirs.graphs_per_second:,.0f}"),
                ("memory", _bytes(ours.memory), _bytes(theirs.memory)),
                ("traffic", _bytes(ours.traffic), _bytes(theirs.traffic)),
                ("limited by", ours.limited_by, theirs.limited_by),
            ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=2)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read what `save` wrote, or what was written by hand: "format", "mesh" and "parts" are enough.

        Raises:
            InputError: the file is something else.
        """
        try:
            read = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is no JSON: {error}") from error
        if not isinstance(read, dict) or read.pop("format", None) != _FORMAT:
            raise InputError(f'{path} is no plan: "format" is not "{_FORMAT}"')
        if wrong := sorted(set(read) - set(cls.__dataclass_fields__)) or sorted({"mesh", "parts"} - set(read)):
            raise InputError(f"{path}: {', '.join(wrong)} is unknown or missing in a plan")
        if read.get("prediction") is not None:
            read["prediction"] = Prediction(**read["prediction"])
        if read.get("step_cost") is not None:
            read["step_cost"] = StepCost(**read["step_cost"])
        read["runners_up"] = tuple((shape, seconds) for shape, seconds in read.get("runners_up", ()))
        return cls(**read)


def _shown(name: str) -> str:
    return name or "(the model)"


def _seconds(seconds: float) -> str:
    return (
        f"{seconds:.3g} s"
        if seconds >= 1
        else f"{seconds * 1e3:.3g} ms"
        if seconds >= 1e-3
        else f"{seconds * 1e6:.3g} us"
    )


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
