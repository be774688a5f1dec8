"""A case: one function, one sample, one backend, one policy, one way of calling, against the reference."""

from __future__ import annotations

import contextlib
import json
import random
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import vertexflow as vf
from vertexflow.scheduler import POLICIES

from .call import Call
from .expected import Expected, UnsuitableError, expect, with_rounding
from .functions import Function, draw_function
from .memory import memory
from .samples import Sample, draw_sample
from .ways import WAYS
from .writer import class_of, in_float64, source_of

BACKENDS = ("torch", "native", "eager", "triton")
KEPT = Path(__file__).parent.parent / "fuzz_cases"


@dataclass
class Case:
    """All that a failure needs to happen again; `rng` is the seed of what the way draws.

    With a `window`, passes go over so many rows at a time. What is `poisoned` finds NaN in memory before it is written.
    """

    function: Function
    sample: Sample
    backend: str
    policy: str
    way: str
    rng: int
    window: int = 0
    poisoned: bool = False

    @staticmethod
    def read(path: Path) -> Case:
        kept = json.loads(path.read_text())
        own = {name: kept[name] for name in ("backend", "policy", "way", "rng", "window", "poisoned") if name in kept}
        return Case(Function.read(kept["function"]), Sample.read(kept["sample"]), **own)

    def write(self, path: Path, **notes: str) -> None:
        path.write_text(json.dumps({**notes, **asdict(self)}, indent=1) + "\n")


class Models:
    """The models of one function, and what the reference says of its samples."""

    def __init__(self, function: Function) -> None:
        self.function, self.source = function, source_of(function)
        self.exact = class_of(in_float64(self.source))()
        self.model_class = class_of(self.source)
        self.reference = self.model_class()
        self.exact.load_state_dict(self.reference.state_dict())  # as rounded as the other's
        self.models: dict[bool, vf.VertexFunction] = {}  # of the backend "eager", and of those that trace

    def expect(self, sample: Sample) -> Expected:
        self._prepare(self.reference, sample)
        self._prepare(self.exact, sample)
        return expect(self.reference, self.exact, self.function, sample)

    def run(self, case: Case, expected: Expected) -> None:
        """Raises what is wrong: an AssertionError, or whatever the call raises."""
        traces = case.backend != "eager"
        model = self.models[traces] = self.models.get(traces) or self.model_class()
        model.backend, model.policy = case.backend, case.policy
        self._prepare(model, case.sample)
        batch = vf.pack(case.sample.graphs())
        with warnings.catch_warnings(), memory(case.window, case.poisoned):
            warnings.simplefilter("ignore")
            WAYS[case.way][0](Call(model, self.function, case.sample, expected, batch, random.Random(case.rng)))

    @staticmethod
    def _prepare(model: vf.VertexFunction, sample: Sample) -> None:
        model.train(sample.training)
        model.gain, model.flag = sample.gain, sample.flag
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in sample.fixed)

    def is_a_matter_of_rounding(self, case: Case, expected: Expected) -> bool:
        """Whether the case is clean if it may be as wrong as the reference is when its numbers change in their last places."""
        self._prepare(self.reference, case.sample)
        wider = with_rounding(expected, self.reference, self.function, case.sample)
        try:
            self.run(case, wider)
        except AssertionError:
            return False
        return True


def draw_cases(rng: random.Random, triton: bool) -> Iterator[tuple[Models, Case, Expected]]:
    """The cases of one function; `UnsuitableError` where it, or a sample, cannot be judged is raised before any is given."""
    function = draw_function(rng)
    models = Models(function)
    names = [name for name, _ in models.reference.named_parameters()]
    inputs = [name for method in function.methods.values() for name in (*method.inputs, *method.edge_inputs)]
    everything = [*names, *dict.fromkeys(inputs), *(f"initial.{name}" for name in function.states)]
    everything += [f"shared.{name}" for name in function.shared]
    share = rng.choice([0.1, 0.4, 0.4, 0.9])
    some = [name for name in everything if rng.random() < share]
    some = rng.choice([some, some, some, names, everything[len(names) :]])
    backends = [*BACKENDS[:3], *(["triton"] if triton else [])]
    attributes = rng.random() < 0.5, rng.choice([1.0, 0.5, -2.0]), rng.random() < 0.5  # others trace anew
    ways, weights = [*WAYS], [weight for _, weight in WAYS.values()]
    for number in range(5):
        sample = draw_sample(rng, function, some if number % 2 else [], small=triton)
        sample.training, sample.gain, sample.flag = attributes
        plan = [
            (backend, rng.choice([*POLICIES, "fsm"]), way, rng.randrange(10_000), *_draw_memory(rng, backend))
            for backend in backends
            for way in ["train", *rng.choices(ways, weights, k=1 if backend == "triton" else 4)]
        ]
        with contextlib.suppress(UnsuitableError):
            expected = models.expect(sample)
            for planned in plan:
                yield models, Case(function, sample, *planned), expected


def _draw_memory(rng: random.Random, backend: str) -> tuple[int, bool]:
    """A window, which native code alone has, and whether memory is poisoned."""
    return rng.choice([0, 0, 1, 2, 3, 7]) if backend == "native" else 0, rng.random() < 0.5


def replay(path: Path) -> None:
    """Run a kept case; raises if it fails."""
    case = Case.read(path)
    models = Models(case.function)
    models.run(case, models.expect(case.sample))


def describe(case: Case, error: BaseException) -> str:
    """A failure as code that reproduces it, and as what was expected."""
    sample = case.sample
    lines = ["# " + line for line in f"{type(error).__name__}: {error}".splitlines()[:12]]
    lines += [
        f"# backend {case.backend}, policy {case.policy}, way {case.way!r}, reverse={sample.reverse}, "
        f"initial={sample.initial}, without gradient: {sample.fixed}, layouts: {sample.layouts}",
        f"# special values: {sample.special}, aliases: {sample.aliases}, {case.function.dtype}, "
        f"autocast={case.function.autocast}, window {case.window}, poisoned={case.poisoned}",
        "import torch",
        "import torch.nn.functional as F",
        "from torch import nn",
        "import vertexflow as vf",
        "",
        source_of(case.function),
        "graphs = [",
    ]
    at = 0
    for part in sample.parts:
        kind = f", kind={sample.kinds[at : at + part.num_vertices]}" if sample.kinds else ""
        pairs, slots = [edge[:2] for edge in part.edges], [edge[2] for edge in part.edges]
        if case.function.arity:
            lines.append(f"    vf.hypergraph({part.num_vertices}, {pairs}, arity={case.function.arity}{kind}),")
            at += part.num_vertices
            continue
        lines.append(f"    vf.graph({part.num_vertices}, {pairs}, slots={slots}{kind}),")
        at += part.num_vertices
    return "\n".join([*lines, "]"])


def is_refusal(error: BaseException) -> bool:
    """Whether it tells the user what to do; that something is a defect of vertexflow does not."""
    said = str(error)
    is_defect = "a defect of vertexflow" in said or "could not compile generated code" in said
    return isinstance(error, vf.VertexFlowError) and not is_defect


def refusal(error: BaseException) -> Any:
    """What a refusal is counted under."""
    text = str(error).splitlines()[0]
    return f"{type(error).__name__}: {text[:110]}"
