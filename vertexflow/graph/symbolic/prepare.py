"""From the user's method to a checked, simplified joint graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from ... import log
from ...errors import VertexFunctionError
from .isolation import generators_in, isolated, restored, without_autocast
from .passes.arrange import put_side_by_side
from .passes.canonical import canonical
from .passes.checks import all_pass, keep_checks
from .passes.constants import forget_sources
from .passes.keep_less import keep_less
from .passes.rows import check_rows
from .passes.simplify import simplify
from .passes.stops import mark_stops, take_out_stops
from .passes.verify import check_canonical
from .show import AfterPass
from .states import Shape, StateDtypes
from .trace import Trace, trace


def prepare(
    module: nn.Module,
    method: str,
    state: Mapping[str, Shape],
    state_dtypes: StateDtypes,
    inputs: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    shared: Collection[str],
    device: torch.device,
) -> Trace:
    """Trace the method of this name once, simplify the graph, and refuse it if it mixes rows.

    `inputs` are the first call's; `tensors` are the parameters and buffers by qualified name, the module's own or others, and by
    their keys the tensors of the names `shared`.
    """
    try:
        with isolated(device):
            traced = trace(module, method, state, state_dtypes, inputs, tensors, shared, device)
            with without_autocast(device.type):
                _simplify(traced, inputs, tensors)
    except VertexFunctionError as error:
        error.args = (f"{error}\n  traced with {_described(inputs, tensors)}",)
        raise
    return traced


def _simplify(trace: Trace, inputs: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    log.show("passes", AfterPass("tracing", trace))
    for run in (keep_checks, mark_stops, canonical, forget_sources, simplify):
        run(trace)
        log.show("passes", AfterPass(run.__name__, trace))
    with restored(generators_in(trace.graph.nodes)), all_pass():
        check_rows(trace, inputs, tensors)
        if put_side_by_side(trace):
            log.show("passes", AfterPass(put_side_by_side.__name__, trace))
            check_rows(trace, inputs, tensors)
    for run in (take_out_stops, keep_less):
        run(trace)
        log.show("passes", AfterPass(run.__name__, trace))
    check_canonical(trace)


def _described(inputs: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """The dtypes and shapes that the vertex function was given, for messages: many errors are a wrong dtype or width."""
    shapes = [f"{name}: {str(x.dtype)[6:]}[{', '.join(['n', *map(str, x.shape[1:])])}]" for name, x in inputs.items()]
    dtypes = sorted({str(tensor.dtype)[6:] for tensor in tensors.values() if tensor.is_floating_point()})
    return f"inputs {', '.join(shapes) or 'none'}; parameters {', '.join(dtypes) or 'none'}"
