"""Kernels compiled for GPUs that are not there: what they take, and how a training step would launch them.

Triton either compiles or interprets, for as long as a process lives: these are processes of their own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

WITHOUT_INTERPRETER = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}


def python(*arguments: str) -> str:
    """What a Python process prints; its errors are those of the test."""
    done = subprocess.run([sys.executable, "-m", *arguments], env=WITHOUT_INTERPRETER, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "kernels"),
    [
        (["--hidden", "256", "--target", "sm_90"], 100),
        (["--hidden", "256", "--dag", "--target", "sm_90", "--", "ChildSumTreeLSTM", "DAGNN"], 20),
        (["--hidden", "200", "--dtype", "bfloat16", "--target", "sm_80", "sm_90", "--", "README", "GRU"], 20),
    ],
    ids=["all", "several parents", "bfloat16"],
)
def test_no_kernel_spills(options, kernels):
    """`benchmarks.registers` fails otherwise, and shows what each kernel takes."""
    said = python("benchmarks.registers", *options)
    print(said)
    count = int(said.splitlines()[-1].split()[0])
    assert count >= kernels


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("ChildSumTreeLSTM", "Dropping")]


@pytest.fixture(scope="module", params=["README", *SLOW])
def steps(request):
    """What `dry_run` prints of a model."""
    return json.loads(python("tests.kernels.triton.dry_run", request.param, "40"))


@pytest.mark.slow
def test_a_step_launches_what_was_compiled_before(steps):
    """Nothing is compiled in a second step, every row and column has a program, and arguments are of the right types."""
    first, second = steps["compiled"]
    assert first >= 5
    assert second == 0
    assert {launch["name"] for launch in steps["triton"]} >= {"core_0", "core_leaf_0", "grad_core_0", "grad_core_1"}
    for launch in steps["triton"]:
        kinds, values = zip(*launch["arguments"], strict=True)
        height, width, _, precision = values[-4:]
        assert precision == "ieee"
        rows = values[-5]
        assert launch["grid"][0] * height >= rows > (launch["grid"][0] - 1) * height
        assert launch["grid"][1] * width >= 40
        for kind, value in zip(kinds[:-4], values[:-4], strict=True):
            if kind.startswith("*"):
                assert value > 2**16, "no address"
            elif kind == "constexpr":
                assert value is None
            else:
                assert kind in ("i32", "i64")  # the seed of random numbers
                assert abs(value) < 2 ** (31 if kind == "i32" else 62)


@pytest.mark.slow
def test_the_native_core_launches_as_triton_does(steps):
    """The same kernels with the same arguments; what the driver refuses Triton launches instead."""

    def passed(launch):
        arguments = [value for kind, value in launch["arguments"] if kind != "constexpr"]
        return {**launch, "by": "anybody", "arguments": arguments}

    assert list(map(passed, steps["native"])) == list(map(passed, steps["triton"]))
    by = [launch["by"] for launch in steps["native"]]
    assert by.count("driver") > 5 * by.count("triton") > 0
    assert {launch["by"] for launch in steps["triton"]} == {"triton"}
    assert {launch["stream"] for launch in steps["native"]} == {77}


@pytest.mark.slow
def test_the_hosts_time_can_be_measured_without_a_gpu():
    looked, *lines = python("benchmarks.host", "--repeat", "1", "--graphs", "3").splitlines()
    assert re.fullmatch(r"a model of 20 submodules is looked at in \d+\.\d us at each call", looked)
    assert [line.split()[0] for line in lines] == ["README", "LSTM"]
    for line in lines:
        launches, native, by_triton = (float(word) for word in line.split() if word.replace(".", "").isdigit())
        assert launches > 10
        assert min(native, by_triton) > 0
