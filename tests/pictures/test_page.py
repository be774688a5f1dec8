from __future__ import annotations

import json
import re

import pytest
import torch

import vertexflow as vf
from tests.models import FromCode


def sums(self, v):
    h = v.pull("x") + v.gather(0).h + v.gather(1).h
    v.scatter(h=h)
    v.push(h=h, first=h[:, 0])


def data_of(path) -> dict:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    return json.loads(match[1])


@pytest.mark.parametrize("backend", ["torch", "eager"])
@pytest.mark.parametrize("reverse", [False, True])
def test_vertices_with_their_steps_rows_children_and_values(tmp_path, backend, reverse):
    model = FromCode(sums, {"h": 20}, backend=backend)
    batch = vf.pack([vf.tree(((0, 1), 2)), vf.chain(3)])
    x = torch.randn(batch.num_vertices, 20)
    out = model(batch, x=x, reverse=reverse)
    path = vf.view(model, batch, tmp_path / "run.html", x=x, reverse=reverse)
    data = data_of(path)
    run = batch.reversed() if reverse else batch
    schedule = vf.schedule(run)
    assert data["widths"] == (schedule.steps[:, 1] - schedule.steps[:, 0]).tolist()
    for number, vertex in data["vertices"].items():
        at = int(number)
        assert vertex["row"] == schedule.row[at]
        start, stop = schedule.steps[vertex["step"]]
        assert start <= vertex["row"] < stop
        children = run.child[run.offset[at] : run.offset[at + 1]].tolist()
        assert [child for _, child in vertex["children"]] == children
        assert all(data["vertices"][str(child)]["step"] < vertex["step"] for child in children)
        assert vertex["pushed"]["h"] == [f"{value:.4g}" for value in out.h[at, :12].tolist()]
        assert vertex["pushed"]["first"] == [f"{out.first[at].item():.4g}"]
    assert data["about"]["h"] == "float32 [20], the first 12 of 20 entries"
    assert len(data["vertices"]) == batch.num_vertices


@pytest.mark.parametrize("backend", ["torch", "eager"])
def test_kinds_show_what_they_push(tmp_path, backend):
    class Sentence(vf.VertexFunction):
        def __init__(self):
            super().__init__({"h": 2}, backend=backend)

        @vf.vertex("word")
        def word(self, v):
            v.scatter(h=v.pull("x"))

        @vf.vertex("phrase")
        def phrase(self, v):
            h = v.gather(0).h + v.gather(1).h
            v.scatter(h=h)
            v.push(h=h)

    batch = vf.pack([vf.graph(3, [(0, 2), (1, 2)], kind=["word", "word", "phrase"])] * 2)
    x = torch.arange(8.0).reshape(4, 2)
    path = vf.view(Sentence(), batch, tmp_path / "run.html", x=x)
    pushed = {at: vertex["pushed"] for at, vertex in data_of(path)["vertices"].items()}
    if backend == "eager":  # which does not tell whose rows they are
        assert "not shown" in path.read_text(encoding="utf-8")
        assert not any(pushed.values())
    else:
        assert pushed == {"0": {}, "1": {}, "2": {"h": ["2", "4"]}, "3": {}, "4": {}, "5": {"h": ["10", "12"]}}
    assert data_of(path)["vertices"]["2"]["kind"] == "phrase"


def test_the_page_needs_nothing_else_and_labels_are_no_markup(tmp_path):
    model = FromCode(sums, {"h": 2}, backend="torch")
    trees = vf.from_ptb("(1 (1 </script><b>) (1 &amp;))")
    path = vf.view(model, trees, tmp_path / "run.html", x=torch.full((3, 2), float("nan")))
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"https?://[^\"' ]*", text) == ["http://www.w3.org/2000/svg"] * 2  # a name, not a place
    assert not re.search(r"<(link|img|iframe)|@import|url\((?!#)", text)
    assert text.count("</script>") == 2
    assert data_of(path)["vertices"]["0"]["label"] == "</script><b>"
    assert data_of(path)["vertices"]["0"]["pushed"]["h"] == ["nan", "nan"]


def test_a_large_batch_is_cut(tmp_path):
    model = FromCode(sums, {"h": 2}, backend="torch")
    path = vf.view(model, [vf.chain(60)] * 20, tmp_path / "run.html", x=torch.randn(1200, 2))
    assert len(data_of(path)["vertices"]) == 360
    assert "840 more vertices are not shown" in path.read_text(encoding="utf-8")


def test_what_cannot_be_viewed_is_refused_and_nothing_is_written(tmp_path):
    model, path = FromCode(sums, {"h": 2}, backend="torch"), tmp_path / "run.html"
    with pytest.raises(vf.InputTypeError, match="not of a Linear"):
        vf.view(torch.nn.Linear(2, 2), [vf.chain(2)], path)
    with pytest.raises(vf.InputError, match="outputs"):
        vf.view(model, [vf.chain(2)], path, x=torch.randn(2, 2), outputs=torch.tensor([0]))
    with pytest.raises(vf.InputError, match="empty"):
        vf.view(model, [], path, x=torch.randn(0, 2))
    with pytest.raises(vf.InputError, match="'x'"):
        vf.view(model, [vf.chain(2)], path)
    assert not path.exists()


def test_arcs_of_hypergraphs_are_drawn(tmp_path):
    def vertex(self, v):
        arcs = v.arcs
        h = v.pull("x") + v.sum(arcs.gather(0).h * arcs.gather(1).h)
        v.scatter(h=h)
        v.push(h=h)

    graph = vf.hypergraph(4, [((0, 1), 2), ((1, 2), 3), ((0, -1), 3)])
    model = FromCode(vertex, {"h": 2}, backend="eager")
    path = vf.view(model, vf.pack([graph]), tmp_path / "run.html", x=torch.ones(4, 2))
    assert path.read_text("utf-8").count('<g class="arc">') == graph.num_arcs
    assert data_of(path)["vertices"]["3"]["pushed"]["h"] == ["3", "3"]  # 1 + 1 * 2 + 1 * 0
