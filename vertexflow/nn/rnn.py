"""What `LSTM` and `GRU` share: layers and directions of one cell, with the parameters of `torch.nn.RNNBase`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..call.arguments import Arguments
from ..call.backward_hooks import ReturnsOutputs
from ..call.outputs import Outputs
from ..errors import GraphError, InputError
from ..function import VertexFunction
from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch, pack
from ..graph.uncompiled import uncompiled


class Cell(VertexFunction):
    """One layer in one direction. Its weights are given to it at each call: all layers of a model run the same cell.

    The parameters that it has are places for them, without memory.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __init__(self, state: dict[str, int], bias: bool, backend: str) -> None:
        super().__init__(state=state, backend=backend)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            absent = name.startswith("bias") and not bias
            self.register_parameter(name, None if absent else nn.Parameter(torch.empty(0, device="meta")))
        self.weights = [name for name, _ in self.named_parameters()]


class ChainRNN(ReturnsOutputs, nn.RNNBase):
    """Stacked layers of `cell` over chains, in one direction or in both.

    From `nn.RNNBase` come the parameters with their names, shapes and initial values, hence `state_dict`s that PyTorch's
    own layers load, and theirs that this one loads.
    """

    cell: Cell

    def __init__(self, mode: str, cell: Cell, *args: Any, **kwargs: Any) -> None:
        super().__init__(mode, *args, **kwargs)
        object.__setattr__(self, "cell", cell)  # no submodule: it has no weights of its own

    @uncompiled
    def forward(
        self,
        graphs: GraphBatch | Sequence[InputGraph],
        x: Tensor,
        hx: Tensor | tuple[Tensor, ...] | None = None,
    ) -> Outputs:
        """Run over a batch of chains.

        Args:
            graphs: a `GraphBatch` of chains, or a list of them; a step's child is the step before it.
            x: inputs of all steps, `[num_vertices, input_size]`, rows in the batch's own vertex order.
            hx: initial states as PyTorch's layers take them, `[num_layers * D, num_graphs, hidden_size]`; of an LSTM the two
                (h_0, c_0). Zeros if left out. For truncated backpropagation through time, give the `h_n` (and `c_n`) of
                the chunk before, detached.

        Returns:
            `Outputs` with `h`, the last layer's outputs, `[num_vertices, D * hidden_size]` in that order (D is 2 for both
            directions, else 1; forward, then backward), and the final states as PyTorch's layers return them: `h_n`, and
            `c_n` of an LSTM, `[num_layers * D, num_graphs, hidden_size]`.

        Raises:
            GraphError: a graph is no chain.
            InputError: `x` has the wrong number of rows, or is elsewhere than the model; `hx` has the wrong shape.
        """
        batch = graphs if isinstance(graphs, GraphBatch) else pack(graphs)
        ends = (batch.roots, batch.leaves)  # where the last step is: of the forward direction, and of the backward one
        if not len(ends[0]) == len(ends[1]) == len(batch):
            raise GraphError("not every graph of the batch is one chain; make them with vf.chain(length)")
        initial = self._initial(hx, len(batch))
        final: dict[str, list[Tensor]] = {}
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = nn.functional.dropout(x, self.dropout, self.training)
            outputs = []
            for direction in range(2 if self.bidirectional else 1):
                states = [state[len(final.get("h_n", []))] for state in initial]
                out = self._run(batch, x, layer, direction, states, ends[direction])
                outputs.append(out["h"])
                for name, rows in out.items():  # of `h` all steps, of other states the last one
                    last = rows.index_select(0, ends[direction]) if name == "h" else rows
                    final.setdefault(f"{name}_n", []).append(last)
            x = torch.cat(outputs, -1) if self.bidirectional else outputs[0]
        stacked = {name: torch.stack(rows) if len(rows) > 1 else rows[0].unsqueeze(0) for name, rows in final.items()}
        return Outputs(h=x, **stacked)

    def _initial(self, hx: Tensor | tuple[Tensor, ...] | None, num_graphs: int) -> list[Tensor]:
        """The initial value of each state; no values if `hx` was left out."""
        if hx is None:
            return []
        states = [hx] if isinstance(hx, Tensor) else list(hx)
        shape = (self.num_layers * (2 if self.bidirectional else 1), num_graphs, self.hidden_size)
        if len(states) != len(self.cell.state) or not all(isinstance(state, Tensor) for state in states):
            names = ", ".join(f"{name}_0" for name in self.cell.state)
            raise InputError(f"hx must be {'the tensor' if len(self.cell.state) == 1 else 'a tuple'} {names}")
        for name, state in zip(self.cell.state, states, strict=True):
            if tuple(state.shape) != shape:
                raise InputError(
                    f"{name}_0 has the shape {list(state.shape)}; give [layers and directions, graphs, hidden], {list(shape)}"
                )
        return states

    def _run(
        self, batch: GraphBatch, x: Tensor, layer: int, direction: int, initial: list[Tensor], ends: Tensor
    ) -> dict[str, Tensor]:
        suffix = f"_l{layer}_reverse" if direction else f"_l{layer}"
        weights = {name: getattr(self, name + suffix) for name in self.cell.weights}
        states = dict(zip(self.cell.state, initial, strict=True)) if initial else None
        wanted = {name: ends for name in self.cell.state if name != "h"}
        out = self.cell._run(Arguments(weights, batch, direction == 1, states, {"x": x}, wanted=wanted or None))
        return dict(out)
