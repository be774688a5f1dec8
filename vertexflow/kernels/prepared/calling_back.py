"""Calls of PyTorch in passes that are written down as calls of native functions: of functions of Python's, as C sees them.

They are for operations that see all rows of a step at once (`WHOLE_STEPS`), such as messages between processes.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx

from ...graph.symbolic.isolation import without_autocast
from ...graph.symbolic.nodes import on_edges
from ..arguments import Scratch
from ..lower.loops import Over
from ..lower.views import vertex_shape
from ..memory.layout import first_row
from ..operations import Unsupported
from ..order import RowGroup, Step
from ..ranges import CallsOfRun
from ..torch.between import Between

if TYPE_CHECKING:
    from .calls import Location, Locations

_FIELDS = 3  # arguments of each value: its address, the bytes from row to row, and the row that lies there (-1: the step's first)
_Function = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_int32), ctypes.c_int64)


class _Failures(threading.local):
    first: BaseException | None = None


_of_thread = _Failures()
_functions: WeakKeyDictionary[Between, _Called] = WeakKeyDictionary()


class _Value(NamedTuple):
    """What is known of a value before its memory is."""

    dtype: torch.dtype
    shape: tuple[int, ...]  # of a row
    is_over_edges: bool


@dataclass(frozen=True)
class _Called:
    function: Any  # which must live as long as anyone may call it
    address: int


@dataclass(frozen=True)
class CallingBack:
    """Calls of native functions, some of which are Python's: what these raise, the run raises."""

    calls: CallsOfRun

    def run(self, addresses: list[int], room: int) -> None:
        """Run all calls; none of Python's after one has failed."""
        _of_thread.first = None
        self.calls.run(addresses, room)
        failure, _of_thread.first = _of_thread.first, None
        if failure is not None:
            raise failure


def address_of(call: Between) -> int:
    """The address of a native function that makes a call; its arguments are those of `arguments_of`.

    Raises:
        Unsupported: rows of a value do not lie one beside the other.
    """
    if call not in _functions:
        function = _Function(_entry(call))
        address = ctypes.cast(function, ctypes.c_void_p).value
        assert address is not None
        _functions.setdefault(call, _Called(function, address))  # other threads may have been first
    return _functions[call].address


def arguments_of(call: Between, group: RowGroup, locations: Locations) -> list[Location | int]:
    """What the native function of a call is called with: where its inputs and outputs lie."""
    arguments: list[Location | int] = []
    for node in _nodes(call):
        place = call.places[node]
        location = locations[place]
        if isinstance(place, Scratch):
            arguments += [location, place.width * place.dtype.itemsize, -1]
        else:
            arguments += [location, location.stride, 0 if on_edges(node) else first_row(call.program, group, place)]
    return arguments


def _nodes(call: Between) -> list[fx.Node]:
    return [*call.calls.part.inputs, *call.calls.part.outputs]


def _value(node: fx.Node, call: Between) -> _Value:
    layout, place = node.meta.get("rows"), call.places[node]
    is_of_rows = layout is not None and layout.dim == 0 and layout.per_vertex == 1
    if not is_of_rows or (isinstance(place, Scratch) and place.over is Over.ELEMENTS):
        raise Unsupported(f"{node.name} has no rows one beside the other")
    return _Value(node.meta["val"].dtype, tuple(vertex_shape(node)), on_edges(node))


def _entry(call: Between) -> Any:
    values, trace = [_value(node, call) for node in _nodes(call)], call.program.trace
    make = call.calls

    def entry(arguments: Any, steps: Any, count: int) -> None:
        if _of_thread.first is not None:
            return
        try:
            step = Step(*steps[: len(Step._fields)])
            tensors = [
                _rows(value, arguments[_FIELDS * at : _FIELDS * (at + 1)], step) for at, value in enumerate(values)
            ]
            with torch.no_grad(), without_autocast("cpu"):
                make(trace, step.stop - step.start, step.edge_stop - step.edge_start, tensors)
        except BaseException as error:  # C cannot pass it on
            _of_thread.first = error

    return entry


def _rows(value: _Value, arguments: Sequence[int], step: Step) -> Tensor:
    """The rows of a step, where they lie."""
    address, stride, base = arguments
    first, stop = (step.edge_start, step.edge_stop) if value.is_over_edges else (step.start, step.stop)
    count, size = stop - first, value.dtype.itemsize
    address += 0 if base < 0 else (first - base) * stride
    length = (count - 1) * stride + math.prod(value.shape) * size
    memory = (ctypes.c_char * length).from_address(address)
    flat = torch.frombuffer(memory, dtype=value.dtype)
    strides = [math.prod(value.shape[at + 1 :]) for at in range(len(value.shape))]
    return flat.as_strided((count, *value.shape), (stride // size, *strides))
