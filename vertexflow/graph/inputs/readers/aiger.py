"""And-inverter graphs from AIGER files: logic circuits, as hardware synthesis and model checking exchange them."""

from __future__ import annotations

import os
from typing import NoReturn

import numpy as np

from ....errors import GraphError, InputTypeError
from ..build import InputGraph, graph
from ..edge_arrays import LARGEST, Wide

CONSTANT, INPUT, LATCH, AND = range(4)

_BOM = b"\xef\xbb\xbf"  # which some editors put before ASCII files
_LONGEST = 5  # bytes of one number in a binary file: 35 bits, and a literal has 32


def from_aiger(source: str | os.PathLike[str] | bytes) -> InputGraph:
    """Read the combinational part of a circuit in AIGER 1.9, binary (`aig`) or ASCII (`aag`).

    Latches are read as inputs: their next-state functions and initial values are ignored, and so are properties (bad
    states, constraints, justice, fairness), the symbol table and comments.

    Args:
        source: the path of a file, or its content as bytes.

    Returns:
        One graph. Its vertices are the constant false if a gate or an output reads it, the inputs, the latches, and the
        gates in the order of the file; a gate has its operands in the slots 0 and 1, and edges are in the order of gates and
        slots. `graph.data` holds of each vertex
        "type" (int64: 0 constant, 1 input, 2 latch, 3 gate), "inverted" (bool [V, 2]: whether the operand in that slot
        is inverted) and "output" (bool: whether an output reads it, inverted or not).

    Raises:
        GraphError: no AIGER file, a bad header, an end too early, a literal out of range, a variable defined twice or
            never, a cycle; the message names the file, and the line or the byte.
        InputTypeError: a source that is neither a path nor bytes.
        FileNotFoundError: there is no such file.

    Example:
        >>> half_adder = vf.from_aiger(b"aag 3 2 0 1 1\\n2\\n4\\n6\\n6 4 3\\n")
        >>> half_adder.data["type"], half_adder.data["inverted"][2]
        (array([1, 1, 3]), array([False,  True]))
    """
    file = _Lines(*_read(source))
    binary, header = _header(file)
    num_inputs, num_latches, num_outputs, num_gates = header[1:5]
    if binary:
        file.rows("latch", num_latches, 1, 2)
        sources = 2 * np.arange(1, 1 + num_inputs + num_latches)
    else:
        inputs = file.rows("input", num_inputs, 1)
        sources = np.concatenate((inputs, file.rows("latch", num_latches, 2, 3)[:, :1]))[:, 0]
    outputs = file.rows("output", num_outputs, 1)[:, 0]
    _skip_properties(file, header[5:])
    first_gate = file.line + 1
    gates = _binary_gates(file, len(sources) + 1, num_gates) if binary else file.rows("gate", num_gates, 3)

    operands = np.concatenate((gates[:, 1:].ravel(), outputs))
    has_constant = int((operands < 2).any())
    variables = np.concatenate((np.zeros(has_constant, np.int64), sources >> 1, gates[:, 0] >> 1))
    if not binary:
        defined = 2 + np.arange(len(sources)), first_gate + np.arange(num_gates)
        _check_definitions(file, np.concatenate((sources, gates[:, 0])), np.concatenate(defined))
        read = np.repeat(defined[1], 2), 2 + len(sources) + np.arange(num_outputs)
        _check_operands(file, operands, np.concatenate(read), variables)
    if not len(variables):
        raise GraphError(f"{file.name}: the circuit is empty; every graph needs at least one vertex")
    order = np.argsort(variables)
    vertex = order[np.searchsorted(variables, operands >> 1, sorter=order)]

    first = len(variables) - num_gates
    parents = np.repeat(np.arange(first, len(variables)), 2)
    edges = np.stack((vertex[: 2 * num_gates], parents))
    try:
        circuit = graph(len(variables), edges, slots=np.tile([0, 1], num_gates))
    except GraphError as error:
        raise GraphError(f"{file.name}: {error} (vertex {first} is the gate of line {first_gate})") from None
    sizes = (has_constant, num_inputs, num_latches, num_gates)
    circuit.data["type"] = np.repeat(np.array([CONSTANT, INPUT, LATCH, AND]), sizes)
    circuit.data["inverted"] = np.zeros((len(variables), 2), bool)
    circuit.data["inverted"][first:] = gates[:, 1:] & 1
    circuit.data["output"] = np.zeros(len(variables), bool)
    circuit.data["output"][vertex[2 * num_gates :]] = True
    return circuit


def _read(source: str | os.PathLike[str] | bytes) -> tuple[str, bytes]:
    """What to call a source in messages, and its content."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "bytes", bytes(source).removeprefix(_BOM)
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return os.fspath(source), file.read().removeprefix(_BOM)
    raise InputTypeError(f"from_aiger reads a path or bytes, not {type(source).__name__}")


class _Lines:
    """The lines of numbers in a file, read one after the other; `position` is the byte after them."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.data = data
        self.position = 0
        self.line = 0
        self.largest = LARGEST

    def fail(self, line: int, message: str) -> NoReturn:
        raise GraphError(f"{self.name}, line {line}: {message}")

    def next(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        line = self.data[self.position : end if end >= 0 else len(self.data)]
        self.position = end + 1 if end >= 0 else len(self.data)
        self.line += 1
        return line

    def rows(self, item: str, count: int, width: int, max_width: int | None = None) -> Wide:
        """The next `count` lines of `width` numbers, as [count, width]; more numbers, up to `max_width`, are dropped."""
        rows = []
        for row in range(count):
            if self.position == len(self.data):
                self.fail(
                    self.line + 1, f"the file ends after {row} of {count} lines with one {item} each; it is truncated"
                )
            line = self.next()
            words = line.split()
            if not width <= len(words) <= (max_width or width) or not all(word.isdigit() for word in words):
                expected = f"{width} or {max_width} numbers" if max_width else f"{width} number{'s' * (width > 1)}"
                self.fail(self.line, f"{_shown(line)} is no {item}; it is written as {expected}")
            wrong = next((word for word in words if len(word) > 18 or int(word) > self.largest), None)
            if wrong is not None:
                self.fail(
                    self.line, f"the literal {_shown(wrong)} is out of range; the header allows 0 to {self.largest}"
                )
            rows.append([int(word) for word in words[:width]])
        return np.array(rows, np.int64).reshape(count, width)


def _header(file: _Lines) -> tuple[bool, list[int]]:
    """Whether the gates are binary, and the numbers M I L O A B C J F."""
    if not file.data.startswith((b"aig ", b"aag ")):
        begin = _shown(file.data.split(b"\n", 1)[0])
        raise GraphError(f"{file.name}: not an AIGER file; one begins with 'aig ' or 'aag ', this with {begin}")
    line = file.next()
    form, *words = line.split()
    if not 5 <= len(words) <= 9 or not all(word.isdigit() and len(word) <= 18 for word in words):
        file.fail(1, f"the header {_shown(line)} is not {form.decode()} M I L O A, and at most B C J F after it")
    header = [int(word) for word in words] + [0] * (9 - len(words))
    num_variables, num_defined = header[0], header[1] + header[2] + header[4]
    if num_variables > LARGEST:
        file.fail(1, f"the header says {num_variables} variables; a graph has at most {LARGEST} vertices")
    binary = form == b"aig"
    if num_defined > num_variables or (binary and num_defined < num_variables):
        bound = "exactly that" if binary else "at least that"
        file.fail(
            1, f"inputs, latches and gates are {num_defined} variables; M must be {bound}, and is {num_variables}"
        )
    file.largest = 2 * num_variables + 1
    return binary, header


def _skip_properties(file: _Lines, counts: list[int]) -> None:
    bad, constraints, justice, fairness = counts
    file.rows("bad state", bad, 1)
    file.rows("constraint", constraints, 1)
    sizes = file.rows("size of a justice property", justice, 1)
    file.rows("literal of a justice property", int(sizes.sum()), 1)
    file.rows("fairness constraint", fairness, 1)


def _binary_gates(file: _Lines, first: int, count: int) -> Wide:
    """The gates of a binary file, [count, 3]: the literal of the gate and of its operands.

    Gate i has the literal 2 * (first + i). The file holds how much the first operand is below that, and how much the
    second is below the first: 7 bits a byte, the lowest first, and the top bit says that more follow.
    """
    content = np.frombuffer(file.data, np.uint8, offset=file.position)
    ends = np.flatnonzero(content < 128)[: 2 * count]
    if len(ends) < 2 * count:
        progress = f"after {len(ends) // 2} of {count} gates"
        raise GraphError(f"{file.name}, byte {len(file.data)}: the file ends {progress}; it is truncated")
    starts = np.concatenate((np.zeros(min(count, 1), np.int64), ends[:-1] + 1))
    sizes = ends - starts + 1
    gate = 2 * (first + np.arange(count))
    if sizes.max(initial=0) <= _LONGEST:
        used = content[: ends[-1] + 1 if count else 0]
        shift = 7 * (np.arange(len(used)) - np.repeat(starts, sizes))
        delta = np.zeros(2 * count, np.int64)
        np.add.at(delta, np.repeat(np.arange(2 * count), sizes), (used & 127).astype(np.int64) << shift)
        upper = gate - delta[::2]
        lower = upper - delta[1::2]
        wrong = np.stack(((upper < 0) | (upper == gate), lower < 0), axis=1).ravel()
    else:
        wrong = sizes > _LONGEST
    if wrong.any():
        operand = int(wrong.argmax())
        byte = file.position + starts[operand]
        raise GraphError(
            f"{file.name}, byte {byte}: operand {operand % 2} of the gate {gate[operand // 2]} is out of range; operands come "
            "before their gate, so the file is damaged or the header is wrong"
        )
    return np.stack((gate, upper, lower), axis=1)


def _check_definitions(file: _Lines, literals: Wide, line: Wide) -> None:
    """Every definition of an ASCII file is a positive literal, and of another variable."""
    wrong = np.flatnonzero((literals < 2) | (literals & 1 == 1))
    if len(wrong):
        index = wrong[0]
        file.fail(line[index], f"the literal {literals[index]} cannot be defined; give an even literal, 2 or more")
    order = np.argsort(literals, kind="stable")
    again = order[1:][np.diff(literals[order]) == 0]
    if len(again):
        index = again.min()
        earlier = line[np.flatnonzero(literals == literals[index])[0]]
        file.fail(
            line[index], f"the literal {literals[index]} is defined twice, first in line {earlier}; remove one of them"
        )


def _check_operands(file: _Lines, literals: Wide, line: Wide, variables: Wide) -> None:
    """Every operand and output of an ASCII file is defined."""
    missing = np.flatnonzero(~np.isin(literals >> 1, variables))
    if len(missing):
        index = missing[0]
        variable = literals[index] >> 1
        file.fail(
            line[index],
            f"the literal {literals[index]} is read, but no input, latch or gate defines the variable {variable}",
        )


def _shown(line: bytes) -> str:
    """A piece of the file, cut to what fits a message."""
    return repr(line if len(line) <= 40 else line[:40] + b"...")[1:]
