"""`Frontier`: a run of a vertex function whose structure is not known ahead, because it depends on what was computed."""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _core
from ..call.kinds import Used, check_scattered, check_together
from ..call.observer import observer_of_thread
from ..call.outputs import Outputs
from ..call.unchanged import Unchanged
from ..errors import InputError, OutputError, VertexFlowError, VertexFunctionError
from ..graph.uncompiled import uncompiled
from ..kernels.compiled import Compiled
from ..kernels.growing import run as grow
from ..kernels.growing.extend_strip import InStrip, extend_strip, extend_strip_alike
from ..kernels.growing.grown import Grown, Usual
from .apart import Part, take_apart
from .chosen import Chosen, chosen_of
from .groups import Groups, kept_groups
from .grower import Grower, Growing, have_edge_inputs
from .growth import Addition, Array, Wide, earlier_children, is_on_device, table_of
from .numbering import Numbering


class _LeftOut(NamedTuple):
    """What stands for an input that was given before, and is left out: a row of zeros."""

    row: Tensor
    per_edge: bool
    methods: set[str]  # that pull it, as far as they were called


class _Before(NamedTuple):
    """An earlier extension: what it was computed with, and what decided that."""

    extended: InStrip | grow.Extended
    unchanged: Unchanged
    through: bool  # whether vertices before it wanted gradients
    method: str
    latest: Mapping[str, Compiled] | None


class Frontier:
    """Vertices computed so far, and the means to add more. Made by `model.start(...)`.

    Vertices are numbered in the order in which they were added, over all samples. What was pushed can be read at any time,
    and decides, for instance, what is added next; `backward` of a loss over what was read goes through all of it.

    Attributes:
        num_vertices: how many there are.

    Example:
        >>> run = model.start(x=words)                           # one vertex without children for each row
        >>> scores = run[:].score                                # what they pushed, [run.num_vertices, ...]
        >>> pairs = choose(scores)                               # [n, 2]: the children of n new vertices
        >>> new = run.extend(pairs)                              # computed in batches; returns their numbers, int64 [n]
        >>> run[new].h.square().mean().backward()
    """

    def __init__(self, grower: Grower, methods: Mapping[Any, str], device: torch.device) -> None:
        if observer_of_thread() is not None:
            raise InputError(
                "a run that grows cannot be planned: what is added depends on numbers, and a plan is made without computing any"
            )
        self._grower = grower
        usual = grower.model._programs.usual_runs
        self._grown = Grown(usual)
        self._trail = grow.Trail(torch.zeros((), device=device))
        self._begin(methods, device, usual)

    def _begin(self, methods: Mapping[Any, str], device: torch.device, usual: Usual) -> None:
        self._methods = methods
        self._device = device
        self._usual = usual
        self._zeros: dict[str, _LeftOut] = {}
        self._names: list[str] = []  # of the methods that were called
        self._used: dict[str, Used] = {}  # what each of them used at first
        self._checked: dict[int, Mapping[str, Used]] = {}  # what methods used that were checked, by address
        self._pushed_names: list[tuple[str, ...]] = []  # what each of them pushes
        self._method_of = np.empty(0, np.int32)  # the number of each vertex's method, once there are several
        self._before: dict[Hashable, _Before] = {}  # the last extension of each method and names of inputs
        self._last: _Before | None = None  # the last extension
        self._numbering = Numbering()

    @property
    def num_vertices(self) -> int:
        return self._grown.count

    def __len__(self) -> int:
        return self.num_vertices

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise OutputError(f"a run has no attribute {name!r}; what its vertices pushed is read as run[vertices].{name}")

    def __repr__(self) -> str:
        return f"Frontier(num_vertices={self.num_vertices})"

    @uncompiled
    def extend(self, children: Any, kind: Any = None, **inputs: Tensor) -> Tensor:
        """Add vertices and compute them.

        Args:
            children: integers [n, slots], the child in each slot of each new vertex, -1 where there is none. Children are
                vertices of the run, or new ones: row i becomes vertex `num_vertices + i`, so that new vertices may depend
                on each other. For any number of samples at once. A tensor on the GPU of the model is not waited for if all new
                vertices are computed by one method, which reads children by slots; then all children must be vertices that the
                run had before, or -1. Otherwise it is copied to the CPU, where the order of new vertices is found.
            kind: where the vertex function has methods for kinds, the kind of all new vertices, or a list (or array) with that
                of each, in any order.
            inputs: one tensor for each name that the vertex function pulls, [n, ...], or a row for each child, row by row of
                `children`, if it pulls it for edges; of the kinds that pull it only, in the order of their vertices. One that
                was given before and is left out now is zero.

        Returns:
            The numbers of the new vertices, int64 [n], on the CPU.

        Raises:
            RuntimeError: by an assertion on the GPU, which PyTorch reports at a later call: `children` that are not waited for
                name other vertices than the run had before.
            GraphError: a child that does not exist, a cycle, more slots than the vertex function gathers, or a kind that it has
                no method for.
            VertexFunctionError: the vertex function pushes other outputs than before, or its states or outputs have another
                shape or dtype: it has changed since.
            InputError, InputTypeError: an input is missing, unknown, or has the wrong number of rows, type or device.
        """
        if kind is not None and None in self._methods:  # an input that has this name
            inputs["kind"], kind = kind, None
        start = self.num_vertices
        if isinstance(children, Tensor) and is_on_device(children, self._device):
            addition = Addition.of_device(children, start, kind, self._methods, self._usual.groups)
            return self._add(addition if addition.method_index is None else addition.on_host(), inputs)
        table = table_of(children)
        method = self._methods.get(kind) if kind is None or type(kind) in (str, int) else None
        key = (method, *inputs)
        before = self._before.get(key)
        if before is not None:
            count = self._add_alike(before, self._numbering.rows_of(table, start), inputs)
            if count:
                if len(self._names) > 1:
                    self._note_methods(start, self._names.index(before.method))
                return torch.arange(start, start + count)
        elif method is None and self._add_known(table, kind, inputs):
            return torch.arange(start, self.num_vertices)
        addition = Addition.of(table, start, kind, self._methods, self._usual.groups)
        rows = self._numbering.rows_of(addition.table, start + addition.num_vertices)
        numbers = self._add(addition._replace(table=rows), inputs)
        if method is not None and self._last is not None:
            self._before[key] = self._last
        return numbers

    def _add_alike(self, before: _Before, table: object, inputs: Mapping[str, Tensor]) -> int:
        """Compute vertices as those of an earlier extension, and return how many they are; 0 where something has changed.
        `table` has the rows of their children."""
        grown, trail = self._grown, self._trail
        if before.through is not trail.wants_gradients:
            return 0
        extended = before.extended
        if isinstance(extended, InStrip):
            count = extend_strip_alike(grown, trail, extended, table, inputs, before.unchanged)
        else:
            count = grow.extend_alike(grown, trail, extended, table, inputs, before.unchanged)
        if count:
            self._grower.model._programs.latest = before.latest
        return count

    def _add(self, addition: Addition, inputs: dict[str, Tensor]) -> Tensor:
        self._last = None
        if not addition.num_vertices:
            return torch.empty(0, dtype=torch.int64)
        given, left_out = inputs, self._zeros.keys() - inputs.keys()
        if left_out:
            given = dict(inputs)
            for name in left_out:
                zeros = self._zeros[name]
                pulling = zeros.methods.intersection(addition.methods)
                if pulling:
                    count = sum([addition.count_of(each, zeros.per_edge)[zeros.per_edge] for each in pulling])
                    given[name] = zeros.row.expand(count, *zeros.row.shape)
        used, groups = None, addition.groups
        if groups is not None and groups.numbers is not None and addition.last < addition.start:
            used = self._compute_apart(groups, addition.table, given)
        if used is None:
            used = self._compute(addition, given)
        self._note(addition, used)
        if len(given) > len(inputs):
            self._last = None  # which had zeros among its inputs
        for name, value in inputs.items() if inputs else ():
            methods = {method for method, use in used.items() if name in use.pulls}
            if name in self._zeros:
                self._zeros[name].methods.update(methods)
            else:
                row = torch.zeros(value.shape[1:], dtype=value.dtype, device=value.device)
                self._zeros[name] = _LeftOut(row, used[next(iter(methods))].is_edge_input(name), methods)
        return torch.arange(addition.start, self.num_vertices)

    def _compute(self, addition: Addition, inputs: Mapping[str, Tensor]) -> Mapping[str, Used]:
        """Compute new vertices and keep their states and outputs; returns what each method used."""
        grower, through = self._grower, self._trail.wants_gradients
        growing = grower.grow(addition, inputs, through)
        bound, flat, state = growing.bound, growing.flat, growing.state
        if id(growing.traces) not in self._checked:
            self._check(growing.traces)
        table = None if addition.on_device is not None else earlier_children(addition, growing.reads)
        order_of_rows = functools.partial(grower.order_of_rows, growing)
        extended: InStrip | grow.Extended | None = None
        if table is not None:
            extended = extend_strip(self._grown, self._trail, bound, table, order_of_rows, flat, state)
        if extended is None:
            extended = grow.extend(self._grown, self._trail, bound, *grower.order(growing, addition), flat, state)
        if table is not None and extended is not None and growing.unchanged is not None:
            method, latest = addition.methods[0], growing.latest
            self._last = _Before(extended, growing.unchanged, through, method, latest)
        elif addition.method_index is not None and extended is not None:
            self._note_pulls(addition, inputs, growing)
        if len(self._checked) < 2 * len(self._methods):  # there are more where the model changes at each call
            self._checked[id(growing.traces)] = growing.traces
        return growing.traces

    def _note_pulls(self, addition: Addition, inputs: Mapping[str, Tensor], growing: Growing) -> None:
        """Note what each method pulls, so that further extensions by vertices of these are taken apart."""
        used = growing.traces.values()
        if not any(each.ragged for each in growing.reads) and not have_edge_inputs(used, inputs):
            pulls = [tuple(use.pulls) for use in used]
            self._usual.pulls[addition.methods, tuple(inputs)] = pulls

    def _add_known(self, table: Array, kind: Any, inputs: Mapping[str, Tensor]) -> bool:
        """Add vertices of several methods, all of which were called before, with such inputs, and whose children all came
        earlier; False, and nothing is added, where it is not so."""
        start = self.num_vertices
        groups = kept_groups(kind, len(table), self._usual.groups) if table.ndim == 2 else None
        if groups is None or groups.numbers is None or table.dtype != np.int64:
            return False
        least, last = _core.bounds_of(table)
        if not -1 <= least <= last < start:
            return False
        if self._compute_apart(groups, self._numbering.of_known(table, start), inputs, are_known=True) is None:
            return False
        self._note_methods(start, np.array([*map(self._names.index, groups.methods)], np.int32)[groups.numbers])
        return True

    def _compute_apart(
        self, groups: Groups, table: Wide, inputs: Mapping[str, Tensor], are_known: bool = False
    ) -> Mapping[str, Used] | None:
        """Compute new vertices of several methods, with the rows of earlier ones in `table`, as if those of each were added
        alone, which is faster where native code does it, and depends on no order of theirs; returns what methods used that may
        have changed. None, and nothing is computed, where something is unusual, or wrong: `_compute` finds out."""
        pulls = self._usual.pulls.get((groups.methods, tuple(inputs)))
        if pulls is None or groups.places is None or self._device.type != "cpu":
            return None
        parts, start = take_apart(groups, table, inputs, pulls), self.num_vertices
        if parts is None or (are_known and not all((part.method, *part.inputs) in self._before for part in parts)):
            return None
        mark = grow.Mark.of(self._grown, self._trail)
        try:
            used = self._compute_each(parts)
            if used:
                check_together({**self._used, **used}, inputs, (), False)
            if not used or not have_edge_inputs(used.values(), inputs):
                self._numbering.place(start, groups.places)
                return used
        except VertexFlowError:
            pass
        except BaseException:
            mark.return_to(self._grown, self._trail)
            raise
        mark.return_to(self._grown, self._trail)
        return None

    def _compute_each(self, parts: Iterable[Part]) -> Mapping[str, Used]:
        """Compute the vertices of each method, where possible as earlier ones; returns what the methods of the others used."""
        programs = self._grower.model._programs
        used: dict[str, Used] = {}
        latest: list[Any] = []
        for method, table, inputs in parts:
            key = (method, *inputs)
            before = self._before.get(key)
            if before is None or not self._add_alike(before, table, inputs):
                self._last = None
                addition = Addition(self.num_vertices, len(table), table, (method,), last=int(table.max(initial=-1)))
                used.update(self._compute(addition, inputs))
                if self._last is not None:
                    self._before[key] = self._last
            latest.append(programs.latest or {})
        programs.latest, self._last = collections.ChainMap(*latest), None
        return used

    def _check(self, used: Mapping[str, Used]) -> None:
        """Refuse methods that push other outputs than when they were called before, and, once all methods of the vertex function
        were called, states that none of them scatters."""
        if not used.keys() <= self._used.keys():
            called = {**self._used, **used}
            if called.keys() >= set(self._methods.values()):
                check_scattered(called)
        for method, use in used.items():
            if method in self._names:
                before = self._pushed_names[self._names.index(method)]
                if set(before) != set(use.pushes):
                    raise VertexFunctionError(
                        f"this extension pushed {sorted(use.pushes)}, those before {sorted(before)}; push the same always"
                    )

    def _note(self, addition: Addition, used: Mapping[str, Used]) -> None:
        """Note which method computed each of the new vertices, and what it pushes."""
        for method in addition.methods:
            if method not in self._names:
                self._names.append(method)
                self._used[method] = used[method]
                self._pushed_names.append(tuple(used[method].pushes))
        if len(self._names) == 1:
            return
        numbers, index = [self._names.index(method) for method in addition.methods], addition.method_index
        self._note_methods(addition.start, numbers[0] if index is None else np.array(numbers, np.int32)[index])

    def _note_methods(self, start: int, numbers: Any) -> None:
        """Note the number of the method that computed each vertex from `start` on, or all of them."""
        count = self.num_vertices
        if len(self._method_of) < count:
            larger = np.zeros(2 * count, np.int32)  # what came before there were several is of method 0
            larger[: len(self._method_of)] = self._method_of
            self._method_of = larger
        self._method_of[start:count] = numbers

    @uncompiled
    def __getitem__(self, vertices: Any) -> Outputs:
        """What these vertices pushed: `Outputs`, one entry a name, [n, ...].

        `vertices`: a tensor, array or list of vertex numbers, or of booleans, one a vertex; a slice; or one number, for
        which the first dimension is missing. Where there are kinds, entries are what all of these vertices pushed.

        Numbers on the GPU of the model are not waited for, unless kinds push outputs of different names; booleans are, as their
        number decides how long outputs are. What is read by numbers there requires gradients if any vertex of the run does, and
        passes none on to vertices that were computed without.
        """
        method = self._common_method(vertices)
        if method >= 0:
            index = vertices.clone() if torch.is_grad_enabled() else vertices  # may change before the backward pass
            return Outputs(self._read(Chosen(index, index.numpy()), self._pushed_names[method]))
        index, on_host = chosen_of(vertices, self.num_vertices, self._device)
        chosen = Chosen(index.reshape(-1), None if on_host is None else on_host.reshape(-1))
        read = self._read(chosen, self._pushed_by(chosen))
        if index.dim() == 1:
            return Outputs(read)
        return Outputs((name, value.reshape(index.shape + value.shape[1:])) for name, value in read.items())

    def _read(self, chosen: Chosen, names: Sequence[str]) -> dict[str, Tensor]:
        """What these vertices, [n], pushed of these names."""
        rows, on_host = chosen
        if self._numbering.is_needed and on_host is not None:
            on_host = self._numbering.of_known(on_host, self.num_vertices)
            rows = torch.from_numpy(on_host)
        return grow.read(self._grown, self._trail, names, rows, on_host)

    def _common_method(self, vertices: Any) -> int:
        """The number of the method that computed these vertices, as `extend` returns them; -1 if it takes more to read them."""
        if type(vertices) is not Tensor or vertices.dtype is not torch.int64 or vertices.dim() != 1:
            return -1
        if vertices.device != self._device or vertices.device.type != "cpu" or is_on_device(vertices, self._device):
            return -1
        return _core.common_of(self._method_of if len(self._names) > 1 else None, vertices.numpy(), self.num_vertices)

    def _pushed_by(self, chosen: Chosen) -> list[str]:
        """The names of what all of these vertices, [n], pushed."""
        sets, (index, on_host) = self._pushed_names, chosen
        if len(set(sets)) > 1 and len(index):
            numbers = index.cpu().numpy() if on_host is None else on_host
            sets = [sets[number] for number in np.unique(self._method_of[numbers])]
        return [
            name for name in dict.fromkeys(itertools.chain.from_iterable(sets)) if all(name in each for each in sets)
        ]
