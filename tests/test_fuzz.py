"""What fuzzing found before stays mended, and fresh cases are clean."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
import re

import pytest
import torch

from .fuzz.cases import KEPT, Case, Models, describe, draw_cases, replay
from .fuzz.expected import UnsuitableError
from .fuzz.features import FEATURES, features_of
from .fuzz.functions import draw_function
from .fuzz.samples import draw_sample
from .fuzz.shrink import shrink
from .fuzz.ways import WAYS
from .fuzz.writer import source_of


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.json")), ids=lambda path: path.stem)
@pytest.mark.cases(2)
def test_kept_cases(path):
    replay(path)


def test_fresh_cases():
    """Two functions of a fixed seed, the first 35 cases of each; none of them is refused."""
    count = 0
    for number in range(1, 3):
        drawn = draw_cases(random.Random(f"make test/{number}"), triton=False)
        for models, case, expected in itertools.islice(drawn, 35):
            try:
                models.run(case, expected)
            except Exception as error:
                raise AssertionError(describe(case, error)) from error
            count += 1
    assert count == 70


def test_the_same_seed_gives_the_same_cases():
    def drawn():
        given = draw_cases(random.Random("5"), triton=False)
        return [dataclasses.asdict(case) for _, case, _ in itertools.islice(given, 30)]

    assert drawn() == drawn()


@pytest.mark.slow
def test_every_way_is_one_that_can_fail():
    """A model that computes something else than the reference is found out, whatever the way."""
    rng = random.Random(3)
    function = draw_function(rng)
    while not (function.methods.get("vertex") and function.is_exact and "self.linear" in source_of(function)):
        function = draw_function(rng)
    function.methods["vertex"].push = [["out", -1]]
    function.methods["vertex"].program.append(["linear", False, -1, 0, 0, 0])
    models = Models(function)
    sample = draw_sample(rng, function, [])
    sample.special = {}
    expected = models.expect(sample)
    expected.outputs["out"] = expected.outputs["out"] + 1e-6
    for way in WAYS:
        with pytest.raises(AssertionError, match="out"):
            models.run(Case(function, sample, "eager", "depth", way, 0), expected)
        wrong = Case(function, sample, "eager", "depth", way, 0)
        right = models.expect(sample)
        right.gradients["linear.weight"] = right.gradients["linear.weight"] + 1e-6
        if way != "inference only":
            with pytest.raises(AssertionError, match=re.escape("linear.weight")):
                models.run(wrong, right)


def test_failures_are_made_small(tmp_path):
    """Down to the one operation that is at fault."""
    rng = random.Random(8)
    function = draw_function(rng)
    name, method = next(iter(function.methods.items()))
    method.program.insert(2, ["erf", False, 0, 0, 0, 0])
    case = Case(function, draw_sample(rng, function, []), "native", "agenda", "growing", 1)

    def fails(one):
        return True if any(step[0] == "erf" for step in one.function.methods[name].program) else None

    small = shrink(case, 20, fails)
    assert [step[0] for step in small.function.methods[name].program] == ["erf"]
    assert (small.backend, small.way, small.policy, small.sample.count) == ("torch", "train", "depth", 1)
    small.write(tmp_path / "case.json")
    assert Case.read(tmp_path / "case.json") == small
    assert "torch.erf(" in describe(small, AssertionError("no"))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "autocast"])
@pytest.mark.cases(2)
def test_fewer_digits_are_judged_too(dtype):
    """Values that are a little too far off, and such as are right in another dtype."""
    rng = random.Random(4)
    models = sample = expected = None
    while expected is None:
        function = draw_function(rng)
        if not (function.methods.get("vertex") and function.is_exact):
            continue
        function.dtype, function.autocast = ("float32", True) if dtype == "autocast" else (dtype, False)
        function.methods["vertex"].program.append(["linear", False, -1, 0, 0, 0])
        function.methods["vertex"].push = [["out", -1]]
        models, sample = Models(function), draw_sample(rng, function, [])
        sample.special = {}
        with contextlib.suppress(UnsuitableError):  # rounding decides: draw another
            expected = models.expect(sample)
    case = Case(function, sample, "torch", "depth", "train", 0)
    models.run(case, expected)
    for name in ("out", "gradient of linear.weight"):
        wrong = models.expect(sample)
        own, key = (wrong.outputs, name) if name == "out" else (wrong.gradients, name.split()[-1])
        own[key] = own[key] + 8  # what is the same bits is right
        wrong.truth[name] = wrong.truth[name] + 3 * wrong.allowed[name] + 1e-9
        with pytest.raises(AssertionError, match=re.escape(name)):
            models.run(case, wrong)
    expected.outputs["out"] = expected.outputs["out"].double()
    with pytest.raises(AssertionError, match="instead of torch"):
        models.run(case, expected)


def test_the_table_has_every_feature():
    known = {name for names in FEATURES.values() for name in names}
    for number in range(60):
        function = draw_function(random.Random(number))
        sample = draw_sample(random.Random(number), function, ["x", "linear.weight"])
        case = Case(function, sample, "native", "fsm", "growing", 0)
        features = features_of(case)
        used = {step[0] for method in function.methods.values() for step in method.program}
        assert features - used <= known
    assert {f"way: {name}" for name in WAYS} <= known
