"""Parts of programs, computed by the interpreter of loops and by PyTorch, on random rows."""

from __future__ import annotations

import math

import numpy as np
import torch

from vertexflow.graph.symbolic.roles import Counts, role_of
from vertexflow.kernels.lower.decompose import decomposed
from vertexflow.kernels.lower.interpret import StepMemory, run
from vertexflow.kernels.lower.verify import verify
from vertexflow.kernels.lower.views import width
from vertexflow.kernels.native.plan import in_order, is_join, plan_part, stored_as
from vertexflow.kernels.native.statements import statements_of
from vertexflow.kernels.torch.source import compile_part

COUNTS = (0, 2, 1, 3, 0)  # of edges of each row


def check_parts(program, seed=0):
    """All parts of a program give by the interpreter what they give by PyTorch; returns the names of those that are known."""
    known = []
    for name, part in program.parts.items():
        if part.outputs:
            _check_part(part, program.trace, torch.Generator().manual_seed(seed))
            known.append(name)
    return known


def _check_part(part, trace, generator):
    rows, edges = len(COUNTS), sum(COUNTS)
    placeholders = [
        node for node in part.graph.nodes if node.op == "placeholder" and node.name not in ("rows", "edges")
    ]
    tensors = [_tensor(node, rows, edges, generator) for node in placeholders]
    function, _ = compile_part(part, {})
    expected = function(rows, edges, *tensors)
    plan = plan_part(decomposed(part, trace))
    inputs = [node for node in plan.part.graph.nodes if node.op == "placeholder" and node.name not in ("rows", "edges")]
    arrays = {node: _rows_of(node, tensor) for node, tensor in zip(inputs, tensors, strict=True)}
    for node in (*plan.stored, *plan.copies):
        count = edges if node.meta["rows"] is not None and node.meta["rows"].edges else rows
        shape = (count, width(node)) if node.meta["rows"] is not None else (width(node),)
        arrays[node] = np.full(shape, 77, np.dtype(str(node.meta["val"].dtype)[6:]))
    (statements,) = statements_of(plan)
    verify(statements)
    offsets = np.cumsum([0, *COUNTS])
    run(statements, StepMemory(arrays, rows, np.repeat(np.arange(rows), COUNTS), offsets))
    results = next(iter(reversed(plan.part.graph.nodes))).args[0]
    stored = {output: node for node, output in plan.stored.items() if output is not None}
    for output, result, value in zip(part.outputs, results, expected, strict=True):
        array = arrays[stored[output]] if output in stored else arrays[output]
        if result.meta["rows"] is None:
            assert stored.get(output, in_order(result)) is in_order(result)
        ours, wanted = (
            torch.from_numpy(array).reshape(_rows_of(result, value).shape),
            torch.from_numpy(_rows_of(result, value)),
        )
        if is_join(result) and result.meta["val"].dim() == 2:  # but for what nobody reads
            pieces = [range(piece.start, piece.start + width(piece.value)) for piece in stored_as(result)]
            read = sorted({column for columns in pieces for column in columns})
            ours, wanted = ours[:, read], wanted[:, read]
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9, equal_nan=True)


def _tensor(node, rows, edges, generator):
    if isinstance(role_of(node), Counts):
        return torch.tensor(COUNTS)
    value, layout = node.meta["val"], node.meta.get("rows")
    shape = [int(size) if isinstance(size, int) else 0 for size in value.shape]
    if layout is not None:
        shape[layout.dim] = (edges if layout.edges else rows) * layout.per_vertex
    if value.dtype.is_floating_point:
        return torch.rand(shape, generator=generator, dtype=value.dtype) * 1.5 - 0.6
    return torch.randint(0, 2, shape, generator=generator).to(value.dtype)


def _rows_of(node, tensor):
    """The memory of a value, a row for each vertex or edge."""
    layout = node.meta.get("rows")
    if layout is None:
        return tensor.contiguous().reshape(-1).numpy()
    front = tensor.movedim(layout.dim, 0)
    count = front.shape[0] // layout.per_vertex
    assert layout.per_vertex == 1 or math.prod(tensor.shape[: layout.dim]) == 1
    return front.contiguous().reshape(count, -1).numpy()
