"""What PTX says of a kernel: its loop over stages, and what is loaded from behind an argument."""

from __future__ import annotations

import re

REGISTER = re.compile(r"%\w+")


def stages_of(ptx):
    """The lines of the loop over stages, the first and the last: the largest loop that has the barrier in it."""
    lines = ptx.splitlines()
    (barrier,) = [number for number, line in enumerate(lines) if "atom.global.gpu.release" in line]
    labels = {line.partition(":")[0]: number for number, line in enumerate(lines) if line.startswith("$L")}
    branches = [(number, re.findall(r"\$L\w+", line)) for number, line in enumerate(lines) if " bra" in line]
    loops = [(labels[label], number) for number, targets in branches for label in targets if labels[label] < number]
    return max((last - first, first, last) for first, last in loops if first < barrier < last)[1:]


def loads_of(ptx, argument):
    """The lines that load from addresses that are computed from an argument, which is given by its number."""
    lines = ptx.splitlines()
    found, before = {line_register(line) for line in lines if f"_param_{argument}]" in line}, set()
    while found != before:
        before = set(found)
        for line in lines:
            words = REGISTER.findall(line.partition("//")[0])
            is_computed = words and not re.search(r"\b(ld|st|atom|red|bra|setp|bar|ret)\b", line)
            if is_computed and found.intersection(words[1:]):
                found.add(words[0])
    loads = [number for number, line in enumerate(lines) if re.search(r"\b(ld\.global|cp\.async\S*global)", line)]
    return [number for number in loads if found.intersection(address_of(lines[number]))]


def stored_to_shared(ptx, first, last):
    """The bytes that a thread stores to shared memory in these lines, each of which is run once."""
    total = 0
    for line in ptx.splitlines()[first:last]:
        if match := re.search(r"\bst\.shared(?:\.v(\d))?\.[a-z](\d+)", line):
            total += int(match[1] or 1) * int(match[2]) // 8
    return total


def line_register(line):
    return REGISTER.findall(line)[0]


def address_of(line):
    return REGISTER.findall(line[line.rindex("[") :])
