"""Persistent kernels compiled for GPUs that are not there: what they take, how they meet, and when they are launched.

Triton either compiles or interprets, for as long as a process lives: these are processes of their own.
"""

from __future__ import annotations

import ctypes
import json
import re

import pytest

from vertexflow.kernels.triton.persistent import launch

from ..test_compiled import python
from .ptx import loads_of, stages_of, stored_to_shared


def dry_run(*arguments):
    return json.loads(python("tests.kernels.triton.persistent.dry_run", *arguments))


def names(launches):
    return [one["name"] for one in launches]


@pytest.mark.parametrize("name", ["README", pytest.param("ChildSumTreeLSTM", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_training_step_is_two_cooperative_launches_compiled_once(name):
    record = dry_run(name, "200", "1")
    assert record["compiled"] == [2, 0]
    assert record["launches"][0] == record["launches"][1]
    kept = {"README": "", "ChildSumTreeLSTM": "_kept"}[name]  # which has more steps
    assert names(record["launches"][0]) == [f"core_persistent{kept}", f"grad_core_persistent{kept}"]
    for one in record["launches"][0]:
        assert one["is_cooperative"]
        assert one["numbers"]["first"] == 0 < one["numbers"]["end"]
        programs, *others = one["grid"]
        assert others == [1, 1]
        assert 1 < programs <= record["multiprocessors"]
    assert "core: Triton kernels, one launch for all steps" in record["said"]


@pytest.mark.slow
def test_a_program_for_each_tile_of_columns_keeps_its_weights():
    record = dry_run("LSTM", "200", "1")
    assert record["compiled"] == [2, 0]
    for launches in record["launches"]:
        assert names(launches) == ["core_persistent_kept", "grad_core_persistent_kept"]
        for one, kernel in zip(launches, (0, 1), strict=True):  # which of its kernels has weights
            assert one["is_cooperative"]
            assert -(-200 // one["numbers"][f"BLOCK_N_{kernel}"]) <= one["grid"][0] <= record["multiprocessors"]
    assert "core: Triton kernels, one launch for all steps, weights kept in shared memory" in record["said"]


@pytest.mark.slow
def test_steps_of_kinds_that_take_turns_are_one_launch():
    record = dry_run("LatticeLSTM", "20", "1")
    assert record["compiled"] == [2, 0]
    for launches in record["launches"]:
        assert names(launches) == ["core_persistent_kept", "grad_core_persistent_kept"]
        assert all(one["is_cooperative"] for one in launches)
    for kind in ("word", "char"):
        assert f"{kind}.core: Triton kernels, one launch for all steps of 2 kinds" in record["said"]


@pytest.mark.slow
def test_weights_with_which_a_kernel_spills_are_read_in_every_step_and_that_is_said():
    record = dry_run("LSTM", "40", "1", "spill")
    assert record["compiled"][1] == 0  # nor is it tried again
    assert names(record["launches"][1]) == ["core_persistent", "grad_core_persistent"]
    assert (
        "core: Triton kernels, one launch for all steps, weights read in every step (it would spill)" in record["said"]
    )


@pytest.mark.slow
def test_no_more_programs_are_launched_than_fit_at_once():
    """However many tiles there are: RNTN at 32 has 1,024 columns."""
    few, many = (dry_run("RNTN", "60", occupancy)["launches"][1] for occupancy in ("1", "16"))
    assert max(one["grid"][0] for one in few) <= 132
    assert max(one["grid"][0] for one in many) > 132


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("README", "40", "0"), "none of its programs fits on a multiprocessor"),
        (("LSTM", "40", "0"), "none of its programs fits on a multiprocessor"),
        pytest.param(("README", "40", "1", "refuse"), "none of its programs fits", marks=pytest.mark.slow),
    ],
    ids=["none fits", "none that keeps weights fits", "the driver refuses"],
)
@pytest.mark.slow
def test_what_cannot_be_on_the_device_at_once_is_launched_step_by_step_and_that_is_said(arguments, why):
    record = dry_run(*arguments)
    assert record["compiled"][1] == 0  # nor is it tried again
    assert not any(one["is_cooperative"] for one in record["launches"][1])
    assert {"core_0", "core_leaf_0", "grad_core_0", "grad_core_1"} <= set(names(record["launches"][1]))
    assert f"core: Triton kernels, 1 launch a step, not one for all ({why}" in record["said"]


def test_occupancy_is_asked_of_the_driver(monkeypatch):
    """By the kernel's function, its threads and its shared memory; 0 where the driver cannot say."""
    queries = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    def ask(count, function, threads, shared):
        queries.append((function, threads, shared))
        count[0] = 3
        return 0 if function == 77 else 1

    driver = type("Driver", (), {"cuOccupancyMaxActiveBlocksPerMultiprocessor": ask})
    monkeypatch.setattr(launch, "_driver", lambda: driver)
    assert launch.occupancy(77, 49152) == 3
    assert launch.occupancy(78, 49152) == 0
    assert queries == [(77, 128, 49152), (78, 128, 49152)]
    monkeypatch.setattr(launch, "_driver", lambda: None)
    assert launch.occupancy(77, 49152) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "dtype", "models"),
    [
        ("256", "float32", ["README", "ChildSumTreeLSTM", "TreeFC", "LSTM", "GRU", "DAGNN"]),
        ("200", "bfloat16", ["README", "LSTM"]),
        ("32", "float32", ["MVRNN", "RNTN"]),
    ],
    ids=["float32", "bfloat16", "matrices"],
)
def test_kernels_of_all_steps_do_not_spill_and_release_and_acquire_at_a_barrier(size, dtype, models):
    kernels = json.loads(python("tests.kernels.triton.persistent.assemble", size, dtype, *models))
    assert len(kernels) == 4 * len(models)  # forward and backward, on two targets
    for name, kernel, target, registers, spills, text, *_ in kernels:
        assert spills == 0, (name, kernel, target, registers)
        check_barrier(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "dtype", "words"),
    [
        ("256", "float32", ["README", "LSTM"]),
        ("256", "float32", ["README", "--tf32"]),
        ("256", "bfloat16", ["README", "LSTM", "GRU"]),
        ("200", "bfloat16", ["ChildSumTreeLSTM"]),
        ("128", "float32", ["LSTM"]),
        ("512", "bfloat16", ["LSTM"]),
        ("64", "float32", ["LatticeLSTM"]),
    ],
    ids=["float32", "tf32", "bfloat16", "columns that tiles do not divide", "128", "512", "kinds"],
)
def test_weights_are_loaded_before_the_loop_over_stages_and_kept_in_shared_memory(size, dtype, words):
    kernels = json.loads(python("tests.kernels.triton.persistent.assemble", size, dtype, *words, "--keep"))
    assert len(kernels) == 4 * sum(not word.startswith("--") for word in words)
    for name, kernel, target, registers, spills, text, shared, weights, arguments in kernels:
        assert spills == 0, (name, kernel, target, registers)
        first, _ = stages_of(text)
        assert arguments
        for argument in arguments:
            loads = loads_of(text, argument)
            assert loads, (name, kernel, target)
            assert not [load for load in loads if load >= first], (name, kernel, target)
        assert 128 * stored_to_shared(text, 0, first) >= weights  # by the threads of a program, each once
        assert weights < shared <= {"sm_80": 166_912, "sm_90": 232_448}[target]
        check_barrier(text)


@pytest.mark.slow
def test_weights_that_are_not_kept_are_loaded_in_the_loop_over_stages():
    """By the same signs as above."""
    for name, kernel, target, _, _, text, _, _, arguments in json.loads(
        python("tests.kernels.triton.persistent.assemble", "256", "float32", "README", "LSTM")
    ):
        first, last = stages_of(text)
        for argument in arguments:
            loads = loads_of(text, argument)
            assert loads, (name, kernel, target)
            assert all(first < load < last for load in loads), (name, kernel, target)


@pytest.mark.slow
def test_a_barrier_ends_what_waits_in_vain_in_debug_builds_only():
    for debug in ([], ["--debug"]):
        kernels = json.loads(python("tests.kernels.triton.persistent.assemble", "32", "float32", "LSTM", *debug))
        assert [("assertfail" in text) for *_, text, _, _, _ in kernels] == [bool(debug)] * 4


def check_barrier(ptx):
    """Threads wait for each other, one releases what all wrote and looks until it acquires, and threads wait again; nothing is
    read or written in between, and no read bypasses what the barrier orders."""
    lines = [line.strip() for line in ptx.splitlines()]
    memory = r"\b(ld\.global|st\.global|atom|red|cp\.async|bar\.sync|ld\.param)\S*"
    instructions = [
        match.group() for line in lines if (match := re.search(memory, line)) and "ld.param" not in match.group()
    ]
    (at,) = [number for number, one in enumerate(instructions) if one.startswith("atom")]
    assert instructions[at] == "atom.global.gpu.release.add.u32"
    assert instructions[at - 1] == "bar.sync"
    behind = instructions[at + 1 :]
    last = max(number for number, one in enumerate(behind) if one.startswith("ld.global.gpu.acquire"))
    assert set(behind[:last]) <= {"bar.sync", "ld.global.gpu.acquire.b32"}
    assert behind[last + 1] == "bar.sync"
    assert ".nc" not in "".join(instructions)
