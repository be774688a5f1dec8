"""What is installed: the version, the types, and the public names that others rely on."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import vertexflow as vf

PUBLIC = [
    "VertexFunction", "Vertex", "InputGraph", "GraphBatch", "Schedule", "graph", "tree", "tree_from_parents", "chain",
    "from_ptb", "pack", "collate", "schedule", "VertexFlowError", "GraphError", "InputError", "InputTypeError",
    "VertexFunctionError", "BackendError", "Outputs",
]  # fmt: skip


def test_the_version_is_that_of_the_metadata():
    assert vf.__version__ == importlib.metadata.version("vertexflow")


def test_the_package_is_typed():
    assert importlib.resources.files(vf).joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_exported(name):
    assert name in vf.__all__
    assert getattr(vf, name).__module__.startswith("vertexflow.")


def test_all_lists_only_what_exists():
    assert [name for name in vf.__all__ if not hasattr(vf, name)] == []


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (vf.GraphError, ValueError),
        (vf.InputError, ValueError),
        (vf.InputTypeError, TypeError),
        (vf.VertexFunctionError, RuntimeError),
        (vf.BackendError, ValueError),
    ],
)
def test_errors_are_caught_as_vertexflow_and_as_python_would_raise_them(error, builtin):
    assert issubclass(error, vf.VertexFlowError)
    assert issubclass(error, builtin)


@pytest.mark.slow
def test_a_source_distribution_has_all_that_is_kept(tmp_path):
    """All but what is for the repository alone: tests read pages of the documentation, `make` reads the Makefile."""
    root = Path(__file__).parents[1]
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git repository, which says what is kept")
    kept = {name for name in listed.stdout.splitlines() if not name.startswith(".") and (root / name).is_file()}
    for name in kept:  # a copy: setuptools writes beside setup.py, and other tests look around there
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    command = [sys.executable, "setup.py", "-q", "sdist"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("dist/*.tar.gz")
    with tarfile.open(archive) as file:
        assert kept <= {name.partition("/")[2] for name in file.getnames()}


@pytest.mark.slow
def test_what_few_need_is_not_imported():
    """Triton, which reads its environment when it is imported, comes with the first kernel; others with what uses them."""
    later = ["triton", "scipy", "networkx", "matplotlib", "torch._dynamo", "torch._inductor"]
    script = f"import sys, vertexflow; print([name for name in {later} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
