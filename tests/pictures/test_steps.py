from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

import vertexflow as vf

SVG = "{http://www.w3.org/2000/svg}"


def columns_of(picture: vf.Picture) -> dict[float, list[ET.Element]]:
    columns: dict[float, list[ET.Element]] = {}
    for rect in ET.fromstring(picture.svg).iter(f"{SVG}rect"):
        if rect.get("class") == "rows":
            columns.setdefault(float(rect.get("x")), []).append(rect)
    return columns


def test_a_column_a_step_as_tall_as_it_is_wide():
    steps = vf.schedule(vf.pack([vf.tree(((0, 1), 2)), vf.chain(5)]))
    heights = [sum(float(rect.get("height")) for rect in rects) for rects in columns_of(steps.plot()).values()]
    widths = (steps.steps[:, 1] - steps.steps[:, 0]).tolist()
    assert [round(height / heights[-1], 2) for height in heights] == [width / widths[-1] for width in widths]
    assert "10 vertices in 5 steps, the widest of 4" in steps.plot().svg
    assert "50% of the area is filled" in steps.plot().svg


def test_colours_by_graph_and_by_kind():
    batch = vf.pack([vf.chain(3), vf.chain(2), vf.chain(3)])
    steps = vf.schedule(batch)
    first, *_ = columns_of(steps.plot(batch)).values()
    assert sorted(rect[0].text.split("; ")[1] for rect in first) == [f"1 of graph {at}" for at in range(3)]
    kinds = vf.schedule(vf.pack([vf.chain(3).with_kind(["in", "step", "step"])]))
    fills = [rects[0].get("fill") for rects in columns_of(kinds.plot()).values()]
    assert fills[0] != fills[1] == fills[2]
    assert "of kind in" in kinds.plot().svg


def test_many_steps_are_cut():
    picture = vf.schedule(vf.pack([vf.chain(1000)])).plot()
    assert len(columns_of(picture)) == 225
    assert "… and 775 more steps" in picture.svg


def test_steps_that_read_slices_have_a_foot():
    steps = vf.schedule(vf.pack([vf.chain(4)]))
    assert steps.plot()._repr_svg_().count('class="slice"') == int((steps.reads_from >= 0).sum()) == 3


def test_another_batch_is_refused():
    with pytest.raises(vf.InputError, match="the batch has 3 vertices, the schedule 4"):
        vf.schedule(vf.pack([vf.chain(4)])).plot(vf.pack([vf.chain(3)]))
