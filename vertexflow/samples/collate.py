"""`vf.collate`: samples of a dataset as one batch, packed and scheduled where a DataLoader's workers run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InputError
from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch, pack
from ..graph.uncompiled import uncompiled
from ..scheduler import Policy, cached_schedule
from .fields import Path, divide, named, rebuild, shown
from .join import join_field, join_index

Names = Iterable[Any]


@uncompiled
def collate(
    samples: Iterable[Any],
    *,
    policy: str | Policy | None = "depth",
    num_slots: int | None = None,
    rows: Names = (),
    per_graph: Names = (),
    index: Names | Mapping[Any, Any] = (),
    like: Any = None,
) -> Any:
    """`vf.pack` for samples with more than a graph: the `collate_fn` of a `torch.utils.data.DataLoader`.

    A sample is an input graph, or a tuple, list, dict, named tuple or dataclass of fields, all samples alike; the batch has
    the same form. Further inside, tuples, dicts, named tuples and dataclasses are fields again; a list is rows, unless it
    holds graphs, tensors, arrays or dicts. What a field becomes:

    | a field of every sample                                                | in the batch                              |
    |------------------------------------------------------------------------|-------------------------------------------|
    | an input graph                                                         | a `GraphBatch`, with its schedule         |
    | a number, a tensor or array without dimensions                         | a tensor `[G]`                            |
    | `[n, ...]`: two dimensions or more                                     | rows: `[sum of n, ...]`                   |
    | `[n]`, n being the graph's number of vertices, edges, leaves, inner    | rows: `[sum of n]`                        |
    | vertices, or vertices of one kind, in all samples                      |                                           |
    | `[C]`, the same C in all samples, and no such number                   | a vector for each graph: `[G, C]`         |
    | `[]` in all samples                                                    | rows: `[0]`                               |
    | `[n]` of any other lengths                                             | refused; `rows` says that they are rows   |
    | anything else (strings, None, objects)                                 | a list with one entry for each graph      |

    "`[n]`" is a tensor, an array, or a list of n numbers (or of n strings, which stay a list; a list of lists is
    `[n, ...]`). In samples without any graph, `[n]` is rows. Where every graph of a batch happens to have just C vertices, a
    vector `[C]` cannot be told from rows: it is taken as rows (as a vector, if it is one number and no vertex or edge
    speaks for rows), with a `RuntimeWarning`. `rows` and `per_graph` decide that for every batch, and then nothing is
    guessed.

    In a worker process all of this, the schedule too, is off the path of the training step. The batch can be pinned and
    moved (`DataLoader(..., pin_memory=True)`, `batch.to(device, non_blocking=True)`): its index tensors travel as one.

    Args:
        samples: what the dataset gave.
        policy: how batches are scheduled (`vf.schedule`); None: the model does it at its call.
        num_slots: how many slots the vertex function gathers; by default as many as the batch uses. A model that gathers
            more makes a schedule of its own.
        rows: fields that are rows (of vertices, edges, or anything else): concatenated.
        per_graph: fields that are one value of one shape for each graph: stacked.
        index: fields that are vertex numbers, int64 in the batch: to each is added how many vertices the graphs of earlier
            samples have. -1 means no vertex and stays -1. They are rows unless they are in `per_graph` as well. Where
            samples have several graphs, a mapping says whose vertices they are: `{"head": "sentence"}`.
        like: a sample, for batches of none, as a rank has where there are fewer samples than ranks: the batch then has the form
            and the dtypes of a batch with this sample, and no rows.

        Fields are named by key, attribute or position; a field inside another by the tuple of both, `("meta", "head")`.

    Raises:
        InputError: no samples and no `like`, samples that do not fit together, a vertex number out of range, a name that no
            field has; the message names the field.
        InputTypeError: samples of different forms, vertex numbers that are no integers.
        GraphError: as in `vf.pack` and `vf.schedule`.

    Example:
        >>> loader = DataLoader([(graph, tokens, label), ...], batch_size=64, collate_fn=vf.collate)
        >>> for batch, tokens, labels in loader: ...
        >>> samples = [{"graph": vf.chain(2), "head": [1, -1]}, {"graph": vf.chain(1), "head": [0]}]
        >>> vf.collate(samples, index=("head",))["head"]
        tensor([ 1, -1,  2])
        >>> collate = functools.partial(vf.collate, policy=model.policy, num_slots=2, index=("head",))  # with settings
    """
    samples = list(samples)
    is_empty = not samples
    if is_empty and like is None:
        raise InputError(
            "vf.collate got no samples; where that may be (more ranks than samples), say what they are like: "
            "vf.collate(samples, like=dataset[0])"
        )
    samples = samples or [like]
    fields = divide(samples)
    owners = index if isinstance(index, Mapping) else dict.fromkeys([index] if isinstance(index, (str, int)) else index)
    are_rows, are_vectors = named(rows, "rows", fields), named(per_graph, "per_graph", fields)
    numbers = dict(zip(named(owners, "index", fields), owners.values(), strict=True))
    for path in are_rows:
        if path in are_vectors:
            raise InputError(f"{shown(path)} is named in `rows` and in `per_graph`; it can be only one of them")

    def join(path: Path, items: list[Any]) -> Any:
        if isinstance(items[0], InputGraph):
            return _pack(items, policy, num_slots)
        layout = "per_graph" if path in are_vectors else "rows" if path in are_rows or path in numbers else None
        if path in numbers:
            return join_index(path, items, layout == "per_graph", _graphs_of(path, numbers[path], graphs))
        return join_field(path, items, layout, list(graphs.values()))

    graphs = {path: items for path, items in fields.items() if isinstance(items[0], InputGraph)}
    joined = {path: join(path, items) for path, items in fields.items()}
    return rebuild(samples[0], {path: _none_of(value) for path, value in joined.items()} if is_empty else joined)


def _none_of(joined: Any) -> Any:
    """What a field of a batch is in a batch without samples."""
    if not isinstance(joined, GraphBatch):
        return joined[:0]
    data = {name: rows[:0] for name, rows in joined.data.items()}
    batch = pack([])
    batch.__dict__["_joined_data"] = data, joined.edge_names
    return batch


def _pack(graphs: list[InputGraph], policy: str | Policy | None, num_slots: int | None) -> GraphBatch:
    batch = pack(graphs)
    return batch if policy is None else batch.with_schedule(cached_schedule(batch, policy, num_slots))


def _graphs_of(path: Path, owner: Any, graphs: dict[Path, list[InputGraph]]) -> list[InputGraph]:
    """The graphs whose vertices the numbers of a field are."""
    if owner is not None:
        (graph_path,) = named([owner], "index", graphs, "graph")
        return graphs[graph_path]
    if len(graphs) != 1:
        available = f"have {len(graphs)} graphs ({', '.join(map(shown, graphs))})" if graphs else "have no graph"
        raise InputError(
            f"{shown(path)} is named in `index`, but samples {available}; say whose vertices it numbers: "
            f"index={{{path[0] if len(path) == 1 else path!r}: name of the graph's field}}"
        )
    return next(iter(graphs.values()))
