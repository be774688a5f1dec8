"""Where the values of a group of rows lie in each of its windows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import fx

from ..edges import known_of_edges
from ..memory.layout import Along, Layout, Place
from ..order import Extent
from .calls import Location, Locations, Region, Writer
from .windows import Window, Windows


class GroupMemory:
    """The location of each value of a group, in each of its windows.

    A location always counts all rows of the group, also where memory holds those of one window at a time: it is then moved so
    that the rows of the window, counted from the group's first, fall into that memory. The other rows are not to be touched.
    """

    def __init__(self, windows: Windows, locations: Locations) -> None:
        self.windows = windows
        self.in_window = [dict(locations) for _ in windows.all]

    def set(self, key: Hashable, location: Location) -> None:
        """Set a location that is the same in all windows."""
        for locations in self.in_window:
            locations[key] = location

    def add(self, region: Region, layout: Layout) -> None:
        """Allocate a layout for all rows."""
        self._add(region, [layout] * len(self.in_window), lambda place, window: 0)

    def add_by_window(self, region: Region, lay_out: Callable[[Extent | None], Layout]) -> None:
        """Allocate layouts for the rows of one window at a time, where there are several; for all rows, where there is one."""
        if not self.windows.are_several:
            self.add(region, lay_out(None))
            return
        layouts: dict[Extent, Layout] = {}
        of_windows = []
        for extent in self.windows.rounded_extents:
            if extent not in layouts:
                layouts[extent] = lay_out(extent)
            of_windows.append(layouts[extent])
        self._add(region, of_windows, _rows_before)

    def _add(self, region: Region, layouts: Sequence[Layout], first: Callable[[Place, Window], int]) -> None:
        """Allocate a layout of each window, which share their memory; `first`: the row of the group that a place begins with."""
        sizes: dict[torch.dtype, int] = {}
        for layout in layouts:
            for dtype, size in layout.sizes.items():
                sizes[dtype] = max(size, sizes.get(dtype, 0))
        starts = {dtype: region.allocate(size, dtype.itemsize).offset for dtype, size in sizes.items()}
        extent = self.windows.group.extent
        for locations, window, layout in zip(self.in_window, self.windows.all, layouts, strict=True):
            for key, place in layout.places.items():
                size = place.dtype.itemsize
                num_rows, stride = (place.shape[0], place.strides[0]) if place.shape else (1, 0)
                if place.along is not None:
                    num_rows = place.along.count(extent) * (place.row_stride // stride if stride else 1)
                before = first(place, window) * place.row_stride * size
                offset = starts[place.dtype] + place.offset * size - before
                locations[key] = Location(region.address, offset, stride * size, num_rows)

    def place(self, key: Hashable, place: Place, within: Location, offsets: Sequence[int]) -> None:
        """Set where the rows of each window begin, in bytes within some memory."""
        assert place.along is not None, key
        group, size = self.windows.group, place.dtype.itemsize
        num_rows = place.along.count(group.extent) * (place.row_stride // place.strides[0] if place.strides[0] else 1)
        for locations, window, offset in zip(self.in_window, self.windows.all, offsets, strict=True):
            before = window.range(place.along)[0] * place.row_stride * size
            locations[key] = Location(
                within.address, within.offset + offset - before, place.strides[0] * size, num_rows
            )

    def allocate(self, region: Region, key: Hashable, along: Along, bytes: int) -> None:
        """Allocate rows of so many bytes: all of them, or, where there are several windows, those of one."""
        extent, num_rows = self.windows.extent, along.count(self.windows.group.extent)
        if extent is None:
            self.set(key, region.allocate(num_rows, bytes))
            return
        location = region.allocate(along.count(extent), bytes)._replace(num_rows=num_rows)
        for locations, window in zip(self.in_window, self.windows.all, strict=True):
            locations[key] = location._replace(offset=location.offset - window.range(along)[0] * bytes)


def _rows_before(place: Place, window: Window) -> int:
    """The row, row with children, or edge of the group that a place for the rows of a window begins with."""
    return 0 if place.along is None else window.range(place.along)[0]


def memory_of(writer: Writer, windows: Sequence[Windows]) -> list[GroupMemory]:
    """The memory of each group, with the parameters and constants whose addresses are known."""
    memory_of_groups = []
    for compiled, windows_of_group in zip(writer.bound.compiled, windows, strict=True):
        trace = compiled.program.trace
        keys: dict[fx.Node, Hashable] = {node: ("parameter", name) for name, node in trace.params.items()}
        keys |= {node: node for node in trace.constants}
        addresses = {node: writer.known_address(key) for node, key in keys.items()}
        locations: Locations = {
            node: Location(address, 0, 0, 1) for node, address in addresses.items() if address is not None
        }
        for node, array in known_of_edges(trace, windows_of_group.group):
            writer.alive.append(array)
            locations[node] = Location(0, array.data_ptr(), array.element_size(), len(array))
        memory_of_groups.append(GroupMemory(windows_of_group, locations))
    return memory_of_groups
