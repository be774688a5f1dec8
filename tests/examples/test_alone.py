"""Each example is a folder that can be copied out and run."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from examples.spinn import listops as of_spinn
from examples.treelstm import listops

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDERS = sorted(path.parent.name for path in EXAMPLES.glob("*/__init__.py"))
PROGRAMS = sorted(
    f"{path.parent.name}.{path.stem}" for path in EXAMPLES.glob("*/*.py") if "__main__" in path.read_text("utf-8")
)
TREES = "(3 (2 It) (4 (2 's) (3 good)))\n(1 (2 It) (1 (2 's) (0 bad)))\n" * 4
SENTENCE = "1\tdogs\tdog\tNOUN\t_\t_\t2\tnsubj\t_\t_\n2\tbark\tbark\tVERB\t_\t_\t0\troot\t_\t_\n\n"
GATES = range(21, 81)  # each of the gate before it and of an input
CIRCUIT = "aag 80 20 0 1 60\n" + "".join(f"{2 * i}\n" for i in range(1, 21)) + "160\n"
CIRCUIT += "".join(f"{2 * gate} {2 * gate - 1} {2 + 2 * (7 * gate % 20)}\n" for gate in GATES)
RUNS = {  # each as small as it goes
    "circuits.train": "--data . --held-out b --cones 3 --gates 20 --hidden 4 --epochs 1 --out run",
    "dependency.train": "--data words.conllu --size 4 --epochs 1 --out run",
    "lm.train": "--data . --hidden 4 --epochs 1 --out run",
    "molecules.train": "--data smiles.txt --size 4 --epochs 1 --out run",
    "spinn.train": "--train-size 64 --hidden 4 --embed 4 --epochs 1 --out run",
    "structured.compare": "--samples 1 --rounds 1 --problems tagging",
    "treelstm.train": "--dataset sst --data . --hidden 4 --embed 4 --epochs 1 --out run",
}
SMALL = "--formulas 8 --most 3 --hidden 4 --epochs 1 --out run"
OF_TRAINERS = {"trainers.with_accelerate": f"--cpu {SMALL}", "trainers.with_lightning": SMALL}


def test_every_example_is_run_here():
    assert {name.split(".")[0] for name in RUNS | OF_TRAINERS} == set(FOLDERS)
    assert set(RUNS | OF_TRAINERS) <= set(PROGRAMS)


@pytest.mark.parametrize("name", FOLDERS)
def test_an_example_imports_nothing_of_the_repository_but_itself_and_the_package(name):
    for path in (EXAMPLES / name).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level < 2, (path, node.lineno)
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {module.split(".")[0] for module in modules} & {"examples", "tests", "benchmarks"}, path


@pytest.mark.parametrize("name", FOLDERS)
def test_a_readme_shows_and_links_what_is_in_its_folder(name):
    text = (EXAMPLES / name / "README.md").read_text("utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in targets if ".." in target or not (EXAMPLES / name / target).is_file()] == []


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A folder with a copy of each example, and data for them."""
    folder = tmp_path_factory.mktemp("alone")
    for name in FOLDERS:
        shutil.copytree(EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.txt", "dev.txt"):
        (folder / name).write_text(TREES)
    (folder / "words.conllu").write_text(SENTENCE * 20)
    (folder / "smiles.txt").write_text("CCO\nCCN\nCCC\nC#N\nc1ccccc1\n" * 4)
    for name in "ab":
        (folder / f"{name}.aig").write_text(CIRCUIT)
    return folder


def run(copied, calls):
    """Runs programs of the copied folders in one process, in which there is no repository to import from; what they print."""
    script = f"""
import runpy, sys, vertexflow
sys.path[:] = [""] + [path for path in sys.path if path != {str(EXAMPLES.parent)!r}]
sys.modules["examples"] = None
for name, arguments in {calls!r}:
    print("#", name, flush=True)
    sys.argv = [name, *arguments.split()]
    try:
        runpy.run_module(name, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    for path in sorted(__import__("pathlib").Path("run").glob("*")):
        print("wrote", path.name)
    __import__("shutil").rmtree("run", ignore_errors=True)
"""
    environment = os.environ | {
        "PYTHONPATH": str(EXAMPLES.parent), "VERTEXFLOW_BACKEND": "eager", "OMP_NUM_THREADS": "1", "COLUMNS": "120",
        "VERTEXFLOW_DATA": str(copied),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=copied, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return dict(zip([name for name, _ in calls], done.stdout.split("# ")[1:], strict=True))


@pytest.mark.slow
def test_every_program_of_a_copied_folder_says_what_it_does(copied):
    printed = run(copied, [(name, "--help") for name in PROGRAMS])
    for name, text in printed.items():
        assert f"usage: python -m {name} " in text
        assert "examples" not in text, name


@pytest.mark.slow
def test_a_copied_folder_runs(copied):
    printed = run(copied, list(RUNS.items()))
    for name in RUNS:
        if name.endswith(".train"):
            assert "wrote" in printed[name], printed[name]
    assert "times as long" in printed["structured.compare"]


@pytest.mark.slow
def test_a_copied_folder_runs_with_the_trainers_of_others(copied):
    for library in ("accelerate", "lightning"):
        pytest.importorskip(library, reason="make test-integrations installs it")
    printed = run(copied, list(OF_TRAINERS.items()))
    assert "wrote model.safetensors" in printed["trainers.with_accelerate"]
    assert "wrote last.ckpt" in printed["trainers.with_lightning"]


def test_two_examples_make_the_same_expressions():
    ours, theirs = (list(islice(module.distinct_expressions(3, 4), 50)) for module in (of_spinn, listops))
    assert ours == theirs
    for expression in ours:
        one, other = (module.to_graph(expression) for module in (of_spinn, listops))
        assert one.child.tolist() == other.child.tolist()
        assert {name: values.tolist() for name, values in one.data.items()} == {
            name: values.tolist() for name, values in other.data.items()
        }
