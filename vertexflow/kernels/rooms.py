"""Where the values of a group lie in each of its windows."""

from __future__ import annotations

from collections.abc import Hashable

from .calls import At, Piece, Places
from .memory import Along, Layout
from .windows import Windows


class Rooms:
    """Where what one group of rows has lies, in each of its windows.

    Each place is that of all rows of the group. Where there is room for the rows of a window alone, these lie there, and the
    others would before and behind it.
    """

    def __init__(self, windows: Windows, given: Places) -> None:
        self.windows = windows
        self.of_window = [dict(given) for _ in windows.all]

    def set(self, key: Hashable, at: At) -> None:
        """A place that is the same in all windows."""
        for places in self.of_window:
            places[key] = at

    def add(self, piece: Piece, layout: Layout, is_kept: bool = False) -> None:
        """Room for all that a layout has; what is kept has all rows."""
        starts = {dtype: piece.room(size, dtype.itemsize).offset for dtype, size in layout.sizes.items()}
        group = self.windows.group
        for key, place in layout.places.items():
            size = place.dtype.itemsize
            rows, stride = (place.shape[0], place.strides[0]) if place.shape else (1, 0)
            at = At(piece.address, starts[place.dtype] + place.offset * size, stride * size, rows)
            if is_kept or place.along is None or not self.windows.are_several:
                self.set(key, at)
            else:
                rows = place.along.of(group.extent) * (place.each // stride if stride else 1)
                self._move(key, at._replace(rows=rows), place.along, place.each * size)

    def room(self, piece: Piece, key: Hashable, along: Along, bytes: int, is_kept: bool = False) -> None:
        """Room for a row of so many bytes for all that something goes along; what is kept has all."""
        extent, rows = self.windows.extent, along.of(self.windows.group.extent)
        if is_kept or extent is None:
            self.set(key, piece.room(rows, bytes))
        else:
            self._move(key, piece.room(along.of(extent), bytes)._replace(rows=rows), along, bytes)

    def _move(self, key: Hashable, at: At, along: Along, bytes: int) -> None:
        for places, window in zip(self.of_window, self.windows.all, strict=True):
            places[key] = at._replace(offset=at.offset - window.range(along)[0] * bytes)
