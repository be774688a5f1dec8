"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.budget import repeats
from vertexflow.kernels.native import build

RUNTIME = Path(build.__file__).with_name("runtime.hpp")
pytest_plugins = ["tests.interpreter"]
# Other processes run beside this one; half as many cases as usual, other ones each time.
settings.register_profile("patient", settings(), deadline=None, max_examples=repeats(50))
settings.load_profile("patient")
os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported; `make test-gpu` says 0


def pytest_addoption(parser):
    parser.addoption(
        "--part",
        nargs=2,
        type=int,
        default=(0, 1),
        metavar=("K", "N"),
        help="part K, counted from 0, of N of the tests",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Marks as slow what `cases(n)` leaves out, and takes one part of the tests, a function with all its cases."""
    functions: dict[str, list[pytest.Item]] = {}
    for item in items:
        functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in functions.values():
        if marker := cases[0].get_closest_marker("cases"):
            for case in cases_left_out(cases, *marker.args):
                case.add_marker(pytest.mark.slow)
    part, parts = config.getoption("--part")
    others = [item for name, cases in functions.items() if zlib.crc32(name.encode()) % parts != part for item in cases]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]


def cases_left_out(cases: list, most: int) -> list:
    """All but `most` of those that are not slow already, which are spread from the first to the last; one is any of them."""
    cases = [case for case in cases if not case.get_closest_marker("slow")]
    kept = {round(place * (len(cases) - 1) / max(most - 1, 1)) for place in range(most)}
    if most == 1 and cases:  # of some tests the first backend, of others the last
        kept = {zlib.crc32(cases[0].nodeid.partition("[")[0].encode()) % len(cases)}
    return [case for place, case in enumerate(cases) if place not in kept]


def pytest_collection_finish():
    """What is there before the first test is never garbage, and not looked at again; tracing makes much that is none either."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # threads that wait for each other are slow where other work is done


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """Compiled code of tests is kept for as long as they run; it is not optimised, as most of their time is compiling."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"  # one for all workers
    folder.mkdir(exist_ok=True)
    linker = "-fuse-ld=gold" if shutil.which("ld.gold") else ""  # which takes a third of the time
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEXFLOW_CACHE", str(folder))
        # Some tests ask for what users get.
        patch.setenv("VERTEXFLOW_CXXFLAGS", f"-O0 -include {standard_headers(folder)} {linker}")
        yield


def standard_headers(folder: Path) -> Path:
    """One header of all that generated C++ includes, precompiled: reading them takes longer than all else at -O0."""
    header, lines = folder / "standard.hpp", RUNTIME.read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory(dir=folder) as beside:  # another worker may be reading what is there
        new = Path(beside) / "standard.hpp"
        new.write_text("\n".join(line for line in lines if line.startswith("#include <")), encoding="utf-8")
        if compiler := build.compiler():  # what it does not precompile it reads
            flags = (*build.FLAGS, "-ffp-contract=off", "-O0", "-x", "c++-header")
            subprocess.run([*shlex.split(compiler), *flags, str(new), "-o", f"{new}.gch"], check=False)
        for file in Path(beside).iterdir():
            file.replace(folder / file.name)
    return header


@pytest.fixture
def data() -> Path:
    """The folder of real data; tests that use it are marked `needs_data`."""
    return Path(os.environ["VERTEXFLOW_DATA"])
