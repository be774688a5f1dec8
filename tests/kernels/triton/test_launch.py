"""Which kernels the native core may launch, and when it leaves that to Triton."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vertexflow import _core
from vertexflow.kernels.triton.launch import function_of, is_watched

HEAD = """
.visible .entry core_0(
    .param .u64 .ptr .global .align 1 core_0_param_0,
    .param .u32 core_0_param_1,
    {numbers}
    .param .u64 .ptr .global .align 1 core_0_param_7,
    .param .b64 core_0_param_8
)
.reqntid 128
{{ .param .b32 of_somebody_else; }}
"""
NUMBERS = "\n".join(f"    .param .u32 core_0_param_{number}," for number in range(2, 7))
PLAIN = {"num_ctas": 1, "num_warps": 4, "launch_cooperative_grid": False, "launch_pdl": False, "global_scratch_size": 0,
         "profile_scratch_size": 0}  # fmt: skip


def kernel(numbers=NUMBERS, **metadata):
    """As Triton compiles one, of a pointer and a stride."""
    return SimpleNamespace(
        metadata=SimpleNamespace(**PLAIN | metadata), asm={"ptx": HEAD.format(numbers=numbers)}, function=1234
    )


def test_a_kernel_that_takes_what_it_will_be_given():
    assert function_of(kernel(), [64, 32]) == 1234


@pytest.mark.parametrize("bits", [[64], [64, 64], [32, 64], [64, 32, 32, 64]])
def test_a_kernel_that_takes_something_else(bits):
    assert function_of(kernel(), bits) == 0


def test_a_kernel_that_takes_more_than_pointers_at_its_end():
    assert function_of(kernel(NUMBERS + NUMBERS), [64, 32]) == 0


@pytest.mark.parametrize("name", PLAIN)
def test_a_kernel_with_more_to_its_launch(name):
    assert function_of(kernel(**{name: 2}), [64, 32]) == 0


def test_a_kernel_of_another_vendor():
    compiled = kernel()
    compiled.asm = {"amdgcn": ""}
    assert function_of(compiled, [64, 32]) == 0


def test_somebody_watches_launches():
    knobs = pytest.importorskip("triton").knobs

    def hook(metadata):
        pass

    assert not is_watched()
    knobs.runtime.launch_enter_hook.add(hook)
    try:
        assert is_watched()
    finally:
        knobs.runtime.launch_enter_hook.remove(hook)
    assert not is_watched()


def launch(variants, lines, first=0, own=(0, 2)):
    arguments = np.array([1, 2, 3], np.int64)
    call = (False, 40, np.array(variants, np.int64), np.array(own, np.int64))
    return _core.launch(0, 0, 132, 128, [call, call], [call], arguments, 10, 0, np.array(lines, np.int32), first)


def test_what_is_not_compiled_is_not_launched():
    """It is told by its number: that of the step, times the most kernels of one, and of the kernel."""
    steps = [0, 0, 0, 0, 0, 0, 0, 10, 30, 0, 0, 0, 0, 0]
    variants = [32, 32, 32, 32, 0, 0]
    assert launch(variants, steps) == 2  # the first step has no rows
    assert launch(variants, steps, 3) == 3
    assert launch(variants, steps, 4) == 4


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (([], [0] * 7), "lines of six"),
        (([32] * 5, [0] * 7), "lines of six"),
        (([32] * 6, [0] * 8), "seven numbers"),
        (([32] * 6, [0] * 7, -1), "negative"),
        (([32] * 6, [0] * 7, 0, [0, 3]), "no such argument"),
    ],
)
def test_arrays_of_other_shapes_are_refused(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        launch(*given)
