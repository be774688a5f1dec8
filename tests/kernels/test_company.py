"""How the threads of a team wait for each other, alone and where others want the cores, too."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

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
        if (team > 1) meeting.ends();
    }
    return wrong;
}

extern "C" int threads(Company* company) { return threads_in(company); }
"""
ROOT = Path(__file__).parents[2]
LATE = 5_000_000
FOREVER = 2**62

TWO_ON_ONE_CORE = """
import ctypes, os, sys, time
import torch
from tests.kernels.test_company import Company, function_of_meetings, load_meetings
from vertexflow.kernels.native.build import load
from vertexflow.kernels.native.source import company_source

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
torch.set_num_threads(int(sys.argv[1]))
company, end = Company.in_dll(load(company_source()), "company"), time.monotonic() + float(sys.argv[2])
meetings = function_of_meetings(load_meetings())
while not company.until and time.monotonic() < end:
    assert meetings(company, int(sys.argv[1]), 300, 0) == 0
print(company.until > time.monotonic_ns())
"""


class Company(ctypes.Structure):
    """As in team.hpp."""

    _fields_ = (("until", ctypes.c_int64), ("look", ctypes.c_void_p))


def load_meetings():
    return load(joined(torch.float32, "product.hpp", "team.hpp") + MEETINGS)


def function_of_meetings(code):
    code.meetings.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    code.meetings.restype = ctypes.c_int64
    return lambda company, *arguments: code.meetings(ctypes.addressof(company), *arguments)


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
    return load_meetings()


@pytest.fixture
def meetings(code):
    return function_of_meetings(code)


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


@pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="the system does not tell how long threads wait"
)
@pytest.mark.parametrize(("threads", "is_company"), [(2, True), (1, False)])
def test_threads_that_share_a_core_are_in_company(threads, is_company):
    seconds = 60 if is_company else 0.5
    command = [sys.executable, "-c", TWO_ON_ONE_CORE, str(threads), str(seconds)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.split() == [str(is_company)]


def test_one_that_is_late_but_was_not_kept_from_running_is_no_company(company, meetings):
    """Unless the machine is busy just then."""

    def is_alone():
        company.until = 0
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            meetings(company, 2, 10, LATE)
        return company.until == 0

    torch.set_num_threads(2)
    assert soon(is_alone)


def test_company_is_there_for_two_seconds(library, company, meetings):
    meetings(company, 2, 1, 0)  # OpenMP's own threads are there
    before = threads_now()  # some of which, of earlier tests, may end at any time
    library.come(time.monotonic_ns())
    idle = threads_now() - before
    assert len(idle) >= 2
    meetings(company, 2, 10, LATE)
    assert threads_now() - before == idle
    time.sleep(2.1)
    meetings(company, 1, 1, 0)
    assert company.until == 0
    assert not threads_now() & idle


@pytest.mark.parametrize(("threads", "in_company"), [(1, 1), (2, 1), (3, 2)])
def test_in_company_there_is_a_thread_less(library, company, code, threads, in_company):
    torch.set_num_threads(threads)
    address = ctypes.c_void_p(ctypes.addressof(company))
    assert code.threads(address) == threads
    library.come(FOREVER)
    assert code.threads(address) == in_company


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
