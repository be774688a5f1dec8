"""How the threads of a team wait for each other, alone and where others want the cores, too."""

from __future__ import annotations

import ctypes
import os
import threading
import time

import pytest
import torch

import vertexflow as vf
from vertexflow.kernels.native.build import load
from vertexflow.kernels.native.products import joined
from vertexflow.kernels.native.source import company_source

from ..promises import SHAPES, graphs_of, inputs_of, outputs_and_gradients, same_bits
from ..test_guarantees import model_of
from ..test_processes import in_a_child
from ..versions import FORKS

MEETINGS = """
#include <omp.h>

// How often a thread of so many was there before another one had come; the last of them sleeps before each barrier.
extern "C" Long meetings(Company* company, int threads, Long rounds, Long nanoseconds) {
    Meeting meeting(company);
    std::atomic<Long> come{0}, wrong{0};
#pragma omp parallel num_threads(threads)
    {
        const int team = omp_get_num_threads();
        for (Long round = 1; round <= rounds; ++round) {
            const timespec late = {0, nanoseconds};
            if (nanoseconds && omp_get_thread_num() == team - 1) nanosleep(&late, nullptr);
            come.fetch_add(1, std::memory_order_relaxed);
            meeting.wait(team);
            if (come.load(std::memory_order_relaxed) != round * team) ++wrong;
            meeting.wait(team);
        }
        if (team > 1 && omp_get_thread_num() == 0) meeting.ends();
    }
    return wrong;
}

// One of two threads comes late to the end.
extern "C" void late_end(Company* company) {
    const timespec late = {0, 50'000'000};
    Meeting meeting(company);
#pragma omp parallel num_threads(2)
    if (omp_get_thread_num() == 0)
        meeting.ends();
    else
        nanosleep(&late, nullptr);
}
"""
LATE = 5_000_000
FOREVER = 2**62


class Company(ctypes.Structure):
    """As in team.hpp."""

    _fields_ = (("until", ctypes.c_int64), ("waited", ctypes.c_void_p), ("leave", ctypes.c_void_p))


@pytest.fixture
def library():
    loaded = load(company_source())
    loaded.come.argtypes = (ctypes.c_int64,)
    yield loaded
    loaded.leave()


@pytest.fixture
def company(library):
    return Company.in_dll(library, "company")


@pytest.fixture
def code():
    return load(joined(torch.float32, "product.hpp", "team.hpp") + MEETINGS)


@pytest.fixture
def meetings(code):
    function = code.meetings
    function.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    function.restype = ctypes.c_int64
    return lambda company, *arguments: function(ctypes.addressof(company), *arguments)


@pytest.fixture
def late_end(code):
    code.late_end.argtypes = (ctypes.c_void_p,)
    return lambda company: code.late_end(ctypes.addressof(company))


def threads_now():
    """When none is about to begin or to end."""
    before = None
    while before != (before := set(os.listdir("/proc/self/task"))):
        time.sleep(0.1)
    return before


def soon(is_so, seconds=20):
    end = time.monotonic() + seconds
    while not (result := is_so()) and time.monotonic() < end:
        time.sleep(0.01)
    return result


def noticed(company, call):
    """Whether a call, unless it is held up for seconds, finds company."""
    call()
    return company.until > time.monotonic_ns()


@pytest.mark.parametrize("in_company", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.cases(2)
def test_nobody_goes_on_before_all_are_there(library, company, meetings, in_company, threads):
    if in_company:
        library.come(FOREVER)
    assert meetings(company, threads, 300, 0) == 0
    assert meetings(company, threads, 3, LATE) == 0


def test_in_several_threads_at_once(company, meetings):
    early = []
    callers = [threading.Thread(target=lambda: early.append(meetings(company, 2, 300, 0))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert early == [0] * 4


def test_where_one_is_late_company_is_assumed_and_after_two_seconds_not_any_more(library, company, meetings):
    meetings(company, 2, 1, 0)  # OpenMP's own threads are there
    library.leave()
    before = threads_now()  # some of which, of earlier tests, may end at any time
    assert soon(lambda: noticed(company, lambda: meetings(company, 2, 10, LATE)))
    idle = threads_now() - before
    assert len(idle) >= 2
    meetings(company, 2, 10, LATE)
    assert threads_now() - before == idle
    time.sleep(2.1)
    meetings(company, 1, 1, 0)
    assert company.until == 0
    assert not threads_now() & idle


def test_one_that_is_late_at_the_end_of_a_region(company, late_end):
    assert soon(lambda: noticed(company, lambda: late_end(company)))


def test_one_that_is_late_now_and_then_is_no_company(company, meetings):
    """Unless the machine is busy just then."""

    def is_alone():
        company.until = 0
        for _ in range(5):
            time.sleep(0.1)
            meetings(company, 2, 1, 2 * LATE)
        return company.until == 0

    assert soon(is_alone)


def test_in_company_threads_that_wait_for_work_of_pytorch_sleep(library):
    """Not for some 10 ms of each region's end, as OpenMP has it."""
    torch.set_num_threads(2)
    ones = torch.ones(2_000_000)

    def time_after():
        ones.add_(1)
        start = time.process_time()
        time.sleep(0.05)
        return time.process_time() - start

    library.come(FOREVER)
    threads_now()
    assert sorted(time_after() for _ in range(9))[4] < 0.003


@pytest.mark.slow
def test_native_code_gives_the_same_bits_in_company(library):
    model, graphs = model_of("ragged", "native"), graphs_of(SHAPES["ragged"], 300)
    batch, x, results = vf.pack(graphs), inputs_of(SHAPES["ragged"], graphs), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(outputs_and_gradients(model, batch, x))
        library.come(FOREVER)
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


@FORKS
def test_a_child_that_was_forked_in_company(library, company):
    model, graphs = model_of("trees", "native"), graphs_of(SHAPES["trees"], 150)
    x = inputs_of(SHAPES["trees"], graphs)
    torch.set_num_threads(2)
    library.come(time.monotonic_ns())
    expected = outputs_and_gradients(model, graphs, x)

    def work():
        results = [outputs_and_gradients(model, graphs, x)]
        company.until = 1  # long ago
        results.append(outputs_and_gradients(model, graphs, x))
        torch.testing.assert_close(results, [expected, expected])
        return company.until == 0

    assert in_a_child(work)
    assert same_bits(outputs_and_gradients(model, graphs, x), expected)
