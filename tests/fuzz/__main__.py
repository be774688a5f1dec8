"""Fuzzing from the command line."""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported
import pytest
import torch

from .cases import KEPT, Case, describe, draw_cases, is_refusal, refusal
from .expected import UnsuitableError
from .features import FEATURES, features_of
from .shrink import failure_of, shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to draw new functions")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same cases, in the same order")
    parser.add_argument("--start", type=int, default=0, help="the number of the first function")
    parser.add_argument("--functions", type=int, default=None, help="stop after so many functions")
    parser.add_argument("--cases", type=int, default=None, help="stop after the function with which so many were clean")
    parser.add_argument("--shrink", type=float, default=90.0, help="seconds to make a failure smaller")
    parser.add_argument(
        "--triton", type=int, default=10, help="one function in so many runs in Triton's interpreter; 0: none"
    )
    parser.add_argument("--keep", type=Path, default=KEPT, help="the folder for failures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEXFLOW_CACHE", cache)
        patch.delenv("VERTEXFLOW_BACKEND", raising=False)
        if options.triton:
            from triton.runtime import interpreter

            from ..interpreter import refuse_strangers, round_to_bfloat16

            round_to_bfloat16(patch, interpreter)
            refuse_strangers(patch, interpreter._interpreter)
        return Run(options).run()


class Run:
    """Counts of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.clean: collections.Counter[str] = collections.Counter()
        self.other: collections.Counter[str] = collections.Counter()
        self.features: collections.Counter[str] = collections.Counter()
        self.functions = self.failures = 0

    def run(self) -> int:
        options = self.options
        start = last = time.monotonic()
        number = options.start
        most = float("inf") if options.cases is None else options.cases
        while time.monotonic() < start + 60 * options.minutes and number - options.start != options.functions:
            if sum(self.clean.values()) >= most:
                break
            self.one_function(number)
            number += 1
            if time.monotonic() > last + 20:
                last = time.monotonic()
                print(f"[{last - start:.0f} s] to function {number}: {self.summary()}", flush=True)
        for message, count in self.other.most_common():
            print(f"  {count} x {message}")
        self.print_features()
        print(f"by backend: {dict(self.clean)}")
        print(f"{self.summary()} (seed {options.seed}, functions {options.start} to {number - 1})")
        return 1 if self.failures else 0

    def summary(self) -> str:
        refused = sum(count for text, count in self.other.items() if not text.startswith("("))
        return (
            f"{sum(self.clean.values())} cases, {self.functions} functions, {self.failures} failures, {refused} refused"
        )

    def print_features(self) -> None:
        """How many of the clean cases had what."""
        print("feature                                  cases")
        for group, names in FEATURES.items():
            print(f"{group}:")
            for name in names:
                print(f"  {name:36} {self.features[name]:7,}")

    def one_function(self, number: int) -> None:
        rng = random.Random(f"{self.options.seed}/{number}")
        triton = bool(self.options.triton) and number % self.options.triton == 0
        stopped: set[str] = set()
        seen = False
        try:
            for models, case, expected in draw_cases(rng, triton):
                if case.backend in stopped:
                    continue
                self.functions += not seen
                seen = True
                try:
                    models.run(case, expected)
                    self.clean[case.backend] += 1
                    self.features.update(features_of(case))
                except Exception as error:
                    if is_refusal(error):
                        self.other[refusal(error)] += 1
                        stopped.add(case.backend)
                        if os.environ.get("FUZZ_SHOW"):
                            print(f"function {number}, {case.backend}, {case.way}: {error}", flush=True)
                        continue
                    if isinstance(error, AssertionError) and models.is_a_matter_of_rounding(case, expected):
                        self.other["(a matter of rounding)"] += 1
                        continue
                    self.failed(number, case, error)
                    return
        except UnsuitableError as error:
            self.other[f"(unsuitable: {str(error).splitlines()[0][:80]})"] += 1

    def failed(self, number: int, case: Case, error: BaseException) -> None:
        self.failures += 1
        print(
            f"\nfunction {number} of seed {self.options.seed} fails: {case.backend}, {case.way}, {case.policy}",
            flush=True,
        )
        print("\n".join(f"{type(error).__name__}: {error}".splitlines()[:6]), flush=True)
        again = failure_of(case)
        if again is None:
            print("alone it does not: it needs the calls before it")
            print(describe(case, error), flush=True)
            return
        small = shrink(case, self.options.shrink)
        error = failure_of(small) or error
        print(describe(small, error), flush=True)
        name = hashlib.sha256(json.dumps(asdict(small)).encode()).hexdigest()[:10]
        self.options.keep.mkdir(exist_ok=True)
        small.write(self.options.keep / f"{name}.json", error=f"{type(error).__name__}: {error}"[:300])
        print(f"kept as {name}.json\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
