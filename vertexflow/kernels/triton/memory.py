"""Reading and writing of what lies in memory, as Triton expressions."""

from __future__ import annotations

from torch import fx

from ..lower.index import Index, Var, linear
from ..lower.views import Coords, of_vertex, split_off
from ..operations import Unsupported, trailing
from .lines import Lines
from .places import Gathered, Received, Rows, Shared


def row_of(at: Index) -> Var:
    """The variable that a row is."""
    ((row, factor),) = at.terms if len(at.terms) == 1 else ((None, 0),)
    if not isinstance(row, Var) or factor != 1 or at.constant:
        raise Unsupported("elements of one row lie in several")
    return row


def read(lines: Lines, node: fx.Node, place: Shared | Rows | Gathered, coords: Coords) -> str:
    """The elements of a value at `coords`, as they lie in memory."""
    mask = lines.mask(*coords)
    guard = f", mask={mask}, other=0" if mask else ""
    return f"tl.load({address(lines, node, place, coords)}{guard})"


def write(lines: Lines, place: Rows, row: Var, column: Index, value: str, mask: str) -> str:
    """A store of elements in these columns."""
    return f"tl.store({_added(_row_start(lines, place, row), column)}, {value}, mask={mask})"


def address(lines: Lines, node: fx.Node, place: Shared | Rows | Gathered, coords: Coords) -> str:
    """Where the elements of a value are."""
    if isinstance(place, Shared):
        return _added(place.pointer, linear(coords, trailing(node)))
    at, inner = split_off(node, coords)
    row, column = row_of(at), linear(inner, of_vertex(node))
    if isinstance(place, Rows):
        return _added(_row_start(lines, place, row), column)
    if place.beside == 1:
        return _added(_child_start(lines, place, row, place.slot), column)
    slot, column = column // place.width, column % place.width
    if not slot.terms:
        return _added(_child_start(lines, place, row, slot.constant), column)
    number = f"({place.first} + {row}) * {place.slots} + {slot}"
    child = f"tl.load({place.index} + {number}, mask={lines.mask(*coords)}, other=0).to(tl.int64)"
    return _added(f"{place.pointer} + {_times(child, place.width)}", column)


def receive(lines: Lines, place: Received, coords: Coords, shape: list[int], dtype: str) -> str:
    """The gradient of a state that comes to rows."""
    row, column = row_of(coords[0]), linear(coords[1:], shape)
    in_rows = lines.blocks[row.name].mask
    rows, columns = lines.shape(*coords)
    whole = f"tl.broadcast_to({lines.mask(*coords)}, ({rows}, {columns}))"
    return f"received({place.arguments}, absolute + {row}, {column}, {in_rows}, {whole}, {place.width}, {dtype})"


def _times(row: str, width: int | str) -> str:
    return row if width == 1 else f"{row} * {width}"


def _added(pointer: str, column: Index) -> str:
    text = str(column)
    return pointer if text == "0" else f"{pointer} + {text}"


def _row_start(lines: Lines, place: Rows, row: Var) -> str:
    """A variable for where the rows of a value begin, made once where its row is known."""
    key = ("rows", place, row)
    text = f"({place.first} + {row})" if place.first else row.name
    column = f" + {place.column}" if place.column else ""
    name = f"{place.pointer.removesuffix('_ptr')}_rows"
    return lines.find(key) or lines.let(
        name, f"{place.pointer} + {_times(text, place.stride or place.width)}{column}", key, _depth(lines, row)
    )


def _child_start(lines: Lines, place: Gathered, row: Var, slot: int) -> str:
    """The same for rows of a child's state."""
    key, depth = ("child", place.index, row, slot), _depth(lines, row)
    child = lines.find(key)
    if child is None:
        at = f"{_times(f'({place.first} + {row})', place.slots)}{f' + {slot}' if slot else ''}"
        in_rows = lines.blocks[row.name].mask
        load = f"tl.load({place.index} + {at}, mask={in_rows}, other=0).to(tl.int64)"
        child = lines.let(f"child_{slot}", load, key, depth)
    of_state = ("child state", place.pointer, row, slot, place.index)
    name, text = f"{place.pointer.removesuffix('_ptr')}_{slot}", f"{place.pointer} + {_times(child, place.width)}"
    return lines.find(of_state) or lines.let(name, text, of_state, depth)


def _depth(lines: Lines, row: Var) -> int:
    return lines.blocks[row.name].depth
