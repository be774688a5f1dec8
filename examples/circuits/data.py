"""Circuits to learn from, and what the model is given of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import vertexflow as vf

from .circuit import Circuit, circuit, cone, read
from .simulate import independent, probabilities
from .structure import structure

SMALLEST = 20  # gates of a cone, at most; a gate near the inputs has fewer


@dataclass(frozen=True, eq=False)
class Sample:
    """A circuit as the model sees it, and what it should find: float32 [G] by simulation and by the classical rule."""

    graph: vf.InputGraph
    probability: Tensor
    structure: Tensor
    simulated: Tensor
    classical: Tensor


def sample(circuit: Circuit, patterns: int, seed: int = 0) -> Sample:
    """A circuit with the probabilities that a simulation of that many patterns gives."""
    gates = slice(len(circuit.source), None)
    return Sample(
        graph=circuit.graph,
        probability=torch.from_numpy(circuit.source).float().unsqueeze(-1),
        structure=torch.from_numpy(structure(circuit)),
        simulated=torch.from_numpy(probabilities(circuit, patterns, seed)[gates]).float(),
        classical=torch.from_numpy(independent(circuit)[gates]).float(),
    )


def join(samples: Sequence[Sample]) -> tuple[vf.GraphBatch, dict[str, Tensor], Tensor, Tensor]:
    """A batch, the model's inputs, and the simulated and the classical probabilities of its gates."""
    inputs = {name: torch.cat([getattr(one, name) for one in samples]) for name in ("probability", "structure")}
    simulated, classical = (torch.cat([getattr(one, name) for one in samples]) for name in ("simulated", "classical"))
    return vf.pack([one.graph for one in samples]), inputs, simulated, classical


def read_folder(folder: Path) -> dict[str, Circuit]:
    """All circuits of a folder, or of the folder `epfl_circuits` in it, by name.

    Raises:
        FileNotFoundError: there are none.
        vf.GraphError: a file is malformed.
    """
    files = sorted(folder.glob("epfl_circuits/*.aig")) or sorted(folder.glob("*.aig"))
    if not files:
        raise FileNotFoundError(
            f"{folder} has no circuits (*.aig, or epfl_circuits/*.aig); get those of the EPFL combinational benchmarks"
        )
    return {path.stem: read(path) for path in files}


def cones(circuits: Sequence[Circuit], count: int, most: int, rng: np.random.Generator) -> list[Circuit]:
    """So many cones from each circuit, of random gates and of up to `most` gates; every other one is varied."""
    drawn: list[Circuit] = []
    for whole in circuits:
        for gate in rng.choice(len(whole), min(count, len(whole)), replace=False):
            cut = cone(whole, int(gate), int(rng.integers(SMALLEST, most + 1)))
            drawn.append(varied(cut, rng) if len(drawn) % 2 else cut)
    return drawn


def varied(original: Circuit, rng: np.random.Generator) -> Circuit:
    """A circuit like another: some operands inverted, some replaced by others, and inputs of random probabilities.

    A few circuits repeat a few patterns many times over, and within a whole circuit what a cone reads is not 0 or 1
    equally often; a model that has seen nothing else takes what is new for what it knows.
    """
    flipped = rng.random(original.inverted.shape) < rng.uniform(0, 0.5)
    replaced = rng.random(original.operands.shape) < rng.uniform(0, 0.3)
    before = (len(original.source) + np.arange(len(original)))[:, None]  # an operand comes before its gate
    others = rng.integers(0, before, original.operands.shape)
    biased = rng.integers(1, 256, len(original.source)) / 256
    return circuit(
        f"{original.name}, varied",
        np.where(original.source > 0, biased, 0.0),
        np.where(replaced, others, original.operands),
        original.inverted ^ flipped,
    )
