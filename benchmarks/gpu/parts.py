"""The parts of `make gpu`: what is run, for how long at most, in the order of what is wanted most."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = "build"
TESTS, ONE_LAUNCH_TESTS = "tests.jsonl", "one-launch-tests.jsonl"  # the outcomes of tests
PROCESSES = min(os.cpu_count() or 1, 12)  # of tests: most of their time is tracing and compiling


@dataclass(frozen=True)
class Part:
    """A command, run in the folder of the project.

    Attributes:
        name: what it is called in `ARGS`, and in the table.
        command: what is run.
        seconds: its limit.
        needs: packages without which it cannot run.
        variables: of its environment.
    """

    name: str
    command: Sequence[str]
    seconds: float
    needs: Sequence[str] = ()
    variables: dict[str, str] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """The packages that it needs and that are not there."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def python(*arguments: str) -> list[str]:
    """A command of the Python that runs this."""
    return [sys.executable, *arguments]


def all_parts(results: Path) -> list[Part]:
    """All parts; what they measure becomes files in `results`. One launch for all steps comes last: should it hang, all else is
    there."""
    build = Part(BUILD, python("setup.py", "--quiet", "build_ext", "--inplace"), 90, ["setuptools", "pybind11"])
    ceilings = Part("ceilings", python("-m", "benchmarks.gpu.ceilings", str(results)), 40, ["torch", "triton"])
    launches = python("-m", "benchmarks.gpu.launches", str(results))
    tests = _tests("tests", results / TESTS, "not one_launch", 180)
    first, more = _workloads(results)
    return [
        *(build, ceilings, tests, Part("bench:launches", launches, 70, ["torch", "triton"])),
        *first,
        _tests("one-launch:tests", results / ONE_LAUNCH_TESTS, "one_launch", 80),
        Part("one-launch:bench", [*launches, "--one-launch"], 70, ["torch", "triton"]),
        *more,
    ]


def _tests(name: str, outcomes: Path, keyword: str, seconds: float) -> Part:
    """Tests marked `gpu`, in several processes if pytest can; what each came to is written at once."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text()]
    command = python("-m", "pytest", "-m", "gpu", "-k", keyword, "-q", "-p", "no:cacheprovider")
    command += ["-p", "benchmarks.gpu.outcomes", f"--outcomes={outcomes}"]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(PROCESSES)]
    needs = ["torch", "triton", "pytest", "hypothesis", "rich", "matplotlib"]
    variables = {"TRITON_INTERPRET": "0", "VERTEXFLOW_EXAMPLES": "0.2"}  # each case is compiled, for seconds
    return Part(name, [*command, *(str(path.relative_to(ROOT)) for path in files)], seconds, needs, variables)


def _workloads(results: Path) -> tuple[list[Part], list[Part]]:
    """Workloads with their peers: the first ones, in TF32, and the rest, by priority. What runs under `torch.compile`, which
    takes long to compile, comes after the same without."""
    names = ("treelstm", "fixedlstm", "varlstm", "treefc")
    tf32, bfloat16, ieee = ["--tf32"], ["--dtype", "bfloat16"], ["--dtype", "float32"]
    settings = [(f"{name}:tf32", tf32, 256, 64) for name in names]
    settings += [(f"{name}:bfloat16", bfloat16, 256, 64) for name in names[:2]]
    settings += [("treelstm:tf32:compile", [*tf32, "--compile"], 256, 64)]
    settings += [(f"{name}:tf32", tf32, 512, 256) for name in names[:3]]
    settings += [("customlstm:tf32:compile", [*tf32, "--compile"], 256, 64)]
    settings += [(f"{name}:float32", ieee, 256, 64) for name in names[:2]]
    parts = []
    for name, options, hidden, batch in settings:
        command = python("-m", "benchmarks", "run", name.partition(":")[0], "--device", "cuda", "--batched", *options)
        command += ["--rounds", "30", "--hidden", str(hidden), "--batch", str(batch), "--results", str(results)]
        seconds = 100 if "--compile" in options else 50
        parts.append(
            Part(f"bench:{name}:h{hidden}:b{batch}", command, seconds, ["torch", "triton", "rich", "matplotlib"])
        )
    return parts[: len(names)], parts[len(names) :]


def chosen(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """The parts whose names are these or begin with one of them and a colon, after the build; all, if none is named.

    Raises:
        ValueError: there is no such part.
    """
    for name in names:
        if not any(_is(part.name, name) for part in parts):
            known = ", ".join(dict.fromkeys(":".join(part.name.split(":")[:2]) for part in parts))
            raise ValueError(f"there is no part {name!r}; choose of {known}")
    return [part for part in parts if not names or part.name == BUILD or any(_is(part.name, name) for name in names)]


def _is(full_name: str, name: str) -> bool:
    return full_name == name or full_name.startswith(f"{name}:")
