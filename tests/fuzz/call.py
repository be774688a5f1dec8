"""One call of a model, and what must come of it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch

import vertexflow as vf

from .expected import Expected, gradients_of
from .functions import Function
from .inputs import Leaves, bases_of, laid_out, of_pulling_kinds, shared_of
from .samples import Sample


@dataclass
class Call:
    """One case: a model, what it is called with, and what must come of it."""

    model: vf.VertexFunction
    function: Function
    sample: Sample
    expected: Expected
    batch: vf.GraphBatch
    rng: random.Random

    def __post_init__(self) -> None:
        self.bases = bases_of(self.function, self.sample)

    def arguments(self, bases: Leaves | None = None) -> dict[str, Any]:
        bases = self.bases if bases is None else bases
        inputs, edge_inputs, initial = laid_out(self.function, self.sample, bases)
        given = of_pulling_kinds(self.function, self.sample, inputs, edge_inputs)
        shared = {"shared": shared_of(bases)} if self.function.shared else {}
        return {**given, "reverse": self.sample.reverse, **({"initial": initial} if initial else {}), **shared}

    def run(self, model: Any = None, graphs: Any = None, given: dict[str, Any] | None = None) -> Leaves:
        given = self.arguments() if given is None else given
        with self.function.context():
            return dict((model or self.model)(self.batch if graphs is None else graphs, **given))

    def leaves(self, model: Any = None) -> Leaves:
        return {**dict((model or self.model).named_parameters()), **self.bases}

    def check(self, outputs: Leaves, leaves: Leaves | None = None, **options: bool) -> None:
        """Outputs and gradients are those of the reference."""
        self.check_values(outputs)
        leaves = self.leaves() if leaves is None else leaves
        if not any(leaf.requires_grad for leaf in leaves.values()):
            assert not any(value.requires_grad for value in outputs.values()), "without leaves that require grad"
        self.check_gradients(gradients_of(outputs, self.expected.weights, leaves, **options))

    def check_values(self, outputs: Leaves) -> None:
        for name in outputs.keys() - self.expected.outputs.keys():  # of a kind that the batch has not
            assert self.sample.kinds is not None, f"{name} was not pushed"
            assert len(outputs[name]) == 0, f"{name} was not pushed"
        for name, value in self.expected.outputs.items():
            assert name in outputs, f"{name} is missing"
            self.expected.compare(name, outputs[name], value)

    def check_gradients(self, gradients: dict[str, torch.Tensor | None], times: int = 1) -> None:
        for name, value in self.expected.gradients.items():
            given = gradients[name]
            if value is None or given is None:  # zeros are as good as nothing
                rest = given if value is None else value
                undefined = self.expected.undefined.get(f"gradient of {name}")
                if rest is not None and undefined is not None:
                    rest = rest.masked_fill(undefined & ~rest.isfinite(), 0)
                assert rest is None or not rest.any(), f"gradient of {name}: {given} instead of {value}"
            else:
                self.expected.compare(f"gradient of {name}", given, value, times)
