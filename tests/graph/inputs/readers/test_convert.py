"""Graphs of other libraries: read as they are, and networkx there and back."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given

from tests.scheduler.random_graphs import children, graphs
from vertexflow.errors import GraphError, InputTypeError
from vertexflow.graph.inputs.build import InputGraph, graph
from vertexflow.graph.inputs.pack import pack
from vertexflow.graph.inputs.readers.convert import from_edge_index, from_networkx, to_networkx


@given(graphs(with_kinds=True))
def test_networkx_there_and_back(given_graph: InputGraph) -> None:
    given_graph.data["label"] = np.arange(given_graph.num_vertices) * 2
    given_graph.data["word"] = np.array([f"w{v}" for v in range(given_graph.num_vertices)], dtype=object)
    given_graph.data["number"] = np.arange(given_graph.num_edges)
    given_graph.edge_names.append("number")
    again = from_networkx(to_networkx(given_graph), kind="kind", slot="slot")
    if given_graph.num_edges:  # listed by child, but each with its own attributes
        assert again.edge_index.tolist() == given_graph.edge_index[:, again.data["number"]].tolist()
        assert again.edge_index[0].tolist() == sorted(given_graph.edge_index[0].tolist())
    assert children(again) == children(given_graph)
    assert again.kind is not None
    assert given_graph.kind is not None
    assert again.kind.tolist() == given_graph.kind.tolist()
    for name in ("label", "word"):
        assert again.data[name].tolist() == given_graph.data[name].tolist()


@given(graphs())
def test_networkx_agrees_about_edges(given_graph: InputGraph) -> None:
    edges = sorted((child, parent) for child, parent, _ in to_networkx(given_graph).edges)
    assert edges == sorted((c, p) for p, below in enumerate(children(given_graph)) for _, c in below)


def test_names_and_attributes_of_nodes_are_kept() -> None:
    source = nx.DiGraph([("b", "c"), ("a", "c")])
    nx.set_node_attributes(source, {"a": 1.5, "b": 2.5, "c": 3.5}, "weight")
    source.nodes["a"]["only here"] = 1
    converted = from_networkx(source)
    assert converted.data["node"].tolist() == ["b", "c", "a"]
    assert converted.data["weight"].tolist() == [2.5, 3.5, 1.5]
    assert converted.data.keys() == {"node", "weight"}
    assert children(converted) == [[], [(0, 0), (1, 2)], []]  # slots in the order of the edges


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
def test_vectors_at_nodes_are_rows(form: Callable[[list[float]], object]) -> None:
    source = nx.DiGraph([((0, 0), (0, 1))])  # whose names are pairs
    nx.set_node_attributes(source, {(0, 0): form([1.5, 2.5]), (0, 1): form([3.5, 4.5])}, "x")
    nx.set_node_attributes(source, {(0, 0): ["a"], (0, 1): ["b", "c"]}, "words")
    nx.set_node_attributes(source, {(0, 0): (1, 2), (0, 1): (3, 4)}, "pair")
    nx.set_edge_attributes(source, {((0, 0), (0, 1)): form([0.5, 0.25])}, "w")
    converted = from_networkx(source)
    assert converted.data["w"].tolist() == [[0.5, 0.25]]
    assert converted.data["x"].tolist() == [[1.5, 2.5], [3.5, 4.5]]
    assert converted.data["words"].tolist() == [["a"], ["b", "c"]]
    assert converted.data["pair"].tolist() == [(1, 2), (3, 4)]
    assert converted.data["node"].tolist() == [(0, 0), (0, 1)]
    source.nodes[0, 1]["x"] = form([3.5])
    with pytest.raises(GraphError, match=r"attribute 'x' has the shape \[2\] at vertex 0, but \[1\] at vertex 1"):
        from_networkx(source)


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (nx.Graph([(0, 1)]), {}, InputTypeError, "undirected; .* give a DiGraph with edges from children to parents"),
        (nx.DiGraph(), {}, GraphError, "a graph with no vertices"),
        (nx.DiGraph([(0, 1), (1, 0)]), {}, GraphError, "a cycle"),
        (nx.DiGraph([(0, 1)]), {"kind": "sort"}, GraphError, "node 0 has no attribute 'sort'"),
        (nx.DiGraph([(0, 1)]), {"slot": "at"}, GraphError, "edge 0 -> 1 has no attribute 'at'"),
        ([(0, 1)], {}, InputTypeError, "from_networkx takes a networkx graph, not list"),
    ],
)
def test_networkx_graphs_that_are_refused(source: object, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_networkx(source, **options)


@pytest.mark.parametrize("form", [torch.tensor, np.array, list])
def test_an_edge_index(form: object) -> None:
    converted = from_edge_index(form([[0, 1, 3], [2, 2, 2]]))
    assert children(converted) == [[], [], [(0, 0), (1, 1), (2, 3)], []]
    assert from_edge_index(form([[0], [1]]), num_vertices=5).num_vertices == 5


def test_an_edge_index_without_edges_needs_the_number_of_vertices() -> None:
    empty = torch.empty(2, 0, dtype=torch.int64)
    assert from_edge_index(empty, num_vertices=2).num_edges == 0
    with pytest.raises(GraphError, match="no vertices"):
        from_edge_index(empty)


class Data(SimpleNamespace):
    """What is used of `torch_geometric.data.Data`."""

    def keys(self) -> list[str]:
        return [name for name in vars(self) if name != "num_nodes"]

    def __getitem__(self, name: str) -> object:
        return getattr(self, name)

    def is_edge_attr(self, name: str) -> bool:
        return self._rows(name) == self.edge_index.shape[1] and (self._rows(name) != self.num_nodes or "edge" in name)

    def is_node_attr(self, name: str) -> bool:
        return self._rows(name) == self.num_nodes and not self.is_edge_attr(name)

    def _rows(self, name: str) -> int | None:
        value = self[name]
        return value.shape[-1 if "index" in name else 0] if isinstance(value, torch.Tensor) and value.dim() else None


def test_pytorch_geometric() -> None:
    source = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=3, x=torch.ones(3, 2), y=torch.zeros(1), name="a")
    converted = from_edge_index(source)
    assert converted.num_vertices == 3
    assert converted.data.keys() == {"x"}
    assert converted.data["x"].shape == (3, 2)


def geometric(**attributes: object) -> Data:
    """Six unsorted edges between six vertices, so that rows of one cannot be told from rows of the other by their number."""
    edges = torch.tensor([[3, 0, 1, 4, 2, 0], [4, 3, 3, 5, 4, 5]])
    given = {"x": torch.arange(6.0)[:, None], "edge_attr": torch.arange(6) * 10, "edge_index": edges, **attributes}
    return Data(num_nodes=6, **given)


def test_edge_attributes_of_pytorch_geometric_stay_in_the_order_of_its_edges() -> None:
    source = geometric(edge_label_index=torch.zeros(2, 6, dtype=torch.int64), y=torch.ones(1))
    converted = from_edge_index(source)
    assert converted.edge_names == ["edge_attr"]
    assert converted.data.keys() == {"x", "edge_attr"}
    assert converted.data["edge_attr"].tolist() == [0, 10, 20, 30, 40, 50]
    assert torch.equal(converted.edge_index, source.edge_index)
    batch = pack([converted, converted])
    assert batch.edge_names == {"edge_attr"}
    assert batch.data["edge_attr"].tolist() == [0, 10, 20, 30, 40, 50] * 2
    assert torch.equal(batch.edge_index, torch.cat([source.edge_index, source.edge_index + 6], 1))
    with pytest.raises(InputTypeError, match="an input graph, which is one already"):
        from_edge_index(converted)


def test_edge_attributes_of_networkx_stay_in_the_order_of_its_edges() -> None:
    source = nx.MultiDiGraph()
    source.add_edge("b", "c", relation="second", weight=2, at=1)
    source.add_edge("b", "d", relation="first", weight=1, at=4)
    source.add_edge("a", "c", relation="third", weight=3, at=0)
    source.add_edge("b", "c", relation="again", weight=4, at=7, here_only=0)
    nx.set_node_attributes(source, dict.fromkeys("abcd", 0.5), "weight")
    converted = from_networkx(source, slot="at")
    nodes = converted.data["node"]
    ends = [(nodes[child], nodes[parent]) for child, parent in converted.edge_index.T.tolist()]
    assert ends == [(child, parent) for child, parent, _ in source.edges]
    assert converted.edge_names == ["relation", "edge_weight"]  # vertices have a weight, too
    assert converted.data["relation"].tolist() == [attributes["relation"] for *_, attributes in source.edges(data=True)]
    assert converted.data["edge_weight"].tolist() == [
        attributes["weight"] for *_, attributes in source.edges(data=True)
    ]
    assert converted.data["weight"].tolist() == [0.5] * 4
    again = from_networkx(to_networkx(converted), slot="slot")
    assert again.edge_index.tolist() == converted.edge_index.tolist()
    assert again.data["relation"].tolist() == converted.data["relation"].tolist()
    unread = from_networkx(to_networkx(converted))
    assert (
        unread.data["slot"].tolist() == converted.slot[np.argsort(converted.edge)].tolist()
    )  # an attribute as any other
    with pytest.raises(GraphError, match="edges have data 'slot', where to_networkx writes the slots; rename it"):
        to_networkx(unread)
    unread.data["relation"] = unread.data["relation"][1:]
    unread.data["rank"] = unread.data.pop("slot")
    unread.edge_names[:] = ["relation"]
    with pytest.raises(GraphError, match="data 'relation' of graph 0 has 3 rows for 4 edges"):
        to_networkx(unread)
    nx.set_node_attributes(source, dict.fromkeys("abcd", 0), "edge_weight")
    with pytest.raises(GraphError, match="vertices have 'weight' and 'edge_weight', so that there is no name left"):
        from_networkx(source)


def test_dgl() -> None:
    source = SimpleNamespace(
        edges=lambda: (torch.tensor([0, 1]), torch.tensor([2, 2])),
        num_nodes=lambda: 3,
        ndata={"h": torch.arange(3)},
        edata={"w": torch.tensor([0.5, 1.5]), "h": torch.tensor([[7], [8]])},
    )
    converted = from_edge_index(source, kind=["a", "a", "b"])
    assert children(converted) == children(graph(3, [(0, 2), (1, 2)]))
    assert converted.data["h"].tolist() == [0, 1, 2]
    assert converted.kinds == ("a", "b")
    assert converted.edge_names == ["w", "edge_h"]
    assert converted.data["w"].tolist() == [0.5, 1.5]
    assert converted.data["edge_h"].tolist() == [[7], [8]]


@pytest.mark.parametrize(
    ("source", "reader"),
    [
        (torch.tensor([[0, 1], [2, 2]]), "from_edge_index"),
        (SimpleNamespace(edge_index=torch.tensor([[0], [1]])), "from_edge_index"),
        (SimpleNamespace(num_nodes=lambda: 2), "from_edge_index"),
        (nx.DiGraph([(0, 1)]), "from_networkx"),
    ],
    ids=["edge_index", "Geometric", "DGL", "networkx"],
)
def test_graphs_of_other_libraries_in_place_of_ours_are_refused_with_their_reader(source: object, reader: str) -> None:
    with pytest.raises(
        InputTypeError, match=rf"takes a list of input graphs, not \w+; make one with vf\.{reader}, and"
    ):
        pack(source)  # type: ignore[arg-type]
    with pytest.raises(
        InputTypeError, match=rf"element 0 of the list is a \w+, not an input graph; make one with vf\.{reader}$"
    ):
        pack([source])  # type: ignore[list-item]
