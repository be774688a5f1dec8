"""`Frontier`: a run of a vertex function whose structure is not known ahead, because it depends on what was computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import InputError, InputTypeError, OutputError
from .graph.uncompiled import uncompiled
from .growth import Addition
from .kernels import grow
from .kernels.bound import Bound
from .kernels.order import Order
from .outputs import Outputs

# From new vertices, inputs by name, and whether earlier vertices want gradients: the parameters by name, the order of the
# vertices, the earlier ones that they read, and the compiled programs.
Prepare = Callable[[Addition, Mapping[str, Tensor], bool], tuple[dict[str, Tensor], Order, Tensor, Bound]]


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

    def __init__(self, prepare: Prepare, device: torch.device) -> None:
        self._prepare = prepare
        self._grown = grow.Grown()
        self._token = torch.zeros((), device=device)
        self._device = device
        self._zeros: dict[str, tuple[Tensor, bool]] = {}  # a row of each input, and whether it belongs to edges

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
    def extend(self, children: Any, **inputs: Tensor) -> Tensor:
        """Add vertices and compute them.

        Args:
            children: integers [n, slots], the child in each slot of each new vertex, -1 where there is none. Children are
                vertices of the run, or new ones: row i becomes vertex `num_vertices + i`, so that new vertices may depend
                on each other. For any number of samples at once.
            inputs: one tensor for each name that the vertex function pulls, [n, ...], or a row for each child, row by row of
                `children`, if it pulls it for edges. One that was given before and is left out now is zero.

        Returns:
            The numbers of the new vertices, int64 [n], on the CPU.

        Raises:
            GraphError: a child that does not exist, a cycle, or more slots than the vertex function gathers.
            InputError, InputTypeError: an input is missing, unknown, or has the wrong number of rows, type or device.
        """
        return self._add(Addition.of(children, self.num_vertices), inputs)

    def _add(self, addition: Addition, inputs: dict[str, Tensor]) -> Tensor:
        if not addition.num_vertices:
            return torch.empty(0, dtype=torch.int64)
        all_inputs = inputs
        left_out = self._zeros.keys() - inputs.keys()
        if left_out:
            all_inputs = dict(inputs)
            for name in left_out:
                row, per_edge = self._zeros[name]
                count = addition.num_edges if per_edge else addition.num_vertices
                all_inputs[name] = row.expand(count, *row.shape)
        is_edge_input = self._compute(addition, all_inputs)
        for name, value in inputs.items():
            if name not in self._zeros:
                row = torch.zeros(value.shape[1:], dtype=value.dtype, device=value.device)
                self._zeros[name] = (row, is_edge_input(name))
        return torch.arange(addition.start, self.num_vertices)

    def _compute(self, addition: Addition, inputs: Mapping[str, Tensor]) -> Callable[[str], bool]:
        """Compute new vertices and keep their states and outputs; returns the function that says which inputs are of edges."""
        through = self._token.requires_grad
        tensors, order, earlier, bound = self._prepare(addition, inputs, through)
        self._token = grow.extend(self._grown, self._token, bound, order, earlier, tensors, inputs)
        return bound.is_edge_input

    @uncompiled
    def __getitem__(self, vertices: Any) -> Outputs:
        """What these vertices pushed: `Outputs`, one entry a name, [n, ...].

        `vertices`: a tensor, array or list of vertex numbers, or of booleans, one a vertex; a slice; or one number, for
        which the first dimension is missing.
        """
        index = self._index(vertices)
        read = self._read(index.reshape(-1))
        if index.dim() == 1:
            return Outputs(read)
        return Outputs((name, value.reshape(index.shape + value.shape[1:])) for name, value in read.items())

    def _read(self, index: Tensor) -> dict[str, Tensor]:
        """What these vertices pushed, int64 [n], by name."""
        return grow.read(self._grown, self._token, list(self._grown.pushes), index)

    def _index(self, vertices: Any) -> Tensor:
        count = self.num_vertices
        if isinstance(vertices, slice):
            return torch.arange(*vertices.indices(count), device=self._device)
        try:
            index = torch.as_tensor(vertices)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputTypeError(
                f"vertices are numbers, or one boolean a vertex, not {vertices!r}; read what they pushed as run[vertices].name"
            ) from error
        if index.dtype == torch.bool:
            if index.shape != (count,):
                raise InputError(
                    f"a mask of shape {tuple(index.shape)} for {count} vertices; give one boolean a vertex"
                )
            index = index.nonzero().squeeze(1)
        if index.is_floating_point() and index.numel():
            raise InputTypeError(f"vertices are integers, not {index.dtype}")
        index = index.long()
        if index.device.type == "cpu" and index.numel() and not -count <= int(index.min()) <= int(index.max()) < count:
            raise InputError(
                f"vertices {int(index.min())} to {int(index.max())} were asked for; there are 0 to {count - 1}"
            )
        return torch.where(index < 0, index + count, index).to(self._device, non_blocking=True)
