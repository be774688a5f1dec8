"""Weights that programs keep between steps: when they are kept, and that results are those of a launch a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given

import vertexflow as vf
from benchmarks.zoo import ZOO
from vertexflow.kernels.triton import loop
from vertexflow.kernels.triton.kept import Kept
from vertexflow.kernels.triton.persistent import Persistent, keep, launch
from vertexflow.kernels.triton.persistent.keep import choose, columns_of, sizes_that_fit, weights_of
from vertexflow.kernels.triton.persistent.work import Choice, Kind, work_of
from vertexflow.kernels.triton.source import Launch
from vertexflow.kernels.triton.tiles import choose as tile_of

from ....budget import tries
from ....ragged import ragged_cases
from ....strategies import OPERATIONS, cases
from ..test_functions import check_kernels
from ..test_zoo import ERRORS, difference, model_and_exact, results

WITH_WEIGHTS = ["linear", "linears", "relu", "joint", "tied", "mul", "norm", "split", "einsum"]
H200 = (132, 232_448)  # multiprocessors, and bytes of shared memory


def lstm(hidden, itemsize=4):
    """Kernels of an LSTM's steps: with a product of four gates, and of the first steps, without."""
    dtype = {4: torch.float32, 2: torch.bfloat16}[itemsize]
    kept = Kept([], [], 4 * hidden * itemsize, hidden * itemsize, min(hidden, 256) * itemsize, {dtype: 4 * hidden})
    return (
        Launch("step", [], [], tile_of(hidden, 4, 1), False, set(), 0, [], kept),
        Launch("leaf", [], [], tile_of(hidden, 0, 1), False, set(), 0, []),
    )


def work(launches, rows, steps):
    """A first step without children, and others with."""
    table = np.array([(at * rows, (at + 1) * rows, -1, -1, 0, 0, 0) for at in range(steps + 1)], np.int32)
    return work_of([Kind(launches[:1], launches[1:], rows, 0)], table)


def test_tiles_have_as_many_columns_as_have_room():
    """Of an LSTM of 256: 16 KiB of weights for four columns in float32, and 32 KiB of rows at once for 32 rows."""
    launches = lstm(256)
    assert [weights_of(launches, sizes) for sizes in sizes_that_fit(launches, 232_448, "tf32")] == [
        131_072,
        131_072,
        65_536,
        65_536,
        32_768,
        32_768,
    ]
    assert {sizes[0] for sizes in sizes_that_fit(launches, 100_000, "tf32")} == {(16, 16), (32, 8), (16, 8)}
    assert sizes_that_fit(launches, 32_768, "tf32") == []


def test_products_without_matrix_instructions_are_of_small_tiles():
    """Each multiply-add is an instruction of its own: 8,192 of a thread in 32 by 32."""
    assert sizes_that_fit(lstm(256), 232_448, "tf32")[0][0] == (32, 32)
    assert sizes_that_fit(lstm(256), 232_448, "ieee")[0][0] == (16, 32)
    assert sizes_that_fit(lstm(256, 2), 232_448, "ieee")[0][0] == (32, 32)


@pytest.mark.parametrize(
    ("hidden", "rows", "steps", "device", "why"),
    [
        (256, 64, 3, H200, "too few steps"),
        (256, 64, 64, (4, 232_448), "they are in 8 tiles of columns, and 4 programs fit at once"),
        (256, 64, 64, (132, 40_000), "with its rows a program would take 52 KiB of shared memory, and there are 39"),
        (2048, 64, 64, H200, "with its rows a program would take 276 KiB of shared memory, and there are 227"),
        (256, 64, 64, (132, 0), "kept on NVIDIA's GPUs only"),
    ],
    ids=["steps", "programs", "a small memory", "large weights", "another maker's"],
)
def test_why_weights_are_not_kept(hidden, rows, steps, device, why):
    assert choose(work(lstm(hidden), rows, steps), *device, "ieee") == Choice([], why)


def test_long_products_are_not_written_one_by_one():
    """Of 1,500 columns in float32, a tile of 16 by 8 would be 6,000 multiply-adds of each thread."""
    choice = choose(work(lstm(1504, 4), 64, 64), 400, 1 << 30, "ieee")
    assert choice == Choice([], "a tile would be 6016 multiply-adds of each thread, and 4096 are written at most")
    assert choose(work(lstm(1504, 4), 64, 64), 400, 1 << 30, "tf32").sizes


@pytest.mark.parametrize(("rows", "why"), [(64, ""), (4096, "more would be read, of rows")])
def test_many_rows_are_read_by_wide_tiles_and_then_weights_are_not_kept(rows, why):
    """Gradients of the states of an LSTM's children: one product of 1,024 columns, for which there are tiles of 64 by 64."""
    kept = Kept([], [], 1024 * 4, 1024 * 4, 256 * 4, {torch.float32: 1024})
    launches = (Launch("step", [], [], tile_of(256, 1, 1), False, set(), 0, [], kept), lstm(256)[1])
    choice = choose(work(launches, rows, 64), *H200, "ieee")
    assert (choice.why, bool(choice.sizes)) == (why, not why)


def test_where_there_are_no_weights_nothing_is_said_of_them():
    assert choose(work(lstm(256)[1:] * 2, 64, 64), *H200, "ieee") == Choice([])


@pytest.mark.parametrize(("hidden", "rows"), [(128, 16), (256, 64), (256, 1024), (512, 64)])
def test_a_long_chain_keeps_weights_and_reads_less(hidden, rows):
    one = work(lstm(hidden), rows, 64)
    choice = choose(one, *H200, "ieee")
    assert choice.why == ""
    sizes = choice.sizes[0]
    assert columns_of(one.launches, sizes) <= H200[0]
    assert weights_of(one.launches, sizes) < H200[1]
    times = [keep._time(one, each, H200[0]) for each in choice.sizes]
    assert times == sorted(times)


def test_programs_are_launched_for_all_columns_and_no_more_than_have_rows():
    launches = lstm(256)
    sizes = ((16, 16), launches[1].tile.sizes[0])
    assert keep.programs_of(work(launches, 16, 4), sizes, 132) == 16
    assert keep.programs_of(work(launches, 64, 4), sizes, 132) == 64
    assert keep.programs_of(work(launches, 4096, 4), sizes, 132) == 132


# In the interpreter


@pytest.fixture
def kept(one_launch, monkeypatch):
    """Weights are kept wherever they can be, in the widest tiles, so that one program runs all steps of few rows; in what is
    launched, all products are of kept weights. Yields the names of the kernels and the numbers of their programs."""
    seen, interpret = [], launch.interpret

    def always(work, _, shared, precision):
        fitting = sizes_that_fit(work.launches, shared, precision) if any(one.kept for one in work.launches) else []
        return Choice([sizes for sizes in fitting if columns_of(work.launches, sizes) <= 3])

    def noted(form, programs, arguments):
        seen.append((form.written.name, programs))
        interpret(form, programs, arguments)

    monkeypatch.setattr(keep, "choose", always)
    monkeypatch.setattr(launch, "interpret", noted)
    return seen


def check_kept(seen):
    """Every core was launched as it keeps weights."""
    assert {name for name, _ in seen} == {"core_persistent_kept", "grad_core_persistent_kept"}


CASES = [
    pytest.param("README", torch.float32),
    *(
        pytest.param(name, dtype, marks=pytest.mark.slow)
        for name in ZOO
        if name != "RNTN"  # which has too many columns for three programs
        for dtype in ERRORS
        if (name, dtype) != ("README", torch.float32)
    ),
]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=lambda value: str(value).removeprefix("torch."))
def test_every_model_is_the_same_as_in_float64(name, dtype, kept):
    animal, inputs, exact, exact_inputs = model_and_exact(name, dtype)
    actual = results(animal, inputs, "triton")
    assert difference(actual, results(exact, exact_inputs, "eager")) < ERRORS[dtype]
    check_kept(kept)
    said = animal.functions()[0].explain()
    kinds = " of 2 kinds" if name == "LatticeLSTM" else ""
    assert f"core: Triton kernels, one launch for all steps{kinds}, weights kept in shared memory" in said


@pytest.mark.parametrize("name", ["LSTM", pytest.param("README", marks=pytest.mark.slow)])
def test_one_program_keeps_its_weights_over_all_steps(name, kept):
    """In one launch, whose numbers are those of launches a step to the bit: products are added up in the same order."""
    animal = ZOO[name](15)  # 30 columns of gradients for two children
    inputs = animal.inputs(torch.float32)
    actual = results(animal, inputs, "triton")
    assert kept == [("core_persistent_kept", 1), ("grad_core_persistent_kept", 1)]
    with pytest.MonkeyPatch.context() as patches:
        patches.setenv(launch.VARIABLE, "0")
        expected = results(animal, inputs, "triton")
    assert difference(actual, [value.double() for value in expected]) < 1e-6


@pytest.mark.slow
def test_programs_that_share_columns_share_rows(kept):
    """Two tiles of columns and three programs, of which one has nothing to do; forty rows a step are three tiles of rows."""
    animal = ZOO["LSTM"](36)
    animal.graphs = [vf.chain(4) for _ in range(40)]
    inputs = animal.inputs(torch.float32)
    actual = results(animal, inputs, "triton")
    check_kept(kept)
    assert {programs for _, programs in kept} == {3}
    assert difference(actual, [value.double() for value in results(animal, inputs, "torch")]) < 1e-5


@pytest.mark.slow
def test_products_in_tf32(kept, monkeypatch):
    """Which the interpreter computes in float32: the kernel is the same but for the constant."""
    monkeypatch.setattr(loop, "precision", lambda: "tf32")
    animal, inputs, exact, exact_inputs = model_and_exact("LSTM", torch.float32)
    assert difference(results(animal, inputs, "triton"), results(exact, exact_inputs, "eager")) < 1e-5
    check_kept(kept)


@pytest.mark.slow
def test_weights_are_kept_in_half_precision_under_autocast(kept):
    animal, inputs, exact, exact_inputs = model_and_exact("README", torch.float32)
    actual = results(animal, inputs, "triton", autocast=torch.bfloat16)
    assert 1e-5 < difference(actual, results(exact, exact_inputs, "eager")) < 2e-2
    check_kept(kept)
    by_pytorch = results(animal, inputs, "torch", autocast=torch.bfloat16)
    assert difference(actual, [value.double() for value in by_pytorch]) < 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
@tries(3)
@given(cases(sorted(OPERATIONS)))
def test_random_functions(case):
    check_random(case)


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
@tries(3)
@given(cases(WITH_WEIGHTS, size=36))
def test_random_functions_of_more_elements_than_a_tile_has(case):
    check_random(case)


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
@tries(3)
@given(ragged_cases(WITH_WEIGHTS))
def test_random_functions_of_any_number_of_children(case):
    check_random(case)


def check_random(case):
    """It agrees, and whatever was launched with weights kept them."""
    loops, run = [], Persistent.run

    def noted(core, given, steps):
        if run(core, given, steps):
            loops.append(core)
            return True
        return False

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(Persistent, "run", noted)
        check_kernels(case)
    for core in loops:
        (source,) = core.sources
        has_weights = any(one.kept for one in (*source.inner, *source.leaf))
        assert core.weights == ("" if has_weights else None), source.name
