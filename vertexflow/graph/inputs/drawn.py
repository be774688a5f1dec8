"""`draw` of input graphs and batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import GraphError, InputError, InputTypeError

if TYPE_CHECKING:
    from ...pictures.cut import Structure
    from ...pictures.svg import Picture

    class Drawable(Structure, Protocol):
        @property
        def data(self) -> Mapping[str, Any]: ...


MOST = 80  # vertices on a picture: a page wide
_TEXTS = ("token", "form", "node", "label")  # names of data that readers read, the first of which is shown


class Drawn:
    """What input graphs and batches have in common."""

    __slots__ = ()

    def draw(self: Any, labels: str | Sequence[Any] | None = None, most: int = MOST) -> Picture:
        """The structure as a picture: vertices with their labels, in the colours of their kinds, children below their parents (a
        sequence: left of them), roots with a thick line. A slot is written beside its edge where one before it is missing. The
        children of an arc (`vf.hypergraph`) meet in a point, from which one arrow leads to the parent.

        Args:
            labels: what is written on the vertices: a name in `data`, or one value for each; by default tokens or labels that a
                reader read, else their numbers.
            most: how many vertices are shown at most; of a larger graph those nearest to its roots, of a larger batch its first
                graphs. What is left out is counted.

        Returns:
            A picture, which notebooks show; `.save("tree.svg")` writes it.

        Raises:
            InputError, InputTypeError: labels that are not one for each vertex, or no such name.

        Example:
            >>> vf.tree(((0, 1), 2)).draw(["not", "very", "good", "", ""]).save("tree.svg")
        """
        from ...pictures.graphs import draw

        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InputError(f"most is {most!r}; give the number of vertices to show, 1 or more")
        return draw(self, bounds_of(self), labels_of(self, labels), most)

    def _repr_svg_(self: Any) -> str:
        return str(self.draw())


def bounds_of(structure: Any) -> list[int]:
    """Where the vertices of each graph begin, and where the last one's end."""
    offset = getattr(structure, "graph_offset", None)
    return [0, structure.num_vertices] if offset is None else [*map(int, offset)]


def labels_of(structure: Drawable, labels: str | Sequence[Any] | None) -> Callable[[int], str]:
    """What is written on each vertex."""
    if labels is None:
        try:
            data = structure.data
        except GraphError:  # arrays that do not fit together: a picture needs none of them
            data = {}
        name = next((name for name in _TEXTS if name in data and len(data[name]) == structure.num_vertices), None)
        if name is None:
            return str
        values, others = data[name], data.get("label")
        return lambda vertex: str(values[vertex]) or (str(vertex) if others is None else str(others[vertex]))
    if isinstance(labels, str):
        if labels not in structure.data:
            raise InputError(
                f"labels={labels!r}: there is no data of this name ({', '.join(map(repr, structure.data)) or 'there is none'}); "
                "give one of these names, or one label for each vertex"
            )
        return labels_of(structure, [*structure.data[labels]])
    if not hasattr(labels, "__len__") or not hasattr(labels, "__getitem__"):
        raise InputTypeError(f"labels is a {type(labels).__name__}; give a name in data, or one label for each vertex")
    if len(labels) != structure.num_vertices:
        raise InputError(f"{len(labels)} labels for {structure.num_vertices} vertices; give one for each")
    return lambda vertex: _text(labels[vertex])


def _text(value: Any) -> str:
    """A label: numbers in few characters."""
    value = value.item() if getattr(value, "shape", None) == () else value  # of NumPy, or of PyTorch
    return f"{value:.3g}" if isinstance(value, float) else str(value)
