"""Generated code on disk: which compiler makes it, and what happens to files that are damaged, in the way or written at once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vertexflow.errors import BackendError
from vertexflow.kernels import cache
from vertexflow.kernels.native import build

SOURCE = 'extern "C" int answer() { return 42; }'


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("VERTEXFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_private_folder", lambda: str(tmp_path / "aside"))
    return tmp_path / "cache"


def answer(source: str = SOURCE) -> int:
    return int(build.load(source).answer())


@pytest.mark.parametrize("left", [0.0, 0.6, 1.0])
def test_a_damaged_library_is_compiled_again(folder: Path, left: float) -> None:
    source = f"{SOURCE} // {left}"
    assert answer(source) == 42
    (library,) = folder.iterdir()
    whole = library.read_bytes()
    damaged = bytearray(whole[: int(len(whole) * left)])
    if left == 1.0:
        damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)  # blocks that were never written
    library.unlink()  # this process has the old one still
    library.write_bytes(damaged)
    assert answer(source) == 42
    assert len(library.read_bytes()) == len(whole)


def test_a_damaged_source_of_triton_kernels_is_written_again(folder: Path) -> None:
    path = cache.cached_file("kernel.py", lambda to: to.write_text("x = 1\ny = 2\n"))
    times = path.stat().st_mtime_ns
    assert cache.cached_file("kernel.py", lambda to: to.write_text("not asked")) == path
    assert path.stat().st_mtime_ns == times
    path.write_text("x = 1\n")
    cache.cached_file("kernel.py", lambda to: to.write_text("x = 1\ny = 2\n"))
    scope: dict[str, int] = {}
    exec(path.read_text(), scope)
    assert scope["y"] == 2


@pytest.mark.parametrize("blocked", ["folder", "file", "library"])
def test_where_the_cache_cannot_be_used_code_lies_aside(
    folder: Path, blocked: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if blocked == "folder":
        folder.write_text("a file where the folder should be")
    elif blocked == "file":
        monkeypatch.setattr(os, "replace", _refuse_in(folder))
    else:
        folder.mkdir()
        monkeypatch.setattr(build, "cached_file", lambda name, make: folder)  # which cannot be loaded
    assert answer(f"{SOURCE} // {blocked}") == 42
    assert len(list((tmp_path / "aside").glob("*.so"))) == 1


def _refuse_in(folder: Path) -> Callable[[Path, Path], None]:
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if folder in Path(target).parents:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    return refuse


def test_many_processes_compile_at_once(folder: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as processes:
        assert processes.map(answer, [SOURCE] * 6, chunksize=1) == [42] * 6
    assert [path.suffix for path in folder.iterdir()] == [".so"]


def test_a_compiler_with_options(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = build.compiler()
    monkeypatch.setenv("CXX", f"  {compiler} -DANSWER=42 '-DNAME=\"two words\"'")
    assert answer('static_assert(sizeof(NAME) == 10); extern "C" int answer() { return ANSWER; }') == 42


def test_a_compiler_in_a_folder_with_a_space(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "my tools" / "c++"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shutil.which(build.compiler() or "")} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    assert answer(f"{SOURCE} // space") == 42
    monkeypatch.setenv("CXX", f"'{script}' -O1")
    assert answer(f"{SOURCE} // quoted") == 42


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-compiler -O2", "the C.. compiler 'no-such-compiler' cannot be run .No such file.*let CXX name one"),
        (".", "the C.. compiler '.' cannot be run .Permission denied"),
        ("g++ '", 'CXX is "g.. \'", which is no command: No closing quotation'),
        ("true", "what true makes of generated code cannot be loaded"),
    ],
)
def test_a_compiler_that_cannot_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    monkeypatch.setenv("CXX", command)
    with pytest.raises(BackendError, match=message):
        answer(f"{SOURCE} // {command}")


def test_a_cxx_of_spaces_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", " ")
    assert build.compiler() != " "
