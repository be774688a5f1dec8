"""Graph in, graph out: what the user detached, to generated code the value itself, and a constant to gradients of gradients."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from ... import segments
from ..nodes import ancestors
from .rewrite import replace

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten


def _clone(value: Tensor) -> Tensor:
    return value.clone()


_stop = torch.library.custom_op("vertexflow::stop", _clone, mutates_args=())
torch.library.register_fake("vertexflow::stop", lambda value: torch.empty_like(value))
STOP = torch.ops.vertexflow.stop.default


def mark_stops(trace: Trace) -> None:
    """Rewrite `trace.graph` in place: `detach` in the forward pass becomes `STOP`, which passes leave alone."""
    forward = ancestors([*trace.scatters.values(), *trace.pushes.values()])
    for node in trace.graph.nodes:
        # A maximum that is subtracted and added again has no gradient anyway (`segments`).
        of_maximum = all(user.target is segments.SEGMENT_MAX for user in node.users)
        if node.target is aten.detach.default and node in forward and not of_maximum:
            node.target = STOP


def take_out_stops(trace: Trace) -> None:
    """Rewrite `trace.graph` in place: `STOP` becomes the value itself; `trace.with_stops` keeps the graph with it."""
    stops = [node for node in trace.graph.nodes if node.target is STOP]
    if not stops:
        return
    trace.with_stops = _copy(trace)
    tables = (trace.scatters, trace.pushes, trace.param_grads, trace.pull_grads, trace.gather_grads)
    own = {node for table in tables for node in table.values()}
    for node in stops:
        if node in own:
            node.target = aten.clone.default
        else:
            replace(trace, node, node.args[0])
            trace.graph.erase_node(node)


def _copy(trace: Trace) -> Trace:
    """The same trace with a graph of its own."""
    graph = fx.Graph(trace.graph.owning_module)
    images: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(trace.graph, images)
    graph.output(output)
    for node, image in images.items():
        image.meta = dict(node.meta)

    def imaged(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: imaged(item) for key, item in value.items()}
        return images[value] if isinstance(value, fx.Node) else value

    values = {item.name: imaged(getattr(trace, item.name)) for item in fields(trace)}
    return type(trace)(**{**values, "graph": graph, "state_dtypes": trace.state_dtypes, "pieces": {}})
