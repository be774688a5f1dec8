"""`python -m vertexflow` says what there is."""

from __future__ import annotations

import subprocess
import sys

import torch

import vertexflow as vf
from vertexflow.__main__ import lines, main
from vertexflow.kernels import native


def test_versions_backends_compiler_and_cache(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("VERTEXFLOW_CACHE", str(tmp_path))
    monkeypatch.setenv("VERTEXFLOW_LOG", "schedule")
    monkeypatch.delenv("VERTEXFLOW_BACKEND", raising=False)
    (tmp_path / "code.so").write_bytes(b"0" * 300_000)
    assert main() == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed["vertexflow"] == vf.__version__
    assert printed["torch"] == torch.__version__
    assert printed["cache"] == f"{tmp_path}: 1 files, 0.3 MB"
    assert printed["VERTEXFLOW_LOG"] == "schedule"
    assert dict(lines())['backend "auto"'] == ("torch" if native.compiler() is None else "native")


def test_without_a_compiler_or_a_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("VERTEXFLOW_BACKEND", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VERTEXFLOW_CACHE", str(tmp_path / "none"))
    said = dict(lines())
    assert said["compiler"].startswith("none")
    assert said['backend "auto"'].startswith("torch")
    assert said["cache"].endswith("which is not there yet")


def test_a_compiler_that_cannot_be_run(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    assert "no-such-compiler -O3, which cannot be run" in dict(lines())["compiler"]


def test_as_a_command():
    done = subprocess.run([sys.executable, "-m", "vertexflow"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("vertexflow")
    assert done.stderr == ""
