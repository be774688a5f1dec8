"""The native core (csrc/); all metadata is in pyproject.toml."""

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

setup(
    ext_modules=[
        Pybind11Extension(
            "vertexflow._core",
            ["csrc/bindings.cpp"],
            depends=[
                f"csrc/{name}.hpp"
                for name in ("check", "common", "containers", "greedy", "launch", "order", "pack", "place")
            ],
            cxx_std=17,
            extra_compile_args=["-O3", "-Wall", "-Wextra"],
        )
    ]
)
