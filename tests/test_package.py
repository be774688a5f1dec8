"""What is installed: the version, the types, and the public names that others rely on."""

from __future__ import annotations

import importlib.metadata
import importlib.resources

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
