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

from .functions import Function, class_of, draw_function, source_of
from .samples import Expected, Sample, UnsuitableError, draw_sample, expect
from .ways import WAYS, Call

BACKENDS = ("torch", "native", "eager", "triton")
KEPT = Path(__file__).parent.parent / "fuzz_cases"


@dataclass
class Case:
    """All that a failure needs to happen again; `rng` is the seed of what the way draws."""

    function: Function
    sample: Sample
    backend: str
    policy: str
    way: str
    rng: int

    @staticmethod
    def read(path: Path) -> Case:
        kept = json.loads(path.read_text())
        own = {name: kept[name] for name in ("backend", "policy", "way", "rng")}
        return Case(Function.read(kept["function"]), Sample.read(kept["sample"]), **own)

    def write(self, path: Path, **notes: str) -> None:
        path.write_text(json.dumps({**notes, **asdict(self)}, indent=1) + "\n")


class Models:
    """The models of one function, a backend each, and what the reference says of its samples."""

    def __init__(self, function: Function) -> None:
        self.function, self.source = function, source_of(function)
        self.made = class_of(self.source)
        self.reference = self.made()
        self.by_backend: dict[str, vf.VertexFunction] = {}

    def expect(self, sample: Sample, shake: float = 0.0) -> Expected:
        self._prepare(self.reference, sample)
        return expect(self.reference, self.function, sample, shake)

    def run(self, case: Case, expected: Expected) -> None:
        """Raises what is wrong: an AssertionError, or whatever the call raises."""
        if case.backend not in self.by_backend:
            self.by_backend[case.backend] = self.made()
            self.by_backend[case.backend].backend = case.backend
        model = self.by_backend[case.backend]
        model.policy = case.policy
        self._prepare(model, case.sample)
        batch = vf.pack(case.sample.graphs())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            WAYS[case.way][0](Call(model, self.function, case.sample, expected, batch, random.Random(case.rng)))

    @staticmethod
    def _prepare(model: vf.VertexFunction, sample: Sample) -> None:
        model.train(sample.training)
        model.gain, model.flag = sample.gain, sample.flag
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in sample.fixed)

    def is_a_matter_of_rounding(self, case: Case, expected: Expected) -> bool:
        """Whether the reference itself changes by more than the tolerance when numbers change in their last places."""
        for shake in (1e-15, 1e-14):
            try:
                other = self.expect(case.sample, shake)
                Call(
                    self.reference,
                    self.function,
                    case.sample,
                    expected,
                    vf.pack(case.sample.graphs()),
                    random.Random(0),
                ).check_values(other.outputs)
                for name, value in expected.gradients.items():
                    there = other.gradients[name]
                    if value is not None and there is not None:
                        assert (value.nan_to_num() - there.nan_to_num()).abs().max() < 1e-10 if value.numel() else True
            except (AssertionError, UnsuitableError):
                return True
        return False


def draw_cases(rng: random.Random, triton: bool) -> Iterator[tuple[Models, Case, Expected]]:
    """The cases of one function; `UnsuitableError` where it, or a sample, cannot be judged is raised before any is given."""
    function = draw_function(rng)
    models = Models(function)
    names = [name for name, _ in models.reference.named_parameters()]
    inputs = [name for method in function.methods.values() for name in (*method.inputs, *method.edge_inputs)]
    everything = [*names, *dict.fromkeys(inputs), *(f"initial.{name}" for name in function.states)]
    some = [name for name in everything if rng.random() < 0.4]
    backends = [*BACKENDS[:3], *(["triton"] if triton else [])]
    attributes = rng.random() < 0.5, rng.choice([1.0, 0.5, -2.0]), rng.random() < 0.5  # others trace anew
    ways, weights = [*WAYS], [weight for _, weight in WAYS.values()]
    for number in range(5):
        sample = draw_sample(rng, function, some if number % 2 else [], small=triton and number == 0)
        sample.training, sample.gain, sample.flag = attributes
        plan = [
            (backend, rng.choice([*POLICIES, "fsm"]), way, rng.randrange(10_000))
            for backend in (backends if number == 0 else backends[:3])
            for way in (["train"] if backend == "triton" else ["train", *rng.choices(ways, weights, k=4)])
        ]
        with contextlib.suppress(UnsuitableError):
            expected = models.expect(sample)
            for backend, policy, way, seed in plan:
                yield models, Case(function, sample, backend, policy, way, seed), expected


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
        lines.append(f"    vf.graph({part.num_vertices}, {pairs}, slots={slots}{kind}),")
        at += part.num_vertices
    return "\n".join([*lines, "]"])


def is_refusal(error: BaseException) -> bool:
    """Whether it tells the user what to do; that something is a defect of vertexflow does not."""
    return isinstance(error, vf.VertexFlowError) and "a defect of vertexflow" not in str(error)


def refusal(error: BaseException) -> Any:
    """What a refusal is counted under."""
    text = str(error).splitlines()[0]
    return f"{type(error).__name__}: {text[:110]}"
