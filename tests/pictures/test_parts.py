from __future__ import annotations

import re

import torch

import vertexflow as vf
from tests.models import FromCode


def recurrence(self, v):
    before = v.gather(0)
    drive = v.pull("x") * 2
    h = torch.tanh(drive + before.h)
    total = before.total + h
    v.scatter(h=h, total=total)
    v.push(out=total.exp())


def drawn(derivative: bool = False) -> list[list[tuple[str, str]]]:
    """Of each panel: what is written in its boxes, from the first to the last."""
    model = FromCode(recurrence, {"h": 4, "total": 4}, backend="torch")
    x = torch.randn(3, 4, requires_grad=True)
    model([vf.chain(3)], x=x)
    panels = model.symbolic_graph.draw(derivative).svg.split('class="part"')[1:]
    assert model.symbolic_graph._repr_svg_() == model.symbolic_graph.draw().svg
    text = r"<text[^>]*>([^<]*)</text>"
    return [re.findall(rf'class="value \w+"><title>[^<]*</title><rect[^>]*>{text}{text}', panel) for panel in panels]


def test_parts_values_and_their_names():
    eager, core, *lazy = drawn()
    assert {name for name, _ in eager} == {"pull_x", "drive"}
    assert {"before_h", "drive", "h", "total"} <= {name for name, _ in core}
    assert dict(core)["h"] == "tanh → scatter"
    assert ("before_h", "gather h, slot 0") in core
    assert any(below.startswith("exp → push") for panel in lazy for _, below in panel)


def test_the_derivative_is_drawn_if_it_is_wanted():
    assert len(drawn(derivative=True)) > len(drawn())
