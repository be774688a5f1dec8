"""Values of a window that no stage of a pass needs both share memory."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

import vertexflow as vf
from vertexflow.kernels import native
from vertexflow.kernels.arguments import Scratch
from vertexflow.kernels.memory.layout import Layout
from vertexflow.kernels.memory.lives import Life
from vertexflow.kernels.prepared import group_memory, windows
from vertexflow.kernels.prepared import structures as prepared

SIZE = 8


def test_tensors_that_are_needed_at_the_same_time_do_not_meet():
    """Random lives and sizes, against all pairs."""
    chooser = random.Random(0)
    for _ in range(30):
        layout, lives = Layout(torch.device("cpu")), {}
        for key in range(12):
            first = chooser.randint(0, 2)
            lives[key] = Life(first, chooser.randint(first, 2)) if chooser.random() < 0.9 else Life(0, 2)
            if chooser.random() < 0.5:
                phase = chooser.randint(0, 4)
                lives[key] = Life(1, 1, chooser.choice(["core", "other"]), (phase, chooser.randint(phase, 5)))
            layout.add(key, torch.float32, (chooser.randint(1, 9), 16), life=lives[key])
        bounds = {key: (place.offset, place.offset + place.shape[0] * 16) for key, place in layout.places.items()}
        for one, other in itertools.combinations(bounds, 2):
            (start, stop), (other_start, other_stop) = bounds[one], bounds[other]
            meet = start < other_stop and other_start < stop
            assert not meet or not lives[one].meets(lives[other])
        assert layout.sizes[torch.float32] == max(stop for _, stop in bounds.values())


def test_the_first_gap_is_filled():
    layout = Layout(torch.device("cpu"))
    lives = [Life(0, 2), Life(0, 0), Life(0, 1), Life(1, 2), Life(2, 2)]
    assert [layout.add(key, torch.float64, (8,), life=life).offset for key, life in enumerate(lives)] == [
        0,
        8,
        16,
        8,
        16,
    ]
    assert layout.sizes == {torch.float64: 24}


def test_phases_of_one_part_are_compared_and_stages_of_others():
    early, late = Life(1, 1, "core", (0, 1)), Life(1, 1, "core", (2, 3))
    assert not early.meets(late)
    assert early.meets(Life(1, 1, "core", (1, 2)))
    assert early.meets(Life(1, 1, "other", (2, 3)))
    assert early.meets(Life(0, 1))
    assert not early.meets(Life(2, 2, "core_other", (0, 1)))


def test_a_value_without_a_life_shares_with_none():
    layout = Layout(torch.device("cpu"))
    assert [layout.add(key, torch.float64, (3,)).offset for key in range(3)] == [0, 8, 16]


@pytest.mark.slow
@pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")
def test_what_is_packed_once_lies_at_one_place(monkeypatch):
    """Layouts of windows are of different sizes; the panels of weights are those of the first window in all of them."""
    recorded, add = [], group_memory.GroupMemory._add

    def noted(self, region, layouts, first):
        recorded.extend(layouts if self.windows.are_several else [])
        add(self, region, layouts, first)

    monkeypatch.setattr(group_memory.GroupMemory, "_add", noted)
    monkeypatch.setattr(windows, "rows_of_a_window", lambda rows, width: 3)
    model, batch = vf.nn.ChildSumTreeLSTM(SIZE, SIZE, backend="native"), vf.pack([vf.tree(((0, 1, 2), (3, 4)))] * 3)
    model(batch, x=torch.randn(batch.num_vertices, SIZE)).h.sum().backward()
    places: dict[object, set[int]] = {}
    for layout in recorded:
        for key, place in layout.places.items():
            if getattr(key, "name", "").startswith("room"):
                places.setdefault(key, set()).add(place.offset)
    assert len(places) >= 3
    assert all(len(offsets) == 1 for offsets in places.values())
    assert len({tuple(layout.sizes.values()) for layout in recorded}) > 2


@pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")
def test_scratch_memory_of_a_step_is_shared_where_all_threads_have_met(monkeypatch):
    """The gates' product is read behind that of the forget gates; the sum over children begins where that was read."""
    recorded, add = [], group_memory.GroupMemory._add

    def noted(self, region, layouts, first):
        recorded.extend(layouts)
        add(self, region, layouts, first)

    monkeypatch.setattr(group_memory.GroupMemory, "_add", noted)
    monkeypatch.setattr(windows, "rows_of_a_window", lambda rows, width: 3)
    model, batch = vf.nn.ChildSumTreeLSTM(SIZE, SIZE, backend="native"), vf.pack([vf.tree(((0, 1, 2), (3, 4)))] * 3)
    model(batch, x=torch.randn(batch.num_vertices, SIZE))
    of_core = [(key, layout) for layout in recorded for key in layout.places if getattr(key, "part", None) == "core"]
    scratch = {key.name: (key, layout.places[key].offset) for key, layout in of_core if isinstance(key, Scratch)}
    (gates, gates_at), (forget, forget_at), (total, total_at) = (scratch[f"scratch_{number}"] for number in (1, 2, 3))
    assert (gates.phases, forget.phases, total.phases) == ((2, 3), (1, 2), (3, 3))
    assert forget_at == total_at != gates_at


@pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")
def test_windows_with_many_edges_have_fewer_rows(monkeypatch):
    returned, find = [], windows.windows_of
    monkeypatch.setattr(prepared, "windows_of", lambda *arguments: returned.append(find(*arguments)) or returned[-1])
    monkeypatch.setattr(windows, "rows_of_a_window", lambda rows, width: 5)
    model = vf.nn.ChildSumTreeLSTM(SIZE, SIZE, backend="native")
    batch = vf.pack([vf.tree(tuple(range(children))) for children in (2, 2, 2, 2, 2, 9, 9, 9, 9, 9)])
    model(batch, x=torch.randn(batch.num_vertices, SIZE)).h.sum().backward()
    ((of_group,),) = returned
    assert [window.start for window in of_group.all[1:]] == [window.stop for window in of_group.all[:-1]]
    sizes = [(window.stop - window.start, window.edge_stop - window.edge_start) for window in of_group.all]
    assert all(0 < rows <= 5 for rows, _ in sizes)
    assert sum(edges for _, edges in sizes) == batch.num_edges
    assert max(edges for _, edges in sizes) < 5 * 9
    assert min(rows for rows, edges in sizes if edges) < 4
