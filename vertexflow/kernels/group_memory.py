"""Where the values of a group of rows lie in each of its windows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from torch import fx

from .calls import Location, Locations, Region, Writer
from .edges import known_of_edges
from .memory import Along, Layout, Place
from .windows import Windows


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

    def add(self, region: Region, layout: Layout, all_rows: bool = False) -> None:
        """Allocate a layout: for all rows, or, where there are several windows, for those of one."""
        starts = {dtype: region.allocate(size, dtype.itemsize).offset for dtype, size in layout.sizes.items()}
        group = self.windows.group
        for key, place in layout.places.items():
            size = place.dtype.itemsize
            num_rows, stride = (place.shape[0], place.strides[0]) if place.shape else (1, 0)
            location = Location(region.address, starts[place.dtype] + place.offset * size, stride * size, num_rows)
            if all_rows or place.along is None or not self.windows.are_several:
                self.set(key, location)
            else:
                num_rows = place.along.count(group.extent) * (place.row_stride // stride if stride else 1)
                self._move(key, location._replace(num_rows=num_rows), place.along, place.row_stride * size)

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

    def allocate(self, region: Region, key: Hashable, along: Along, bytes: int, all_rows: bool = False) -> None:
        """Allocate rows of so many bytes: all of them, or, where there are several windows, those of one."""
        extent, num_rows = self.windows.extent, along.count(self.windows.group.extent)
        if all_rows or extent is None:
            self.set(key, region.allocate(num_rows, bytes))
        else:
            location = region.allocate(along.count(extent), bytes)
            self._move(key, location._replace(num_rows=num_rows), along, bytes)

    def _move(self, key: Hashable, location: Location, along: Along, bytes: int) -> None:
        for locations, window in zip(self.in_window, self.windows.all, strict=True):
            locations[key] = location._replace(offset=location.offset - window.range(along)[0] * bytes)


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
