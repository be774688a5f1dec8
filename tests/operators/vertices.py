"""Samples as part of the core of a vertex function, on a backend, against one vertex after another in plain PyTorch."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import vertexflow as vf

from ..reference import Edge, run_reference
from .samples import MIXING, RANDOM, Sample

RIGHT, REFUSED, WRONG, UNKNOWN = "right", "refused", "wrong", "unknown"


@dataclass(frozen=True)
class Outcome:
    """What became of a sample on a backend.

    `verdict`: RIGHT; REFUSED with a `VertexFlowError`; WRONG: other values or gradients, or another error; UNKNOWN: plain
    PyTorch has no answer for one vertex at a time. `how`: "native" if all cores are code of the backend, "cut" if PyTorch is
    called in the steps of one for what that does not have, else "torch".
    """

    verdict: str
    detail: str = ""
    how: str = ""


@dataclass
class Answer:
    """Pushed values and the gradients of what requires grad, by name; names are those of `Samples.vertex`."""

    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    without_gradients: str = ""  # why there are none


class Samples(vf.VertexFunction):
    """Each vertex applies the operator of each sample to its own rows, the first of which are mixed with its children's.

    What is mixed is a mean, so that it stays among the numbers that the operator is defined for. A second state takes in the
    results: so the operator is in the core, and gradients go back through it from parents to children.
    """

    def __init__(self, samples: list[Sample]) -> None:
        state: dict[str, tuple[int, ...]] = {}
        for at, sample in enumerate(samples):
            state[f"total{at}"] = ()
            if is_mixed(sample.tensors[0]):
                state[f"mean{at}"] = tuple(sample.tensors[0].shape[1:])
        dtype = dtype_of(samples[0])
        super().__init__(state=state, state_dtype=dtype)
        self.samples = samples
        for at, sample in enumerate(samples):
            setattr(self, f"scale{at}", nn.Parameter(torch.tensor(0.75, dtype=dtype)))
            for number, tensor in enumerate(sample.tensors):
                if number in sample.rows:
                    continue
                if tensor.requires_grad:
                    setattr(self, f"given{at}_{number}", nn.Parameter(tensor.detach().clone()))
                else:
                    self.register_buffer(f"given{at}_{number}", tensor.detach().clone())

    def vertex(self, v):
        left, right = v.gather(0), v.gather(1)
        own, of_child = v.pull("own"), v.pull("of_child")
        for at, sample in enumerate(self.samples):
            tensors = [
                v.pull(f"rows{at}_{number}") if number in sample.rows else getattr(self, f"given{at}_{number}").clone()
                for number in range(len(sample.tensors))
            ]
            total = getattr(left, f"total{at}") + getattr(right, f"total{at}")
            ones = [1] * (tensors[0].dim() - 1)
            if is_mixed(tensors[0]):
                below = getattr(left, f"mean{at}") + getattr(right, f"mean{at}")
                tensors[0] = own.view(-1, *ones) * tensors[0] + of_child.view(-1, *ones) * below
                v.scatter(**{f"mean{at}": tensors[0].clone()})
            else:
                never = (total > 1e30).view(-1, *ones)
                tensors[0] = torch.where(never, torch.zeros_like(tensors[0]), tensors[0])
            for number, result in enumerate(sample.call(tensors)):
                v.push(**{f"out{at}_{number}": result})
                real = torch.tanh((result.real if result.is_complex() else result).to(total.dtype))
                total = 0.5 * total + (real.flatten(1).sum(1) if real.dim() > 1 else real)
            total = total * getattr(self, f"scale{at}")
            v.scatter(**{f"total{at}": total})
            v.push(**{f"total{at}": total})


def is_mixed(first: Tensor) -> bool:
    """Whether a mean of such tensors can be taken."""
    return first.is_floating_point() and first[0].numel() > 0


def dtype_of(sample: Sample) -> torch.dtype:
    """The dtype of a sample's floating point numbers, and of the states."""
    return next((one.dtype for one in sample.tensors if one.is_floating_point()), torch.float64)


def structure_of(count: int) -> list[Edge]:
    """A forest of leaves and of vertices with one child and with two, as (child, parent, slot)."""
    edges: list[Edge] = []
    roots: list[int] = []
    for vertex in range(count):
        slots = 2 if vertex % 2 == 0 else 1 if vertex % 3 == 0 or count == 2 else 0
        edges += [(roots.pop(), vertex, slot) for slot in range(min(slots, len(roots)))]
        roots.append(vertex)
    return edges


def reference(sample: Sample) -> Answer | None:
    """What plain PyTorch gives for one vertex after another; None: it raises an error."""
    model = Samples([sample])
    inputs = inputs_of([sample])
    try:
        outputs = run_reference(model, sample.num_rows, structure_of(sample.num_rows), inputs)
    except Exception:
        return None
    return differentiated(model, outputs, inputs)


def inputs_of(samples: list[Sample]) -> dict[str, Tensor]:
    """Fresh inputs for all samples, which have the same number of rows."""
    dtype, count = dtype_of(samples[0]), samples[0].num_rows
    children = [0] * count
    for _, parent, _ in structure_of(count):
        children[parent] += 1
    inputs = {
        "own": torch.tensor([0.5 if n else 1.0 for n in children], dtype=dtype),
        "of_child": torch.tensor([0.5 / n if n else 0.0 for n in children], dtype=dtype),
    }
    for at, sample in enumerate(samples):
        for number in sample.rows:
            tensor = sample.tensors[number]
            inputs[f"rows{at}_{number}"] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    return inputs


def differentiated(model: Samples, outputs: dict[str, Tensor], inputs: dict[str, Tensor]) -> Answer:
    """Outputs with the gradients of a weighting of all of them."""
    answer = Answer({name: value.detach() for name, value in outputs.items()})
    leaves = {**dict(model.named_parameters()), **inputs}
    leaves = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    loss = 0
    for value in outputs.values():
        if value.requires_grad:
            generator = torch.Generator().manual_seed(0)
            value = torch.view_as_real(value) if value.is_complex() else value
            loss = loss + (value * torch.randn(value.shape, dtype=value.dtype, generator=generator)).sum()
    if not isinstance(loss, Tensor):
        answer.gradients = dict.fromkeys(leaves)
        return answer
    try:
        answer.gradients = dict(
            zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True)
        )
    except RuntimeError as error:
        answer.without_gradients = str(error)
    return answer


def check(samples: list[Sample], answers: list[Answer | None], backends: list[str]) -> dict[str, list[Outcome]]:
    """The outcomes of samples with the same number of rows, by backend; what fails together is tried one by one."""
    model = Samples(samples)
    outcomes = {}
    for backend in backends:
        model.backend = backend
        together = _outcome(model, samples, answers)
        if len(samples) == 1:
            outcomes[backend] = [together]
        elif together.verdict == RIGHT:
            outcomes[backend] = [together] * len(samples)
    rest = [backend for backend in backends if backend not in outcomes]
    if rest:
        half = (len(samples) + 1) // 2
        parts = [check(samples[cut], answers[cut], rest) for cut in (slice(0, half), slice(half, None))]
        outcomes.update({backend: [*parts[0][backend], *parts[1][backend]] for backend in rest})
    return outcomes


def _outcome(model: Samples, samples: list[Sample], answers: list[Answer | None]) -> Outcome:
    inputs, count = inputs_of(samples), samples[0].num_rows
    edges = structure_of(count)
    graph = vf.graph(count, [edge[:2] for edge in edges], slots=[edge[2] for edge in edges])
    try:
        with _quiet():
            ours = differentiated(model, dict(_items(model(vf.pack([graph]), **inputs))), inputs)
    except vf.VertexFlowError as error:
        verdict = WRONG if "a defect of vertexflow" in str(error) else REFUSED
        return Outcome(verdict, f"{type(error).__name__}: {error}")
    except Exception as error:
        return Outcome(WRONG, f"{type(error).__name__}: {error}")
    how = _how(model)
    for at, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        if answer is None:
            verdict = WRONG if sample.kind == MIXING else UNKNOWN
            return Outcome(verdict, "it is accepted, but plain PyTorch raises an error for one row", how)
        if "cannot be traced" in ours.without_gradients and not answer.without_gradients:
            return Outcome(REFUSED, ours.without_gradients, how)
        try:
            _compare(at, sample, ours, answer)
        except AssertionError as error:
            return Outcome(WRONG, str(error), how)
    return Outcome(RIGHT, "", how)


def _compare(at: int, sample: Sample, ours: Answer, theirs: Answer) -> None:
    """`theirs` is of that sample alone."""
    assert theirs.without_gradients or not ours.without_gradients, ours.without_gradients
    for name, expected in theirs.outputs.items():
        value = ours.outputs[_renamed(name, at)]
        assert value.dtype == expected.dtype, f"{name}: {value.dtype} instead of {expected.dtype}"
        assert value.shape == expected.shape, f"{name}: {tuple(value.shape)} instead of {tuple(expected.shape)}"
        if sample.kind != RANDOM:
            _close(name, value, expected)
    if sample.kind == RANDOM:
        return
    for name, expected in theirs.gradients.items():
        value = ours.gradients[_renamed(name, at)]
        if expected is None and value is not None:
            assert not value.any(), f"gradient of {name}: something instead of none"
        elif expected is not None:
            assert value is not None or not expected.any(), f"gradient of {name}: none"
            if value is not None:
                _close(f"gradient of {name}", value, expected)


def _renamed(name: str, at: int) -> str:
    """What something of the first sample is called of another."""
    return re.sub(r"^([a-z]+)0", rf"\g<1>{at}", name)


def _close(name: str, value: Tensor, expected: Tensor) -> None:
    loose = 1e4 if expected.dtype in (torch.float32, torch.complex64) else 1
    torch.testing.assert_close(
        value, expected, rtol=1e-8 * loose, atol=1e-8 * loose, equal_nan=True, msg=lambda text: f"{name}: {text}"
    )


def _items(outputs: object) -> Iterator[tuple[str, Tensor]]:
    yield from (outputs.items() if hasattr(outputs, "items") else vars(outputs).items())


def _how(model: Samples) -> str:
    """Whether every core of the last call is code of the backend, or is that between calls of PyTorch."""
    if model.backend == "eager":
        return "eager"
    cores = [line.split(" (")[0] for line in model.explain().splitlines() if "core:" in line or "core_leaf:" in line]
    if not cores or any(": calls of PyTorch" in line for line in cores):
        return "torch"
    return "cut" if any("with calls of PyTorch in each step" in line for line in cores) else "native"


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
