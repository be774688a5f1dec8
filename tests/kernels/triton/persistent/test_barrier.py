"""The barrier of persistent kernels, in several processes at once: Triton's interpreter runs one program in each."""

from __future__ import annotations

import dataclasses
import multiprocessing

import numpy as np
import pytest
import torch

from vertexflow.kernels import triton

pytestmark = pytest.mark.skipif(not triton.interprets(), reason="TRITON_INTERPRET is 0")
MOST_LOOKS = 1 << 24


def program_of(memory, program, programs, first, end, most_looks):
    from triton.runtime.interpreter import interpreter_builder

    from .rounds import rounds

    # As TRITON_DEBUG=1 does on a GPU.
    interpreter_builder.options = dataclasses.replace(interpreter_builder.options, debug=True)
    rounds[(1,)](memory, program, programs, first, end, most_looks)


def launch(memory, programs, first, end, most_looks=MOST_LOOKS, missing=0):
    """Run all programs at once, but for some of the last ones; their exit codes, and the numbers that they leave."""
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=program_of, args=(memory, program, programs, first, end, most_looks))
        for program in range(programs - missing)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(60)
    finally:
        for process in processes:
            process.kill()
    return [process.exitcode for process in processes], memory.tolist()


@pytest.fixture
def memory(tmp_path):
    """Where programs meet: zeros at first, which processes share."""
    path = tmp_path / "memory"
    np.zeros(32, np.int32).tofile(path)
    return torch.from_numpy(np.memmap(path, np.int32, "r+"))


@pytest.mark.slow
def test_nobody_goes_on_before_all_have_come_and_nothing_is_set_again_between_launches(memory):
    """Two launches, of three programs and of two; the number of the barrier goes on as it is."""
    codes, after = launch(memory, 3, 1, 20)
    assert codes == [0, 0, 0]
    assert after[1:4] == [19] * 3
    assert after[9:12] == [0] * 3
    assert after[0] & 0x7FFFFFFF == 0  # but for the highest bit it is what it was
    codes, after = launch(memory, 2, 20, 31)
    assert codes == [0, 0]
    assert after[1:3] == [30] * 2
    assert after[9:11] == [0] * 2
    assert after[0] & 0x7FFFFFFF == 0


def test_one_program_waits_for_nobody(memory):
    codes, after = launch(memory, 1, 1, 4)
    assert codes == [0]
    assert after[:2] == [0, 3]  # the highest bit, six times


def test_a_program_that_waits_in_vain_ends_and_says_so(memory, capfd):
    """In debug builds."""
    codes, _ = launch(memory, 2, 1, 2, most_looks=50, missing=1)
    assert codes == [1]
    assert "programs of a persistent kernel wait for one that does not come" in capfd.readouterr().err
