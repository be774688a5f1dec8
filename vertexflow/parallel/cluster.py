"""`vf.parallel.Cluster`: what devices do in a second, and what it costs that they tell each other; measured or described."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, InputTypeError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_FORMAT = "vertexflow cluster 1"


@dataclass(frozen=True)
class Link:
    """What connects devices: a message of n bytes takes `latency + n / bandwidth`.

    Attributes:
        latency: alpha, in seconds.
        bandwidth: 1 / beta, in bytes a second, of one device.
    """

    latency: float
    bandwidth: float

    def __post_init__(self) -> None:
        _check_number("Link", "latency", self.latency, zero=True)
        _check_number("Link", "bandwidth", self.bandwidth)


@dataclass(frozen=True)
class Cluster:
    """Devices of one sort, and their links. Described from data sheets, or measured (`Cluster.measure`).

    A plan needs no device of the cluster: it is made on any machine.

    Args:
        nodes, devices: how many machines, and devices of each.
        flops: of products in a second, of one device, in the dtype of the model.
        bandwidth: bytes a second that one device reads and writes in its memory.
        memory: bytes of one device.
        links: what connects the devices of a node, and the nodes: `{"devices": Link(3e-6, 300e9), "nodes": Link(8e-6, 50e9)}`. A
            measured cluster has links for each collective as well (`"devices.all_reduce"`), and for exchanges of vertices
            (`"devices.all_to_all"`).
        launch: seconds of one launch of a loop or product on the whole device.
        small: the same of a launch over at most 1,024 elements; None: as any launch.
        call: seconds of a step of a model beside its launches: Python, autograd.
        cache: bytes a second at which products read parameters; None: `bandwidth`.
        slow: elements a second of functions such as `exp` and `tanh`; None: as many as are read and written in that time, so
            that they cost nothing beside.
        python: seconds of a call of PyTorch, where parts of a model are no generated code.
        fresh: bytes a second that PyTorch's own operations read and write of tensors of 32 MiB, which they get from the system
            anew; None: as any others. Of smaller ones so much less is got anew.

    Raises:
        InputError, InputTypeError: numbers that are none, or not positive; links that are missing.

    Example:
        >>> cluster = vf.parallel.Cluster(nodes=128, devices=8, flops=400e12, bandwidth=3.3e12, memory=80e9,
        ...     links={"devices": vf.parallel.Link(3e-6, 450e9), "nodes": vf.parallel.Link(10e-6, 50e9)})
        >>> cluster.save("cluster.json")
    """

    nodes: int
    devices: int
    flops: float
    bandwidth: float
    memory: float
    links: Mapping[str, Link] = field(default_factory=dict)
    launch: float = 4e-6
    small: float | None = None
    call: float = 2e-4
    cache: float | None = None
    slow: float | None = None
    python: float = 1e-5
    fresh: float | None = None

    def __post_init__(self) -> None:
        for name in ("nodes", "devices"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise InputTypeError(f"Cluster({name}=...) is {value!r}; give an integer")
            if value < 1:
                raise InputError(f"Cluster({name}={value}): give 1 or more")
        for name in ("flops", "bandwidth", "memory"):
            _check_number("Cluster", name, getattr(self, name))
        for name in ("launch", "call", "python"):
            _check_number("Cluster", name, getattr(self, name), zero=True)
        for name in ("small", "cache", "slow", "fresh"):
            if getattr(self, name) is not None:
                _check_number("Cluster", name, getattr(self, name), zero=name == "small")
        if not isinstance(self.links, Mapping) or not all(isinstance(link, Link) for link in self.links.values()):
            raise InputTypeError("Cluster(links=...): give a mapping from names to vf.parallel.Link")
        for name, count in (("devices", self.devices), ("nodes", self.nodes)):
            if count > 1 and name not in self.links:
                raise InputError(
                    f'Cluster: there are {count} {name} and no links["{name}"]; give vf.parallel.Link(latency, bandwidth)'
                )

    @property
    def size(self) -> int:
        """The number of devices."""
        return self.nodes * self.devices

    @classmethod
    def measure(cls, mesh: DeviceMesh | None = None, *, seconds: float = 20.0) -> Cluster:
        """Measure the devices of this process, and, with a mesh, its links. All ranks of the mesh call it; all get the same.

        The devices are timed on training steps of small vertex functions made for that (never on those that are planned), on all
        ranks at the same time; the collectives along each dimension of the mesh by how much longer a training step is with them:
        messages of 1 kB to 4 MB.

        Args:
            mesh: of CPUs. Its first of two dimensions goes over nodes, the last over the devices of one; None: this process.
            seconds: how long, about, each of these takes: to prepare the steps, to time them, and to time the collectives along a
                dimension. Where the machine is slow, fewer steps are prepared and timed.

        Raises:
            InputError: a mesh of more than two dimensions, or of GPUs, which are described instead.
        """
        from .measure import measure

        return measure(mesh, seconds)

    def seconds_of(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """What one of each that is counted costs (`work.COUNTED`), in seconds."""
        small = self.launch if self.small is None else self.small
        cache = self.bandwidth if self.cache is None else self.cache
        slow = 0.0 if self.slow is None else 1 / self.slow
        fresh = 0.0 if self.fresh is None else max(0.0, 1 / self.fresh - 1 / self.bandwidth)
        return np.array([1 / self.flops, 1 / cache, 1 / self.bandwidth, slow, fresh, self.launch, small, self.python])

    def collective(self, name: str, num_bytes: float, ranks: int, stride: int = 1) -> float:
        """The seconds of a collective over n `ranks`, each `stride` devices from the next: by recursive halving and doubling (R.
        Thakur, R. Rabenseifner, W. Gropp, Optimization of collective communication operations in MPICH, 2005),

            all_gather, reduce_scatter      ceil(log2 n) alpha +   (n - 1) / n * bytes / bandwidth
            all_reduce                    2 ceil(log2 n) alpha + 2 (n - 1) / n * bytes / bandwidth
            all_to_all                           (n - 1) alpha +                 bytes / bandwidth

        (the last by exchanges of pairs) with the link between nodes as soon as the ranks are on several.

        Args:
            num_bytes: of the whole: what is reduced, or what all have after they gathered it; of "all_to_all", what a rank sends
                to others, or gets of them.
        """
        if ranks <= 1:
            return 0.0
        kind = "devices" if ranks * stride <= self.devices or self.nodes == 1 else "nodes"
        link = self.links.get(f"{kind}.{name}", self.links.get(kind))
        if link is None:
            raise InputError(f'the cluster has no links["{kind}"], over which {ranks} ranks would talk')
        if name == "all_to_all":
            return (ranks - 1) * link.latency + num_bytes / link.bandwidth
        times = 2 if name == "all_reduce" else 1
        rounds = (ranks - 1).bit_length()
        return times * (rounds * link.latency + (ranks - 1) / ranks * num_bytes / link.bandwidth)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=2)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Cluster:
        """Read what `save` wrote.

        Raises:
            InputError: the file is something else.
        """
        try:
            read = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is no JSON: {error}") from error
        if not isinstance(read, dict) or read.pop("format", None) != _FORMAT:
            raise InputError(f'{path} is no cluster: "format" is not "{_FORMAT}"')
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(read) - known):
            raise InputError(f"{path} has {', '.join(unknown)}, which no cluster has")
        if missing := sorted({"nodes", "devices", "flops", "bandwidth", "memory"} - set(read)):
            raise InputError(f"{path} has no {', '.join(missing)}")
        try:
            links = {name: Link(**link) for name, link in read.pop("links", {}).items()}
        except (TypeError, AttributeError) as error:
            raise InputError(f"{path}: a link has a latency and a bandwidth, and nothing else") from error
        return cls(links=links, **read)


def _check_number(owner: str, name: str, value: Any, zero: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise InputTypeError(f"{owner}({name}=...) is {value!r}; give a number")
    if not (0 < value < math.inf or (zero and value == 0)):
        raise InputError(f"{owner}({name}={value}): give a {'number from 0 up' if zero else 'positive number'}")
