"""Circuits from AIGER files, both forms; and what is said where they are malformed."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data import needs_data
from vertexflow.errors import GraphError, InputTypeError
from vertexflow.graph.inputs.build import InputGraph
from vertexflow.graph.inputs.pack import pack
from vertexflow.graph.inputs.readers.aiger import from_aiger
from vertexflow.scheduler import schedule

# The half adder of the AIGER report: sum and carry.
ASCII = b"aag 7 2 0 2 3\n2\n4\n6\n12\n6 13 15\n12 4 2\n14 5 3\ni0 x\ni1 y\no0 s\no1 c\nc\nhalf adder\n"
# The same with the gates numbered so that operands come first: 6 = 4 & 2, 8 = !4 & !2, 10 = !8 & !6.
ORDERED = b"aag 5 2 0 2 3\n2\n4\n10\n6\n6 4 2\n8 5 3\n10 9 7\n"
BINARY = b"aig 5 2 0 2 3\n10\n6\n" + bytes([2, 2, 3, 2, 1, 2]) + b"i0 x\ni1 y\nc\nhalf adder\n"


def arrays(circuit: InputGraph) -> dict[str, list[object]]:
    return {
        "structure": circuit.structure.tolist(),
        "type": circuit.data["type"].tolist(),
        "inverted": circuit.data["inverted"].tolist(),
        "output": circuit.data["output"].tolist(),
    }


def values(circuit: InputGraph, inputs: list[bool]) -> list[bool]:
    """What each vertex computes, one after the other."""
    given_ = iter(inputs)
    value_of: dict[int, bool] = {}

    def value(vertex: int) -> bool:
        if vertex not in value_of:
            if circuit.data["type"][vertex] == 3:
                below = circuit.child[circuit.offset[vertex] : circuit.offset[vertex + 1]]
                pairs = zip(below, circuit.data["inverted"][vertex], strict=True)
                value_of[vertex] = all(value(child) != inverted for child, inverted in pairs)
            else:
                value_of[vertex] = circuit.data["type"][vertex] != 0 and next(given_)
        return value_of[vertex]

    for vertex in np.argsort(circuit.data["type"], kind="stable"):
        value(int(vertex))
    return [value_of[vertex] for vertex in range(circuit.num_vertices)]


def number(value: int) -> bytes:
    """As a binary file holds it."""
    low = bytes([value & 127])
    return low if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)


def test_gates_follow_inputs_in_the_order_of_the_file() -> None:
    circuit = from_aiger(ASCII)
    assert circuit.child.tolist() == [3, 4, 1, 0, 1, 0]
    assert circuit.offset.tolist() == [0, 0, 0, 2, 4, 6]
    assert circuit.slot.tolist() == [0, 1] * 3
    assert circuit.data["type"].tolist() == [1, 1, 3, 3, 3]
    assert circuit.data["type"].dtype == np.int64
    assert circuit.data["inverted"].tolist() == [[False, False]] * 2 + [[True, True], [False, False], [True, True]]
    assert circuit.data["output"].tolist() == [False, False, True, True, False]
    assert circuit.data["inverted"].dtype == circuit.data["output"].dtype == bool


def test_both_forms_agree() -> None:
    assert arrays(from_aiger(BINARY)) == arrays(from_aiger(ORDERED))


@pytest.mark.parametrize(("x", "y"), [(False, False), (False, True), (True, False), (True, True)])
def test_the_half_adder_adds(x: bool, y: bool) -> None:
    assert values(from_aiger(ASCII), [x, y])[2:4] == [x != y, x and y]
    assert values(from_aiger(BINARY), [x, y])[:1:-2] == [x != y, x and y]


@given(st.integers(1, 20), st.integers(0, 3), st.integers(0, 300), st.randoms(use_true_random=False))
def test_random_circuits_in_both_forms(inputs: int, latches: int, gates: int, random: object) -> None:
    most = inputs + latches + gates
    rows = []
    for gate in range(2 * (inputs + latches + 1), 2 * most + 1, 2):
        upper = random.randrange(gate)
        rows.append((gate, upper, random.randrange(upper + 1)))
    outputs = "".join(f"{random.randrange(2 * most + 2)}\n" for _ in range(3))
    names = [f"{2 * at}" for at in range(1, inputs + latches + 1)]
    header = f"{most} {inputs} {latches} 3 {gates}\n"
    ascii_ = ["aag " + header, *(f"{name}\n" for name in names[:inputs])]
    ascii_ += [*(f"{name} 3 {name}\n" for name in names[inputs:]), outputs]
    ascii_ += [f"{gate} {upper} {lower}\n" for gate, upper, lower in rows]
    binary = ("aig " + header + "".join(f"3 {name}\n" for name in names[inputs:]) + outputs).encode()
    binary += b"".join(number(gate - upper) + number(upper - lower) for gate, upper, lower in rows)
    circuit = from_aiger(binary)
    assert arrays(circuit) == arrays(from_aiger("".join(ascii_).encode()))
    first = circuit.num_vertices - gates
    literals = 2 * (circuit.child + 1 - (circuit.num_vertices - most)) + circuit.data["inverted"][first:].ravel()
    assert literals.reshape(-1, 2).tolist() == [[upper, lower] for _, upper, lower in rows]


def test_constants_are_a_vertex_only_where_something_reads_them() -> None:
    circuit = from_aiger(b"aag 2 1 0 1 1\n2\n4\n4 2 1\n")
    assert circuit.data["type"].tolist() == [0, 1, 3]
    assert circuit.child.tolist() == [1, 0]
    assert circuit.data["inverted"].tolist() == [[False, False], [False, False], [False, True]]
    circuit = from_aiger(b"aig 1 1 0 2 0\n2\n1\n")
    assert circuit.data["type"].tolist() == [0, 1]
    assert circuit.data["output"].tolist() == [True, True]
    assert from_aiger(b"aag 0 0 0 1 0\n0\n").data["type"].tolist() == [0]


def test_an_operand_in_both_slots() -> None:
    circuit = from_aiger(b"aig 2 1 0 1 1\n4\n" + bytes([1, 1]))  # 4 = !2 & 2
    assert circuit.child.tolist() == [0, 0]
    assert circuit.data["inverted"][1].tolist() == [True, False]


def test_latches_are_inputs() -> None:
    # A toggle flip-flop of the AIGER report, with enable and reset.
    toggle = b"aag 7 2 1 2 4\n2\n4\n6 8 1\n6\n7\n8 4 10\n10 13 15\n12 2 6\n14 3 7\n"
    circuit = from_aiger(toggle)
    assert circuit.data["type"].tolist() == [1, 1, 2, 3, 3, 3, 3]
    assert circuit.data["output"].tolist() == [False, False, True, False, False, False, False]
    binary = from_aiger(b"aig 3 1 1 1 1\n0 4\n6\n" + bytes([2, 2]))
    assert binary.data["type"].tolist() == [1, 2, 3]
    assert binary.child.tolist() == [1, 0]


def test_properties_are_ignored() -> None:
    said = b"4\n5\n2\n1\n3\n2\n4\n5\n"  # a bad state, a constraint, justice of 2 and 1 literals, a fairness constraint
    circuit = from_aiger(b"aag 2 1 0 1 1 1 1 2 1\n2\n4\n" + said + b"4 3 2\n")
    assert arrays(circuit) == arrays(from_aiger(b"aag 2 1 0 1 1\n2\n4\n4 3 2\n"))
    assert arrays(circuit) == arrays(from_aiger(b"aig 2 1 0 1 1 1 1 2 1\n4\n" + said + bytes([1, 1])))


@pytest.mark.parametrize("as_path", [str, Path])
def test_files(tmp_path: Path, as_path: type) -> None:
    path = tmp_path / "half.aig"
    path.write_bytes(BINARY)
    assert arrays(from_aiger(as_path(path))) == arrays(from_aiger(BINARY))


def test_white_space_at_the_ends_of_lines() -> None:
    assert arrays(from_aiger(ORDERED.replace(b"\n", b"\r\n"))) == arrays(from_aiger(ORDERED))
    assert arrays(from_aiger(ORDERED.rstrip())) == arrays(from_aiger(ORDERED))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": not an AIGER file; one begins with 'aig ' or 'aag ', this with ''"),
        (b"\x1f\x8b\x08 zipped", r": not an AIGER file; .* this with '\\x1f\\x8b\\x08 zipped'"),
        (b"aag 1 1 0\n2\n", ", line 1: the header 'aag 1 1 0' is not aag M I L O A, and at most B C J F after it"),
        (b"aag 1 1 0 0 -1\n2\n", ", line 1: the header 'aag 1 1 0 0 -1' is not"),
        (b"aig 1 1 0 0 0 0 0 0 0 0\n", ", line 1: the header .* is not aig M I L O A"),
        (b"aag 1 1 0 0 1\n2\n4 2 2\n", ", line 1: inputs, .* are 2 variables; M must be at least that, and is 1"),
        (b"aig 3 1 0 0 1\n\x02\x00", ", line 1: .* are 2 variables; M must be exactly that, and is 3"),
        (b"aag 4294967296 1 0 0 0\n2\n", ", line 1: the header says 4294967296 variables; a graph has at most"),
        (b"aag 2 2 0 0 0\n2\n", ", line 3: the file ends after 1 of 2 lines with one input each; it is truncated"),
        (b"aag 2 1 0 0 1\n2\n", ", line 3: the file ends after 0 of 1 lines with one gate each; it is truncated"),
        (b"aag 2 1 0 0 1\n2\n4 2\n", ", line 3: '4 2' is no gate; it is written as 3 numbers"),
        (b"aag 1 0 1 0 0\n2\n", ", line 2: '2' is no latch; it is written as 2 or 3 numbers"),
        (b"aag 1 1 0 1 0\n2\nx\n", ", line 3: 'x' is no output; it is written as 1 number$"),
        (b"aag 1 1 0 1 0\n2\n1_0\n", ", line 3: '1_0' is no output"),
        (b"aag 2 1 0 0 1\n2\n4 2 6\n", ", line 3: the literal '6' is out of range; the header allows 0 to 5"),
        (b"aag 1 1 0 1 0\n2\n" + b"9" * 5000, r", line 3: the literal '9+\.\.\.' is out of range"),
        (b"aag 2 2 0 0 0\n2\n3\n", ", line 3: the literal 3 cannot be defined; give an even literal, 2 or more"),
        (b"aag 2 1 0 0 1\n2\n0 2 2\n", ", line 3: the literal 0 cannot be defined"),
        (b"aag 3 1 0 0 2\n2\n4 2 2\n4 2 3\n", ", line 4: the literal 4 is defined twice, first in line 3; remove one"),
        (b"aag 3 1 0 0 1\n2\n2 2 2\n", ", line 3: the literal 2 is defined twice, first in line 2"),
        (b"aag 3 1 0 0 1\n2\n6 2 5\n", ", line 3: the literal 5 is read, but no .* defines the variable 2"),
        (b"aag 3 1 0 2 0\n2\n3\n7\n", ", line 4: the literal 7 is read, but no .* defines the variable 3"),
        (b"aag 1 0 0 1 0\n2\n", ", line 2: the literal 2 is read, but no .* defines the variable 1"),
        (b"aag 3 1 0 0 2\n2\n4 6 2\n6 4 2\n", r": the graph has a cycle .* \(vertex 1 is the gate of line 3\)"),
        (b"aag 1 0 0 0 0\n", ": the circuit is empty; every graph needs at least one vertex"),
        (b"aig 2 1 0 1 1\n", ", line 2: the file ends after 0 of 1 lines with one output each"),
        (BINARY[:22], ", byte 22: the file ends after 1 of 3 gates; it is truncated"),
        (BINARY[:20] + b"\x80\x80", ", byte 22: the file ends after 0 of 3 gates"),
        (b"aig 2 1 0 0 1\n\x00\x00", ", byte 14: operand 0 of the gate 4 is out of range; operands come before"),
        (b"aig 2 1 0 0 1\n\x05\x00", ", byte 14: operand 0 of the gate 4 is out of range"),
        (b"aig 2 1 0 0 1\n\x02\x03", ", byte 15: operand 1 of the gate 4 is out of range"),
        (b"aig 2 1 0 0 1\n\x02" + b"\x80" * 9 + b"\x01", ", byte 15: operand 1 of the gate 4 is out of range"),
    ],
)
def test_the_file_and_the_place_of_what_is_malformed(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(GraphError, match=f"^bytes{message}"):
        from_aiger(content)
    path = tmp_path / "bad.aig"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=rf"bad\.aig{message}"):
        from_aiger(path)


@given(st.binary(max_size=80), st.integers(0, len(BINARY)))
def test_damaged_files_are_read_or_refused(damage: bytes, at: int) -> None:
    for content in (ASCII, BINARY):
        for damaged in (content[:at] + damage + content[at:], content[:at] + damage):
            try:
                from_aiger(damaged)
            except GraphError as error:
                assert str(error).startswith("bytes")  # noqa: PT017


@pytest.mark.parametrize("source", [7, None, [b"aag 0 0 0 0 0"]])
def test_what_is_neither_a_path_nor_bytes(source: object) -> None:
    with pytest.raises(InputTypeError, match="from_aiger reads a path or bytes, not"):
        from_aiger(source)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.aig"):
        from_aiger(tmp_path / "nowhere.aig")


@needs_data
@pytest.mark.parametrize(
    ("name", "levels"),
    [("adder", 255), ("arbiter", 87), ("max", 287), ("multiplier", 274), ("sqrt", 5058), ("square", 250)],
)
def test_the_epfl_circuits(name: str, levels: int, data: Path) -> None:
    path = data / "epfl_circuits" / f"{name}.aig"
    _, _, inputs, latches, outputs, gates = path.read_bytes().split(b"\n")[0].split()
    start = time.perf_counter()
    circuit = from_aiger(path)
    assert time.perf_counter() - start < 5
    assert np.bincount(circuit.data["type"], minlength=4)[1:].tolist() == [int(inputs), int(latches), int(gates)]
    assert 0 < circuit.data["output"].sum() <= int(outputs)
    level = [0] * circuit.num_vertices
    for vertex in range(circuit.num_vertices):  # operands come before their gate
        below = circuit.child[circuit.offset[vertex] : circuit.offset[vertex + 1]]
        level[vertex] = max((level[child] + 1 for child in below), default=0)
    assert max(level) == levels  # the depth that is published with the circuits
    assert schedule(pack([circuit])).num_steps == levels + 1


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_left_out(tmp_path):
    text = b"\xef\xbb\xbf" + b"aag 3 2 0 1 1\n2\n4\n6\n6 4 3\n".replace(b"\n", b"\r\n")
    path = tmp_path / "half adder.aag"
    path.write_bytes(text)
    for source in (text, path):
        assert from_aiger(source).child.tolist() == [1, 0]
