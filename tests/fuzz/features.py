"""What a case has in it, for the table at the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vertexflow.scheduler import POLICIES

from ..agreement import join
from .cases import BACKENDS, Case
from .functions import STATES
from .operations import ATTRIBUTES, OF_EDGES, OF_ROWS, TO_EDGES, TO_ROWS
from .samples import LAYOUTS, SPECIAL
from .ways import WAYS

FEATURES = {  # what there is to be had, by what it is of
    "backend": list(BACKENDS),
    "policy": [*POLICIES, "fsm"],
    "dtype": ["float64", "float32", "bfloat16", "float16", "autocast", "states of other dtypes"],
    "states": ["float16 state", "bfloat16 state", "integer state", "boolean state", "short integer state"],
    "structure": [
        "kinds", "a kind without vertices", "slots", "any number of children", "edge inputs", "edge inputs, edges shuffled",
        "edge outputs", "edge outputs of kinds",
        "children from a slot on", "edge outputs, children from a slot on", "children from different slots on",
        "arcs", "arcs of three children", "edge outputs, arcs", "arcs of kinds",
        "reverse", "initial", "one graph", "one vertex", "8 parents or more", "8 children or more", "no edges",
        "reduced, without children",
    ],
    "reductions": [*OF_ROWS, *TO_ROWS, *OF_EDGES, *TO_EDGES],
    "inputs": [*(f"layout: {name}" for name in LAYOUTS), *(f"special: {name}" for name in SPECIAL), "aliases",
        "shared", "shared by some kinds"],
    "gradients": ["of all leaves", "not of a parameter", "not of an input", "of no input"],
    "way": [f"way: {name}" for name in WAYS],
}  # fmt: skip


def features_of(case: Case) -> set[str]:
    return {name for part in (_of_function, _of_structure, _of_inputs, _of_gradients) for name in part(case)}


def _of_function(case: Case) -> Iterator[str]:
    function = case.function
    yield from (case.backend, case.policy, f"way: {case.way}")
    yield "autocast" if function.autocast else function.dtype
    for state in function.states:
        dtype = str(function.dtype_of(state))[6:]
        if dtype in ("float16", "bfloat16"):
            yield f"{dtype} state"
        if STATES[state][1] is None and dtype != function.dtype:
            yield "states of other dtypes"
        if state in "nb":
            yield {"n": "integer state", "b": "boolean state"}[state]
        if state == "n" and dtype != "int64":
            yield "short integer state"
    if function.shared:
        yield "shared"
        if len({*map(tuple, (method.shared for method in function.methods.values()))}) > 1:
            yield "shared by some kinds"
    for method in function.methods.values():
        if method.slots:
            yield "slots"
        if function.arity:
            yield "arcs"
            if function.arity == 3:
                yield "arcs of three children"
            if function.has_kinds:
                yield "arcs of kinds"
            if any(name.startswith("edge_") for name, _ in method.push):
                yield "edge outputs, arcs"
        if method.ragged:
            yield "any number of children"
            if method.first_slot:
                yield "children from a slot on"
                if any(name.startswith("edge_") for name, _ in method.push):
                    yield "edge outputs, children from a slot on"
                if len({method.first_slot for method in function.methods.values() if method.ragged}) > 1:
                    yield "children from different slots on"
            if any(name.startswith("edge_") for name, _ in method.push):
                yield "edge outputs of kinds" if function.has_kinds else "edge outputs"
            yield from (step[0] for step in method.program)


def _of_structure(case: Case) -> Iterator[str]:
    sample, function = case.sample, case.function
    edges = join(sample.parts)[1]
    ends = [(parent, child) if sample.reverse else (child, parent) for child, parent, _ in edges]
    children, parents = Counter(end[1] for end in ends), Counter(end[0] for end in ends)
    if function.has_kinds:
        yield "kinds"
        if {*function.methods} - {*(sample.kinds or [])}:
            yield "a kind without vertices"
    if any(method.edge_inputs for method in function.methods.values()):
        yield "edge inputs"
        if ends != sorted(ends, key=lambda end: end[1]):
            yield "edge inputs, edges shuffled"
    for name in ("reverse", "initial"):
        if getattr(sample, name):
            yield name
    if len(sample.parts) == 1:
        yield "one graph"
    if sample.count == 1:
        yield "one vertex"
    if max(parents.values(), default=0) >= 8:
        yield "8 parents or more"
    if max(children.values(), default=0) >= 8:
        yield "8 children or more"
    if not edges:
        yield "no edges"
    if any(method.ragged for method in function.methods.values()) and len(children) < sample.count:
        yield "reduced, without children"


def _of_inputs(case: Case) -> Iterator[str]:
    sample = case.sample
    pulled = {name for method in case.function.methods.values() for name in (*method.inputs, *method.edge_inputs)}
    yield from (f"layout: {sample.layouts.get(name, 'plain')}" for name in pulled)
    yield from (f"special: {value}" for value in sample.special.values())
    if any(name in pulled and source in pulled for name, source in sample.aliases.items()):
        yield "aliases"


def _of_gradients(case: Case) -> Iterator[str]:
    fixed = {*case.sample.fixed}
    pulled = {name for method in case.function.methods.values() for name in (*method.inputs, *method.edge_inputs)}
    floats = pulled - {"k", "label", "flags"}
    if not fixed:
        yield "of all leaves"
    if any(name.split(".")[0] in ATTRIBUTES for name in fixed):
        yield "not of a parameter"
    if floats & fixed:
        yield "not of an input"
    if floats and floats <= fixed:
        yield "of no input"
