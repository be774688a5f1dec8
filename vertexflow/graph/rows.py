"""Which dimension of a value holds the vertices, and the proof that no row of it depends on another vertex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from ..errors import VertexFunctionError
from .isolation import generators_in, seed
from .nodes import ancestors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .trace import Trace

_ROWS = 4  # vertices in the numerical check
_COUNTS = (2, 0, 3, 1)  # their children
_OWNER = tuple(row for row, count in enumerate(_COUNTS) for _ in range(count))  # the vertex of each edge


@dataclass(frozen=True)
class RowLayout:
    """Dimension `dim` of a value has `per_vertex` entries for each vertex, those of one vertex side by side.

    With `edges`, the same for each edge to a child instead of each vertex.
    """

    dim: int
    per_vertex: int = 1
    edges: bool = False


def check_rows(found: Trace, inputs: Mapping[str, Tensor], constants: Mapping[str, Tensor]) -> None:
    """Refuse a vertex function that mixes rows, naming the line; note every value's `RowLayout` in `meta["rows"]`.

    Shapes alone cannot tell `x.flip(0)` from `x`, so the graph is run on a few rows, and again with one row changed:
    what belongs to the other rows must stay the same to the bit. `constants` are the parameters and buffers.
    Values whose vertices lie interleaved (a copying transpose) get `meta["interleaved"]` and are kept out of buffers.
    """
    for node in found.graph.nodes:
        if isinstance(node.meta.get("val"), Tensor):
            node.meta["rows"] = _layout(node, found)
    forward = ancestors([*found.scatters.values(), *found.pushes.values()])
    wanted = ancestors([node for node in found.graph.nodes if node.meta.get("rows") is not None]) | forward
    order = [node for node in found.graph.nodes if node in wanted]
    leaves = _random_leaves(found, inputs, constants)
    base = _run(found, order, leaves)
    for row in range(_ROWS):
        changed = _run(found, order, _with_row_changed(found, leaves, inputs, row))
        for node in order:
            if isinstance(base[node], Tensor) and node.op != "placeholder":
                _compare(found, node, base[node], changed[node], row, node in forward)


def _layout(node: fx.Node, found: Trace) -> RowLayout | None:
    symbolic = [(dim, size) for dim, size in enumerate(node.meta["val"].shape) if isinstance(size, torch.SymInt)]
    if not symbolic:
        return None
    dim, size = symbolic[0]
    edges = found.edges in size.node.expr.free_symbols
    per_vertex = size.node.expr / (found.edges if edges else found.rows)
    if len(symbolic) > 1 or not per_vertex.is_Integer:
        raise VertexFunctionError(_mixing(found, node, f"a value of shape {tuple(node.meta['val'].shape)}"))
    return RowLayout(dim, int(per_vertex), edges)


def _compare(found: Trace, node: fx.Node, base: Tensor, changed: Tensor, row: int, forward: bool) -> None:
    differs = (base != changed) & ~((base != base) & (changed != changed))
    layout = node.meta.get("rows")
    if layout is None:
        if forward and bool(differs.any()):
            raise VertexFunctionError(_mixing(found, node, "a value without a row for each vertex"))
        return
    owners = _OWNER if layout.edges else range(_ROWS)
    others = [at for at, owner in enumerate(owners) if owner != row]
    if layout.per_vertex > 1:
        blocks = torch.unflatten(differs, layout.dim, (len(owners), layout.per_vertex)).movedim(layout.dim, 0)
        if bool(blocks[others].any()):
            node.meta["interleaved"] = True
    elif bool(differs.movedim(layout.dim, 0)[others].any()):
        raise VertexFunctionError(_mixing(found, node, "a row that depends on other vertices' rows"))


def _mixing(found: Trace, node: fx.Node, what: str) -> str:
    return (
        f"the vertex function mixes rows: `{node.target}` makes {what}. Dimension 0 holds the vertices of a step, which "
        "must not see each other; reduce or normalise over other dimensions (dim=-1), and gather what comes from children"
        f"\n  in the vertex function, {found.where(node)}"
    )


def _run(found: Trace, order: list[fx.Node], leaves: Mapping[fx.Node, Any]) -> dict[fx.Node, Any]:
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        device = next(node.meta["val"].device for node in order if isinstance(node.meta.get("val"), Tensor))
        seed(device, generators_in(order))  # the same random masks in every run
        for node in order:
            if node.op in ("placeholder", "get_attr"):
                values[node] = leaves[node] if node.op == "placeholder" else node.meta["constant"]
            else:
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
                try:
                    values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
                except Exception as error:
                    raise VertexFunctionError(
                        f"the vertex function failed: {type(error).__name__}: {error}\n"
                        f"  in the vertex function, {found.where(node)}"
                    ) from error
                if "empty" in str(node.target):
                    values[node].zero_()  # what lies in fresh memory is no dependence on other rows
    return values


def _random_leaves(found: Trace, inputs: Mapping[str, Tensor], constants: Mapping[str, Tensor]) -> dict[fx.Node, Any]:
    leaves: dict[fx.Node, Any] = {}
    for node in found.graph.nodes:
        if node.op != "placeholder":
            continue
        kind, *key = node.meta.get("role", ("probe",))
        if kind == "counts":
            leaves[node] = torch.tensor(_COUNTS, device=node.meta["val"].device)
        elif kind == "param":
            value = constants[key[0]].detach()
            # A weight of zeros would hide what depends on it.
            leaves[node] = torch.randn_like(value) if value.is_floating_point() and not value.any() else value
        else:
            given = inputs.get(key[0]) if kind in ("pull", "edge") else None
            leaves[node] = _sample(node.meta["val"], given, len(_OWNER) if _on_edges(node, found) else _ROWS)
    return leaves


def _with_row_changed(
    found: Trace, leaves: dict[fx.Node, Any], inputs: Mapping[str, Tensor], row: int
) -> dict[fx.Node, Any]:
    changed = dict(leaves)
    for node, value in leaves.items():
        kind, *key = node.meta.get("role", ("probe",))
        if kind not in ("param", "probe", "counts"):
            owners = _OWNER if _on_edges(node, found) else range(_ROWS)
            own = [at for at, owner in enumerate(owners) if owner == row]
            given = inputs.get(key[0]) if kind in ("pull", "edge") else None
            changed[node] = value.clone()
            if own:
                changed[node][own] = _sample(node.meta["val"], given, len(own))
    return changed


def _on_edges(node: fx.Node, found: Trace) -> bool:
    size = node.meta["val"].shape[0]
    return isinstance(size, torch.SymInt) and size.node.expr == found.edges


def _sample(like: Tensor, given: Tensor | None, count: int) -> Tensor:
    """`count` rows of random values; integers are drawn from the rows that the user gave, so that they are in range."""
    if like.is_floating_point() or like.is_complex():
        return torch.randn(count, *like.shape[1:], dtype=like.dtype, device=like.device) * 2
    assert given is not None
    if not len(given):  # of a batch without edges
        return torch.zeros(count, *like.shape[1:], dtype=like.dtype, device=like.device)
    return given.detach()[torch.randint(len(given), (count,))]
