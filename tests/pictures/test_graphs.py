from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import vertexflow as vf
from vertexflow.pictures.layout import place

SVG = "{http://www.w3.org/2000/svg}"


def vertices_of(picture: vf.Picture) -> dict[int, ET.Element]:
    return {
        int(g.get("data-vertex")): g for g in ET.fromstring(picture.svg).iter(f"{SVG}g") if g.get("class") == "vertex"
    }


def texts_of(picture: vf.Picture) -> list[str]:
    return [text.text or text[-1].tail for text in ET.fromstring(picture.svg).iter(f"{SVG}text")]


def edges_of(picture: vf.Picture) -> list[tuple[int, int, int]]:
    """Child, parent and slot of each arrow, as they are said where the mouse rests."""
    matches = re.findall(r"child (\d+) → vertex (\d+), slot (\d+)", picture.svg)
    return sorted((int(child), int(parent), int(slot)) for child, parent, slot in matches)


def test_vertices_edges_slots_and_roots():
    picture = vf.graph(5, [(0, 2), (1, 2), (0, 3), (2, 4), (3, 4)]).draw()
    vertices = vertices_of(picture)
    assert sorted(vertices) == [0, 1, 2, 3, 4]
    assert edges_of(picture) == [(0, 2, 0), (0, 3, 0), (1, 2, 1), (2, 4, 0), (3, 4, 1)]
    thick = [at for at, g in vertices.items() if float(g.find(f"{SVG}rect").get("stroke-width")) > 2]
    assert thick == [4]
    assert "a root" in vertices[4].find(f"{SVG}title").text


def test_kinds_have_colours_and_names():
    picture = vf.graph(3, [(0, 2), (1, 2)], kind=["word", "word", "phrase"]).draw()
    fills = {at: g.find(f"{SVG}rect").get("fill") for at, g in vertices_of(picture).items()}
    assert fills[0] == fills[1] != fills[2]
    assert {"word", "phrase"} <= set(texts_of(picture))


def test_a_slot_is_written_where_one_before_it_is_missing():
    slots = [
        e.text for e in ET.fromstring(vf.graph(2, [(0, 1)], slots=[1]).draw().svg).iter() if e.get("class") == "slot"
    ]
    assert slots == ["1"]
    assert 'class="slot"' not in vf.chain(2).draw().svg


def arcs_of(picture: vf.Picture) -> list[tuple[int, ...]]:
    """Children and parent of each arc, as they are said where the mouse rests."""
    matches = re.findall(r"children \(([-\d, ]+)\) → vertex (\d+), arc", picture.svg)
    return sorted((*map(int, inside.split(", ")), int(parent)) for inside, parent in matches)


@st.composite
def hypergraphs(draw):
    """Any number of arcs of three children, of which some are missing, to each of some vertices."""
    size = draw(st.integers(2, 9))
    parents = draw(st.lists(st.integers(1, size - 1), min_size=1, max_size=8))
    arcs = []
    for parent in parents:
        child = st.integers(-1, parent - 1)
        arcs.append(((draw(st.integers(0, parent - 1)), draw(child), draw(child)), parent))
    return vf.hypergraph(size, arcs)


@given(hypergraphs())
@example(vf.hypergraph(3, [((0, -1, -1), 2)] * 5 + [((0, -1, -1), 1)]))  # more arcs than the vertex is wide
def test_the_children_of_an_arc_meet_in_a_point(graph):
    picture = graph.draw()
    assert arcs_of(picture) == sorted(map(tuple, graph.arcs.T.tolist()))
    assert edges_of(picture) == []
    arcs = [g for g in ET.fromstring(picture.svg).iter(f"{SVG}g") if g.get("class") == "arc"]
    meetings = [(arc.find(f"{SVG}circle").get("cx"), arc.find(f"{SVG}circle").get("cy")) for arc in arcs]
    assert len(set(meetings)) == len(meetings) == graph.num_arcs
    for arc, (x, y) in zip(arcs, meetings, strict=True):
        *lines, tip = (path.get("d") for path in arc.iter(f"{SVG}path"))
        assert all(line.endswith(f"{x} {y}") for line in lines)
        assert tip.startswith(f"M{x} {y} ")
    heads = [path for path in ET.fromstring(picture.svg).iter(f"{SVG}path") if path.get("marker-end")]
    assert len(heads) == graph.num_arcs  # one arrow each


def test_children_of_arcs_that_are_left_out_are_counted():
    graph = vf.hypergraph(6, [((0, 1), 4), ((2, 3), 4), ((4, 0), 5)])
    picture = graph.draw(most=4)
    assert "children (…, …)" not in picture.svg
    assert "children (4, 0) → vertex 5, arc 0" in picture.svg
    assert "children (0, 1) → vertex 4, arc 0" in picture.svg
    assert "2 children that are not shown" in picture.svg
    assert 'class="slot"' not in picture.svg


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (None, ["2", "good", "2", "<&>", "3"]),  # tokens where there are some, else labels
        ("label", ["2", "2", "3"]),
        (["a", "b", "c"], ["a", "b", "c"]),
        (torch.tensor([0.25, 1.0, 2.0]), ["0.25", "1", "2"]),
    ],
)
def test_labels(labels, shown):
    (tree,) = vf.from_ptb("(3 (2 good) (2 <&>))")
    assert set(texts_of(tree.draw(labels))) <= set(shown)
    assert len(texts_of(tree.draw(labels))) == 3


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(vf.InputError, match="2 labels for 3 vertices"):
        vf.chain(3).draw(["a", "b"])
    with pytest.raises(vf.InputError, match="no data of this name"):
        vf.chain(3).draw("word")
    with pytest.raises(vf.InputTypeError, match="labels is a int"):
        vf.chain(3).draw(7)
    with pytest.raises(vf.InputError, match="most is 0"):
        vf.chain(3).draw(most=0)


def test_a_batch_shows_its_graphs_by_number_until_there_is_no_room():
    picture = vf.pack([vf.chain(4)] * 10).draw(most=9)
    assert sorted(vertices_of(picture)) == list(range(8))
    assert {"graph 0", "graph 1", "… and 8 more graphs, with 32 vertices"} <= set(texts_of(picture))


def test_of_a_large_graph_what_is_nearest_to_the_roots():
    picture = vf.tree_from_parents([-1, *(np.arange(1, 10_000) - 1) // 2]).draw(most=15)
    assert sorted(vertices_of(picture)) == list(range(15))
    assert "… and 9,985 more vertices, farther from the roots" in texts_of(picture)
    assert texts_of(picture).count("… 2") == 8  # children that are left out


def test_a_sequence_runs_from_left_to_right_and_a_tree_upwards():
    boxes = {at: g.find(f"{SVG}rect") for at, g in vertices_of(vf.chain(12).draw()).items()}
    left = [float(boxes[at].get("x")) for at in range(12)]
    assert left == sorted(left)
    assert len({box.get("y") for box in boxes.values()}) == 1
    tree = {at: float(g.find(f"{SVG}rect").get("y")) for at, g in vertices_of(vf.tree(((0, 1), 2)).draw()).items()}
    assert tree[4] < tree[3] == tree[2] < tree[0] == tree[1]


def test_notebooks_and_files_get_the_same(tmp_path):
    for structure in (vf.chain(3), vf.pack([vf.chain(3), vf.tree((0, 1))])):
        structure.draw().save(tmp_path / "picture.svg")
        assert (tmp_path / "picture.svg").read_text(encoding="utf-8") == structure._repr_svg_()


NUMBER = st.integers(0, 29)


@given(st.integers(1, 30), st.sets(st.tuples(NUMBER, NUMBER), max_size=50))
def test_no_two_vertices_in_one_place_and_children_below_parents(count, pairs):
    edges = sorted((child, parent) for child, parent in pairs if child < parent < count)
    children = [[child for child, above in edges if above == parent] for parent in range(count)]
    places = place(children)
    assert all(places.levels[child] > places.levels[parent] for child, parent in edges)
    by_level: dict[int, list[float]] = {}
    for column, level in zip(places.columns, places.levels, strict=True):
        by_level.setdefault(level, []).append(column)
    assert all((np.diff(sorted(columns)) > 0.999).all() for columns in by_level.values())
    assert min(places.columns) == 0


def test_a_picture_is_not_saved_under_the_name_of_another_format(tmp_path):
    picture = vf.chain(2).draw()
    with pytest.raises(vf.InputError, match=r"a picture is SVG, not png; give a name that ends in \.svg"):
        picture.save(tmp_path / "chain.PNG")
    assert not list(tmp_path.iterdir())
    picture.save(tmp_path / "chain.svg")
    assert (tmp_path / "chain.svg").read_text(encoding="utf-8") == picture.svg
