"""The pages of the site: their code runs, and every public name has its place in the API."""

from __future__ import annotations

import ast
import linecache
import re
from pathlib import Path

import pytest

import vertexflow as vf

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CELL = re.compile(r"^```\{code-cell\} python\n(?::[^\n]*\n)*(.*?)^```", re.M | re.S)
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if CELL.search(page.read_text(encoding="utf-8"))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_cells_of_a_page_run(page, monkeypatch):
    """As they do when the site is built, without a kernel."""
    monkeypatch.delenv("VERTEXFLOW_BACKEND", raising=False)
    namespace: dict[str, object] = {}
    for number, cell in enumerate(CELL.finditer(page.read_text(encoding="utf-8"))):
        code, name = cell[1], f"{page.stem}_{number}.py"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        tree = ast.parse(code)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), namespace)
        if last is not None:  # which a notebook shows
            shown = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
            assert shown is None or repr(shown)


@pytest.mark.parametrize(
    ("module", "prefix"), [(vf, ""), (vf.nn, "nn."), (vf.parallel, "parallel.")], ids=["vertexflow", "nn", "parallel"]
)
def test_every_public_name_is_in_the_api(module, prefix):
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    documented = set(re.findall(rf"^\.\. auto\w+:: vertexflow\.{re.escape(prefix)}(\w+)$", pages, re.M))
    assert set(module.__all__) - {"__version__", "nn", "parallel"} == documented


def test_every_page_is_in_a_table_of_contents():
    listed = {DOCS / "index.md"}
    for page in DOCS.rglob("*.md"):
        for toctree in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            names = [line.rpartition("<")[2].rstrip(">") for line in toctree.split("\n") if line[:1] not in ("", ":")]
            listed |= {(page.parent / f"{name}.md").resolve() for name in names}
    assert {page.resolve() for page in DOCS.rglob("*.md")} <= listed


WRITTEN = [
    *ROOT.glob("*.md"),
    *(page for room in ("docs", "examples", "benchmarks") for page in (ROOT / room).rglob("*.md")),
]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(((?!https?:)[^)#\s]+)", prose):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
