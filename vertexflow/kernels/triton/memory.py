"""Loads and stores of values in memory, as Triton expressions."""

from __future__ import annotations

from ..lower.index import Index, Var
from ..operations import Unsupported
from .lines import Lines
from .places import GatheredRows, ReceivedGradient, Rows, Shared
from .spellings import place


def row_of(at: Index) -> Var:
    """The variable of a row; raises `Unsupported` where the elements of one row lie in several."""
    if not at.is_row:
        raise Unsupported("elements of one row lie in several")
    (row,) = at.variables()
    return row


def read(lines: Lines, place: Shared | Rows | GatheredRows, row: Index | None, column: Index) -> str:
    """A load of the elements of a value at a row and column; without rows, `row` is None."""
    places = (column,) if row is None else (row, column)
    mask = lines.mask(*places)
    text = f"tl.load({address(lines, place, row, column)}{f', mask={mask}, other=0' if mask else ''})"
    return text if lines.shape(lines.names_in(places)) != ("1", "1") else f"tl.broadcast_to({text}, (1, 1))"


def write(lines: Lines, at: Rows, row: Var, column: Index, value: str, mask: str) -> str:
    """A store of `value` at a row and column."""
    return f"tl.store({_added(_row_start(lines, at, row), column)}, {value}, mask={mask})"


def address(lines: Lines, at: Shared | Rows | GatheredRows, row: Index | None, column: Index) -> str:
    """The address of the elements at a row and column."""
    if isinstance(at, Shared):
        return _added(at.pointer, column)
    assert row is not None
    variable = row_of(row)
    if isinstance(at, Rows):
        return _added(_row_start(lines, at, variable), column)
    if at.num_side_by_side == 1:
        return _added(_child_start(lines, at, variable, at.slot), column)
    slot, within = column // at.width, column % at.width
    if not slot.terms:
        return _added(_child_start(lines, at, variable, slot.constant), within)
    number = f"({at.first} + {variable}) * {at.slots} + {place(slot)}"
    child = f"tl.load({at.index} + {number}, mask={lines.mask(row, column)}, other=0).to(tl.int64)"
    return _added(f"{at.pointer} + {_times(child, at.width)}", within)


def receive(lines: Lines, at: ReceivedGradient, row: Index, column: Index, dtype: str) -> str:
    """A call that computes the gradient of a state that rows receive."""
    variable = row_of(row)
    in_rows = lines.blocks[variable.name].mask
    rows, columns = lines.shape(lines.names_in((row, column)))
    full_mask = f"tl.broadcast_to({lines.mask(row, column)}, ({rows}, {columns}))"
    return (
        f"received({at.arguments}, absolute + {variable}, {place(column)}, {in_rows}, {full_mask}, {at.width}, {dtype})"
    )


def _times(row: str, width: int | str) -> str:
    return row if width == 1 else f"{row} * {width}"


def _added(pointer: str, column: Index) -> str:
    text = place(column)
    return pointer if text == "0" else f"{pointer} + {text}"


def _row_start(lines: Lines, at: Rows, row: Var) -> str:
    """A variable with the addresses at which rows of a value begin, computed once in the scope of `row`."""
    number = f"({at.first} + {row})" if at.first else row.name
    column = f" + {at.column}" if at.column else ""
    text = f"{at.pointer} + {_times(number, at.stride or at.width)}{column}"
    return lines.let(f"{at.pointer.removesuffix('_ptr')}_rows", text, lines.blocks[row.name].depth)


def _child_start(lines: Lines, at: GatheredRows, row: Var, slot: int) -> str:
    """The same for the rows of children's states."""
    block = lines.blocks[row.name]
    number = f"{_times(f'({at.first} + {row})', at.slots)}{f' + {slot}' if slot else ''}"
    load = f"tl.load({at.index} + {number}, mask={block.mask}, other=0).to(tl.int64)"
    child = lines.let(f"child_{slot}", load, block.depth)
    name, text = f"{at.pointer.removesuffix('_ptr')}_{slot}", f"{at.pointer} + {_times(child, at.width)}"
    return lines.let(name, text, block.depth)
