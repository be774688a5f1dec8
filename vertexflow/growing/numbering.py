"""Where the vertices of a run lie among its rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _core
from .growth import Wide


class Numbering:
    """The row of each vertex of a run, in which its states and outputs lie. It is the vertex's number, except where vertices of
    several kinds were added at once and computed kind by kind: then those of a kind lie one behind the other."""

    def __init__(self) -> None:
        # With room for further vertices, whose rows are their numbers; the last one is -1.
        self._rows: Wide | None = None

    @property
    def is_needed(self) -> bool:
        """Whether any vertex has another row than its number."""
        return self._rows is not None

    def rows_of(self, numbers: Any, count: int) -> Any:
        """The rows of these vertices, an array of integers, where -1 remains what it is. Arrays of another dtype, or with numbers
        that are not those of the first `count` vertices, are returned as they are."""
        if self._rows is None or numbers.dtype != np.int64:
            return numbers
        least, last = _core.bounds_of(numbers)
        return numbers if least < -1 or last >= count else self.of_known(numbers, count)

    def of_known(self, numbers: Wide, count: int) -> Wide:
        """The rows of these vertices, all of which are among the first `count`; -1 remains what it is."""
        return numbers if self._rows is None else self._with_room_for(count)[numbers]

    def place(self, start: int, places: Wide) -> None:
        """Note that the vertices from `start` on have the rows `start + places`."""
        stop = start + len(places)
        self._with_room_for(stop)[start:stop] = start + places

    def _with_room_for(self, count: int) -> Wide:
        rows = self._rows
        if rows is None or len(rows) <= count:
            self._rows = np.arange(2 * count + 1)
            if rows is not None:
                self._rows[: len(rows) - 1] = rows[:-1]
            self._rows[-1] = -1
        assert self._rows is not None
        return self._rows
